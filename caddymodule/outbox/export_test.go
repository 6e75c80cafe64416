// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package outbox

import (
	"context"
	"time"
)

// PutTimeout is how long Put takes at most.
const PutTimeout = putTimeout

// Client is what inserts.
type Client = client

// SetPutTimeout changes how long Put takes at most.
func (o *Outbox) SetPutTimeout(d time.Duration) { o.putTimeout = d }

// PutClient returns what inserts, and SetPutClient exchanges it.
func (o *Outbox) PutClient() Client     { return o.store.put }
func (o *Outbox) SetPutClient(c Client) { o.store.put = c }

// SetIsBadRow exchanges what tells errors of a row from those of the database.
func (o *Outbox) SetIsBadRow(f func(error) bool) { o.store.IsBadRow = f }

// Exec runs a statement on the connection that the store is written through.
func (o *Outbox) Exec(ctx context.Context, statement string) error {
	return o.store.write.Exec(ctx, statement)
}

// PutClientOf returns what would insert into another store.
func PutClientOf(s Store) Client { return s.put }
