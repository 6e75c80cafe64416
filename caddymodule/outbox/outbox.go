// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

// Package outbox stores callbacks durably and delivers them until they are
// accepted. The queue is River; this package adds the coalescing of writes, the
// words that an operator sees, and sets of workers that replace one another while
// the store stays open. It knows no database: packages for River's drivers make a
// [Store] with [NewStore].
//
// What Put accepted is on stable storage and is offered at least once. Order is
// not promised.
package outbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"riverqueue.com/riverui/uiendpoints"
)

var (
	// ErrClosed is what every method returns once Close was called.
	ErrClosed = errors.New("outbox is closed")

	// ErrNotReady is returned, wrapped, until the database was reached for the
	// first time and its tables are up to date.
	ErrNotReady = errors.New("outbox has not reached its database yet")
)

// Outbox is an open store. Its methods may be called concurrently.
type Outbox struct {
	store Store
	log   *slog.Logger

	puts       chan *put
	putTimeout time.Duration
	crowd      atomic.Int64 // callers of Put that wait for the commit on its way

	migrated chan struct{} // closed when the tables are up to date
	workers  sync.WaitGroup

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	done   sync.WaitGroup
}

// migrateTimeout bounds one try at the migrations, so that Open returns soon when
// a database does not answer. Rebuilding a large table takes longer than a probe
// would.
const migrateTimeout = 10 * time.Second

// Open brings the store's tables up to date with River's migrator. It owns the
// store from then on, also if it returns an error. Of a store that is a server it
// returns none if the server cannot be reached: it keeps trying, and Put returns
// ErrNotReady until it succeeds, so that whoever stores callbacks can start and
// degrade. ctx bounds Open alone; the logger gets what goes wrong in the background.
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
		store.Close()
		return nil, err
	}
	if err != nil {
		o.log.Error("database not reached; trying on", "err", err)
		o.done.Go(o.keepMigrating)
	}
	o.done.Go(o.commit)
	return o, nil
}

// migrate brings the tables up to date.
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
		o.log.Error("database not reached; trying on", "err", err)
	}
}

// usable returns why the store cannot be asked.
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

// Close stops what still works, waits until the outcome of finished attempts is
// written, and closes the store. Stop the Workers first: attempts that still run
// are cut off.
func (o *Outbox) Close() {
	o.cancel()
	o.workers.Wait()
	o.done.Wait()
	o.store.Close()
}
