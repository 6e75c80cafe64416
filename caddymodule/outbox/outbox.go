// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

// Package outbox stores callbacks durably and delivers them until they are accepted.
// The queue is River. This package coalesces writes, maps River's states to those that
// operators see, and lets sets of workers replace each other while the store stays
// open. It is independent of the database: other packages make a [Store] of a River
// driver with [NewStore].
//
// A callback that Put has accepted is on stable storage, and delivery is attempted at
// least once. Deliveries are in no particular order, except for the conversations of
// ordered queues.
package outbox

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

var (
	// ErrClosed is returned by all methods after Close.
	ErrClosed = errors.New("outbox is closed")

	// ErrNotReady is returned, possibly wrapped, until the database has been opened and
	// its tables are up to date.
	ErrNotReady = errors.New("the store is not open yet")
)

// Outbox is a store of callbacks. It is safe for concurrent use.
type Outbox struct {
	store Store        // valid when ready is closed
	log   *slog.Logger // of events
	quiet *slog.Logger // of River, and of what goes wrong only if the store does not work

	puts       chan *put
	putTimeout time.Duration

	ready     chan struct{} // closed when the store is open, and its tables are up to date
	workers   sync.WaitGroup
	abandoned atomic.Int64 // see Abandoned
	paces     sync.Map     // by queue
	health    health
	signals   signals

	ctx    context.Context // canceled by Close
	cancel context.CancelFunc
	done   sync.WaitGroup
}

const (
	// migrateTimeout limits one try to open a store. It is long enough to rebuild a large
	// table.
	migrateTimeout = 10 * time.Second

	// openTimeout is how long Open waits for the first try.
	openTimeout = time.Second

	// closeTimeout is how long Close waits for a database that does not answer.
	closeTimeout = time.Second
)

// Open opens a store and migrates its tables to River's current schema. If that fails, or
// takes longer than a second, the Outbox goes on in the background: until then, its methods
// return ErrNotReady, so that callers can start in degraded operation. The logger is used for errors in the
// background.
func Open(open func() (Store, error), logger *slog.Logger) *Outbox {
	o := &Outbox{
		log:        logger,
		puts:       make(chan *put),
		putTimeout: putTimeout,
		ready:      make(chan struct{}),
	}
	o.quiet = slog.New(newQuietHandler(logger.Handler(), func() bool { return o.Err() == nil }))
	o.ctx, o.cancel = context.WithCancel(context.Background())
	tried := make(chan struct{})
	o.done.Go(func() {
		o.keepTrying(open, tried)
	})
	select {
	case <-tried:
	case <-time.After(openTimeout):
	}
	o.done.Go(o.commit)
	return o
}

// try opens the store and makes the outbox usable.
func (o *Outbox) try(open func() (Store, error)) error {
	store, err := open()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(o.ctx, migrateTimeout)
	defer cancel()
	err = store.alone(ctx, func() error { return store.migrate(ctx, o.quiet) })
	if err == nil {
		err = store.recover(ctx)
	}
	if err != nil {
		if store.Explain != nil {
			err = store.Explain(err)
		}
		store.Close()
		return err
	}
	o.store = store
	close(o.ready)
	return nil
}

// keepTrying opens the store. It closes tried after the first try.
func (o *Outbox) keepTrying(open func() (Store, error), tried chan<- struct{}) {
	for first := true; ; first = false {
		err := o.try(open)
		o.note(err)
		if first {
			close(tried)
		}
		if err == nil {
			return
		}
		select {
		case <-time.After(time.Second):
		case <-o.ctx.Done():
			return
		}
	}
}

// usable returns an error if the store cannot be used.
func (o *Outbox) usable() error {
	if o.ctx.Err() != nil {
		return ErrClosed
	}
	if !o.isReady() {
		return ErrNotReady
	}
	return nil
}

func (o *Outbox) isReady() bool {
	select {
	case <-o.ready:
		return true
	default:
		return false
	}
}

// isBadRow reports whether an insert or update failed because of a value, not because of
// the state of the store.
func (o *Outbox) isBadRow(err error) bool {
	return err != nil && o.isReady() && o.store.IsBadRow(err)
}

// Ready returns a channel that is closed when the store is open.
func (o *Outbox) Ready() <-chan struct{} { return o.ready }

// Abandoned returns the number of attempts that are still running although their timeout
// is over.
func (o *Outbox) Abandoned() int { return int(o.abandoned.Load()) }

// Close stops all background work, waits until the outcomes of finished attempts are
// stored, and closes the store. It cancels running attempts, so call [Workers.Stop]
// first.
func (o *Outbox) Close() {
	o.cancel()
	o.workers.Wait()
	o.done.Wait()
	if !o.isReady() {
		return
	}
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		o.store.Close()
	}()
	select {
	case <-closed:
	case <-time.After(closeTimeout):
	}
}
