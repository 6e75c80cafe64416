// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package outbox

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/riverqueue/river"
)

const (
	// putTimeout bounds a Put and a commit, so that a caller who holds an
	// HTTP request can still do something else with it.
	putTimeout = 3 * time.Second

	// maxBatch and maxBatchBytes bound one commit: large enough that one sync
	// serves every caller there is, small enough to stay far below putTimeout.
	maxBatch      = 500
	maxBatchBytes = 8 << 20
)

// put is one caller of Put.
type put struct {
	ctx       context.Context
	callback  Callback
	duplicate bool
	outcome   chan error
}

// Put stores c and returns once the commit is on stable storage. It reports
// whether a callback with the same key, app and guard is stored already, in
// which case c is not stored again. On an error, or once ctx or 3s are over, c
// may or may not be stored: whoever treats it as not stored risks a second
// delivery and never a loss.
//
// Concurrent calls share one transaction, and with it one sync.
func (o *Outbox) Put(ctx context.Context, c Callback) (duplicate bool, err error) {
	if err := c.check(); err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(ctx, o.putTimeout)
	defer cancel()
	p := &put{ctx: ctx, callback: c, outcome: make(chan error, 1)}
	select {
	case o.puts <- p:
	case <-ctx.Done():
		return false, fmt.Errorf("waiting for the store: %w", ctx.Err())
	case <-o.ctx.Done():
		return false, ErrClosed
	}
	select {
	case err := <-p.outcome:
		return p.duplicate, err
	case <-ctx.Done():
		return false, fmt.Errorf("waiting for the commit: %w", ctx.Err())
	}
}

// commit writes what callers of Put hand over. While one batch is on its way to
// the disk, the next one gathers at the channel.
func (o *Outbox) commit() {
	for {
		select {
		case p := <-o.puts:
			batch := o.gather(p)
			o.crowd.Store(int64(len(batch)))
			o.write(batch)
			o.crowd.Store(0)
		case <-o.ctx.Done():
			return
		}
	}
}

// gather returns first and all others that are waiting by now.
func (o *Outbox) gather(first *put) []*put {
	batch := []*put{first}
	size := len(first.callback.Body)
	for len(batch) < maxBatch && size < maxBatchBytes {
		select {
		case p := <-o.puts:
			if p.ctx.Err() == nil {
				batch = append(batch, p)
				size += len(p.callback.Body)
			}
		default:
			return batch
		}
	}
	return batch
}

// write stores batch and tells every member the outcome. If the batch fails for
// what one member holds, each is stored on its own, so that it fails alone.
func (o *Outbox) write(batch []*put) {
	err := o.insert(batch)
	if err != nil && len(batch) > 1 && o.store.poison(err) {
		for _, p := range batch {
			p.outcome <- o.insert([]*put{p})
		}
		return
	}
	for _, p := range batch {
		p.outcome <- err
	}
}

// insert stores batch in one transaction and marks the duplicates in it. River
// refuses a batch that holds the same event twice, so of those only the first
// goes in and the others share its fate.
func (o *Outbox) insert(batch []*put) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("storing panicked: %v", r)
		}
	}()
	if !o.ready.Load() {
		return ErrNotReady
	}
	// Not o.ctx: Close lets a batch that has begun reach the disk.
	ctx, cancel := context.WithTimeout(context.Background(), o.putTimeout)
	defer cancel()

	params := make([]river.InsertManyParams, 0, len(batch))
	first := make([]*put, 0, len(batch))
	known := make(map[string]bool)
	// Two processes that store the same events in a different order would
	// wait for each other's rows until PostgreSQL breaks the deadlock.
	slices.SortStableFunc(batch, func(a, b *put) int { return strings.Compare(a.callback.identity(), b.callback.identity()) })
	for _, p := range batch {
		id := p.callback.identity()
		if id != "" && known[id] {
			p.duplicate = true
			continue
		}
		known[id] = true
		first = append(first, p)
		params = append(params, river.InsertManyParams{Args: p.callback, InsertOpts: p.callback.insertOpts(o.config.MaxAttempts)})
	}
	results, err := o.store.put.InsertMany(ctx, params)
	if err != nil {
		return fmt.Errorf("storing: %w", err)
	}
	for i, r := range results {
		first[i].duplicate = r.UniqueSkippedAsDuplicate
	}
	return nil
}
