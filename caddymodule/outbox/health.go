// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package outbox

import (
	"context"
	"errors"
	"sync"
	"time"
)

// health is whether the store works, so that one line is logged when that changes, instead
// of one for each operation that fails.
type health struct {
	mu    sync.Mutex
	known bool
	err   error // nil if it works
	since time.Time
}

// note notes the result of an operation of the store.
func (o *Outbox) note(err error) {
	if errors.Is(err, ErrNotReady) || errors.Is(err, ErrClosed) || o.ctx.Err() != nil {
		return
	}
	if o.isBadRow(err) {
		return // says nothing about the store
	}
	h := &o.health
	h.mu.Lock()
	defer h.mu.Unlock()
	changed := !h.known || (h.err == nil) != (err == nil)
	h.err = err
	if !changed {
		return
	}
	switch {
	case err != nil && o.isReady():
		o.log.Error("the store has failed; callbacks are forwarded instead of stored, and not delivered, until it works again", "error", err)
	case err != nil:
		o.log.Error("the store cannot be opened; callbacks are forwarded instead of stored, until it can; trying again every second", "error", err)
	case h.known:
		o.log.Warn("the store works again", "after", time.Since(h.since).Round(time.Millisecond).String())
	default:
		o.log.Info("the store is open")
	}
	h.known, h.since = true, time.Now()
}

// noteIdle notes the result of a fetch that has found nothing, and thus written nothing. After
// a fault, that does not show that the store works again: the row of the queue is written.
func (o *Outbox) noteIdle(ctx context.Context, q Queue, err error) {
	if err == nil && o.health.hasFailed() {
		err = touch(ctx, o.store.write, q)
	}
	o.note(err)
}

func (h *health) hasFailed() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.err != nil
}

// Err returns the error of the last operation of the store, or nil if it works. A file that
// was removed or replaced can still be read and written, but what it says no longer counts.
func (o *Outbox) Err() error {
	if o.isReady() && o.store.Check != nil {
		if err := o.store.Check(); err != nil {
			return err
		}
	}
	o.health.mu.Lock()
	defer o.health.mu.Unlock()
	return o.health.err
}
