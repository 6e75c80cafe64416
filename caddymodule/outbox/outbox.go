// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

// Package outbox stores callbacks durably and delivers them until they are accepted.
// The queue is River. This package coalesces writes, maps River's states to those that
// operators see, and lets sets of workers replace each other while the store stays
// open. It is independent of the database: other packages make a [Store] of a River
// driver with [NewStore].
//
// A callback that Put has accepted is on stable storage, and delivery is attempted at
// least once. The order of deliveries is unspecified.
package outbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"riverqueue.com/riverui/uiendpoints"
)

var (
	// ErrClosed is returned by all methods after Close.
	ErrClosed = errors.New("outbox is closed")

	// ErrNotReady is returned, possibly wrapped, until the database has been reached
	// for the first time and its tables are up to date.
	ErrNotReady = errors.New("outbox has not reached its database yet")
)

// Outbox is an open store. It is safe for concurrent use.
type Outbox struct {
	store Store
	log   *slog.Logger

	puts       chan *put
	putTimeout time.Duration

	migrated chan struct{} // closed when the tables are up to date
	workers  sync.WaitGroup

	ctx    context.Context // canceled by Close
	cancel context.CancelFunc
	done   sync.WaitGroup
}

// migrateTimeout limits one try to migrate, so that Open returns soon if a database
// does not answer. It is long enough to rebuild a large table.
const migrateTimeout = 10 * time.Second

// Open migrates the store's tables to River's current schema. It takes over the store,
// even if it returns an error. If the store is remote and cannot be reached, Open does
// not fail, but keeps trying in the background: Put returns ErrNotReady until then, so
// that callers can start in degraded operation. The context applies only to Open
// itself; the logger is used for errors in the background.
func Open(ctx context.Context, store Store, logger *slog.Logger) (*Outbox, error) {
	o := &Outbox{
		store:      store,
		log:        slog.New(newQuietHandler(logger.Handler())),
		puts:       make(chan *put),
		putTimeout: putTimeout,
		migrated:   make(chan struct{}),
	}
	o.ctx, o.cancel = context.WithCancel(context.Background())
	err := o.migrate(ctx)
	if err != nil && !store.Remote {
		o.cancel()
		store.Close()
		return nil, err
	}
	if err != nil {
		o.log.Error("connecting to database; retrying", "error", err)
		o.done.Go(o.keepMigrating)
	}
	o.done.Go(o.commit)
	return o, nil
}

// migrate migrates the tables and makes the outbox usable.
func (o *Outbox) migrate(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, migrateTimeout)
	defer cancel()
	if err := o.store.migrate(ctx, o.log); err != nil {
		return fmt.Errorf("%w: %w", ErrNotReady, err)
	}
	close(o.migrated)
	return nil
}

func (o *Outbox) keepMigrating() {
	for {
		select {
		case <-time.After(time.Second):
		case <-o.ctx.Done():
			return
		}
		err := o.migrate(o.ctx)
		if err == nil {
			return
		}
		o.log.Error("connecting to database; retrying", "error", err)
	}
}

// usable returns an error if the store cannot be used.
func (o *Outbox) usable() error {
	if o.ctx.Err() != nil {
		return ErrClosed
	}
	select {
	case <-o.migrated:
		return nil
	default:
		return ErrNotReady
	}
}

// Endpoints returns River UI's endpoints for the store.
func (o *Outbox) Endpoints() uiendpoints.Bundle { return o.store.endpoints() }

// Close stops all background work, waits until the outcomes of finished attempts are
// stored, and closes the store. It cancels running attempts, so call [Workers.Stop]
// first.
func (o *Outbox) Close() {
	o.cancel()
	o.workers.Wait()
	o.done.Wait()
	o.store.Close()
}
