// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package publish

import (
	"encoding/json"

	"github.com/caddyserver/caddy/v2"
)

// Clients are the open clients of a kind of broker, by their settings. Handlers and
// configurations with equal settings share one, so that a reload closes none that is still
// needed.
type Clients[C caddy.Destructor] struct{ pool *caddy.UsagePool }

// NewClients returns an empty pool.
func NewClients[C caddy.Destructor]() Clients[C] { return Clients[C]{caddy.NewUsagePool()} }

// Acquire returns the client with the settings, whose JSON must identify it. If there is none,
// it opens one. The client is destructed when all who have acquired it have released it.
func (c Clients[C]) Acquire(settings any, open func() (C, error)) (client C, release func() error, err error) {
	key, err := json.Marshal(settings)
	if err != nil {
		return client, nil, err
	}
	shared, _, err := c.pool.LoadOrNew(string(key), func() (caddy.Destructor, error) { return open() })
	if err != nil {
		return client, nil, err
	}
	return shared.(C), func() error { _, err := c.pool.Delete(string(key)); return err }, nil
}
