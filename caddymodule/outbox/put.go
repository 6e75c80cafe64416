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
	// putTimeout limits a call of Put and a commit, so that an HTTP handler still has
	// time for another response.
	putTimeout = 3 * time.Second

	// maxBatch and maxBatchBytes limit a commit. They are large enough for one sync
	// to serve all concurrent callers, and small enough to stay far below putTimeout.
	maxBatch      = 500
	maxBatchBytes = 8 << 20
)

// put is a call of Put.
type put struct {
	ctx        context.Context
	callbacks  []*Callback
	duplicates int
	outcome    chan error
}

func (p *put) bytes() (n int) {
	for _, c := range p.callbacks {
		n += len(c.Body) + len(c.Sealed)
	}
	return n
}

// Put stores the callbacks in one commit, and returns when it is on stable storage. It
// returns the number of duplicates, which are not stored because a callback with the same guard and key
// already is. After an error, which includes a timeout of 3s, the callbacks may or may
// not be stored: a caller that assumes that they are not risks a duplicate delivery,
// but no loss.
//
// Concurrent calls share one transaction, and thus one sync.
func (o *Outbox) Put(ctx context.Context, callbacks ...*Callback) (duplicates int, err error) {
	for _, c := range callbacks {
		if err := c.check(); err != nil {
			return 0, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, o.putTimeout)
	defer cancel()
	p := &put{ctx: ctx, callbacks: callbacks, outcome: make(chan error, 1)}
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

// commit stores the callbacks of concurrent calls of Put in batches. While a batch is
// being written, the callers of the next one wait at the channel.
func (o *Outbox) commit() {
	for {
		select {
		case p := <-o.puts:
			if batch := o.gather(p); len(batch) > 0 {
				o.write(batch)
			}
		case <-o.ctx.Done():
			return
		}
	}
}

// gather returns the first call and all others that are waiting, within the limits of a
// batch, except those whose caller does not wait any longer.
func (o *Outbox) gather(first *put) []*put {
	var batch []*put
	rows, size := 0, 0
	for p := first; ; {
		if p.ctx.Err() == nil {
			batch = append(batch, p)
			rows += len(p.callbacks)
			size += p.bytes()
		}
		if rows >= maxBatch || size >= maxBatchBytes {
			return batch
		}
		select {
		case p = <-o.puts:
		default:
			return batch
		}
	}
}

// write stores the batch and sends the outcome to each caller. If a bad row makes the
// batch fail, the calls are stored separately, so that only the one with that row
// fails.
func (o *Outbox) write(batch []*put) {
	err := o.insert(batch)
	if len(batch) > 1 && o.isBadRow(err) {
		for _, p := range batch {
			o.write([]*put{p})
		}
		return
	}
	for _, p := range batch {
		p.outcome <- err
	}
	if err == nil {
		o.stored(batch)
	}
}

// stored makes the callbacks of a batch available to workers.
func (o *Outbox) stored(batch []*put) {
	waiting := make(map[Queue][]int64)
	for _, p := range batch {
		for _, c := range p.callbacks {
			if c.waitsItsTurn() {
				waiting[c.queue()] = append(waiting[c.queue()], c.id)
				continue
			}
			o.wake(c.queue())
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), o.putTimeout)
	defer cancel()
	for q, ids := range waiting {
		o.advance(ctx, q, ids...)
	}
}

// row is a callback in a batch.
type row struct {
	*Callback
	put *put
}

// insert stores the batch in one transaction and counts the duplicates. River does not
// accept the same event twice in a batch, so only the first of them is inserted.
func (o *Outbox) insert(batch []*put) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("storing panicked: %T", r) // the value may contain payload
		}
	}()
	if !o.isReady() { // not usable: a batch that was gathered before Close is still stored
		return ErrNotReady
	}
	ctx, cancel := context.WithTimeout(context.Background(), o.putTimeout)
	defer cancel()

	rows := sortedRows(batch)
	params := make([]river.InsertManyParams, 0, len(rows))
	first := make([]row, 0, len(rows))
	known := make(map[string]bool)
	for _, r := range rows {
		if id := r.identity(); id != "" {
			if known[id] {
				r.put.duplicates++
				continue
			}
			known[id] = true
		}
		first = append(first, r)
		params = append(params, river.InsertManyParams{Args: r.Callback, InsertOpts: r.insertOpts()})
	}
	results, err := o.store.put.InsertMany(ctx, params)
	o.note(err)
	if err != nil {
		return fmt.Errorf("storing: %w", err)
	}
	if o.store.Check != nil {
		if err := o.store.Check(); err != nil {
			return fmt.Errorf("storing: %w", err)
		}
	}
	for i, r := range results {
		first[i].id = r.Job.ID
		if r.UniqueSkippedAsDuplicate {
			first[i].put.duplicates++
		}
	}
	return nil
}

// sortedRows returns the rows of a batch, sorted by identity. Otherwise, two processes
// that store the same events in a different order would deadlock in PostgreSQL.
func sortedRows(batch []*put) []row {
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
