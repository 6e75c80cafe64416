// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"log/slog"

	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2"

	"github.com/timguard/timguard/caddymodule/outbox"
)

// outboxes is a pool of the open stores, so that they stay open when a configuration is
// replaced by one with the same store.
var outboxes = caddy.NewUsagePool()

// openOutbox is an Outbox in the pool.
type openOutbox struct{ *outbox.Outbox }

// Destruct implements [caddy.Destructor]. It closes the store when no configuration uses
// it any longer.
func (o openOutbox) Destruct() error {
	o.Close()
	return nil
}

func (s *Service) key() string { return s.name + "\n" + s.store.Key() }

// acquire returns the open store, and increments its reference count.
func (s *Service) acquire() *outbox.Outbox {
	open, _, _ := outboxes.LoadOrNew(s.key(), func() (caddy.Destructor, error) { // without an error
		logger := slog.New(currentLog{})
		return openOutbox{outbox.Open(func() (outbox.Store, error) { return s.store.Open(logger) }, logger)}, nil
	})
	return open.(openOutbox).Outbox
}

func (s *Service) release() {
	if _, err := outboxes.Delete(s.key()); err != nil {
		caddy.Log().Named("tim_delivery").Warn("closing store", zap.Error(err))
	}
}

// Outbox returns the open store. The HTTP app may need it before this app is started.
func (s *Service) Outbox() *outbox.Outbox {
	s.open.mu.Lock()
	defer s.open.mu.Unlock()
	if s.open.outbox == nil {
		s.open.outbox = s.acquire()
	}
	return s.open.outbox
}

// Interface guard
var _ caddy.Destructor = openOutbox{}
