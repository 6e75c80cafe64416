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
	ctx         context.Context
	callbacks   []*Callback
	maxAttempts int
	duplicates  int
	outcome     chan error
}

func (p *put) bytes() (n int) {
	for _, c := range p.callbacks {
		n += len(c.Body)
	}
	return n
}

// Put stores the callbacks in one commit, and returns once that is on stable
// storage. Each is offered up to maxAttempts times. Put returns how many were not
// stored again, because one with the same guard and key is stored already. On an
// error, or once ctx or 3s are over, they may or may not be stored: whoever treats
// them as not stored risks a second delivery and never a loss.
//
// Concurrent calls share one transaction, and with it one sync.
func (o *Outbox) Put(ctx context.Context, maxAttempts int, callbacks ...*Callback) (duplicates int, err error) {
	for _, c := range callbacks {
		if err := c.check(); err != nil {
			return 0, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, o.putTimeout)
	defer cancel()
	p := &put{ctx: ctx, callbacks: callbacks, maxAttempts: maxAttempts, outcome: make(chan error, 1)}
	select {
	case o.puts <- p:
	case <-ctx.Done():
		return 0, fmt.Errorf("waiting for the store: %w", ctx.Err())
	case <-o.ctx.Done():
		return 0, ErrClosed
	}
	select {
	case err := <-p.outcome:
		return p.duplicates, err
	case <-ctx.Done():
		return 0, fmt.Errorf("waiting for the commit: %w", ctx.Err())
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
	rows, size := len(first.callbacks), first.bytes()
	for rows < maxBatch && size < maxBatchBytes {
		select {
		case p := <-o.puts:
			if p.ctx.Err() == nil {
				batch = append(batch, p)
				rows += len(p.callbacks)
				size += p.bytes()
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
	if err != nil && len(batch) > 1 && o.store.IsBadRow(err) {
		for _, p := range batch {
			p.outcome <- o.insert([]*put{p})
		}
		return
	}
	for _, p := range batch {
		p.outcome <- err
	}
}

// row is a callback of a batch.
type row struct {
	*Callback
	of *put
}

// insert stores batch in one transaction and counts the duplicates in it. River
// refuses a batch that holds the same event twice, so of those only the first
// goes in and the others share its fate.
func (o *Outbox) insert(batch []*put) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("storing panicked: %v", r)
		}
	}()
	if err := o.usable(); err != nil && o.ctx.Err() == nil { // Close lets a batch that has begun reach the disk
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), o.putTimeout)
	defer cancel()

	rows := inOrder(batch)
	params := make([]river.InsertManyParams, 0, len(rows))
	first := make([]row, 0, len(rows))
	known := make(map[string]bool)
	for _, r := range rows {
		if id := r.identity(); id != "" {
			if known[id] {
				r.of.duplicates++
				continue
			}
			known[id] = true
		}
		first = append(first, r)
		params = append(params, river.InsertManyParams{Args: r.Callback, InsertOpts: r.insertOpts(r.of.maxAttempts)})
	}
	results, err := o.store.put.InsertMany(ctx, params)
	if err != nil {
		return fmt.Errorf("storing: %w", err)
	}
	if o.store.Check != nil {
		if err := o.store.Check(); err != nil {
			return fmt.Errorf("storing: %w", err)
		}
	}
	for i, r := range results {
		if r.UniqueSkippedAsDuplicate {
			first[i].of.duplicates++
		}
	}
	return nil
}

// inOrder returns the rows of a batch by what tells them apart. Two processes that
// store the same events in a different order would wait for each other's rows until
// PostgreSQL breaks the deadlock.
func inOrder(batch []*put) []row {
	var rows []row
	for _, p := range batch {
		p.duplicates = 0
		for _, c := range p.callbacks {
			rows = append(rows, row{c, p})
		}
	}
	slices.SortStableFunc(rows, func(a, b row) int { return strings.Compare(a.identity(), b.identity()) })
	return rows
}
