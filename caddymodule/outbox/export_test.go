// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package outbox

import (
	"context"
	"time"
)

// PutTimeout is the default timeout of Put.
const PutTimeout = putTimeout

// RescueSlack is the time after which an attempt is considered lost.
const RescueSlack = rescueSlack

// NewClientID returns the ID of a client whose attempts take that long.
func NewClientID(longest time.Duration) string { return newClientID(longest) }

// DurationOf returns how long the attempts of a client may take.
func DurationOf(clientID string) time.Duration { return durationOf(clientID) }

// Client is the type of clients that insert.
type Client = client

// SetPutTimeout sets the timeout of Put.
func (o *Outbox) SetPutTimeout(d time.Duration) { o.putTimeout = d }

// PutClient returns the client that inserts.
func (o *Outbox) PutClient() Client { return o.store.put }

// SetPutClient replaces the client that inserts.
func (o *Outbox) SetPutClient(c Client) { o.store.put = c }

// SetIsBadRow replaces Database.IsBadRow.
func (o *Outbox) SetIsBadRow(f func(error) bool) { o.store.IsBadRow = f }

// Exec runs a statement on the store's connection for writing.
func (o *Outbox) Exec(ctx context.Context, statement string) error {
	return o.store.write.Exec(ctx, statement)
}

// PutClientOf returns the client that inserts into the store.
func PutClientOf(s Store) Client { return s.put }
