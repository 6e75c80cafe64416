// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package outbox

import (
	"context"
	"time"

	"github.com/riverqueue/river/riverdriver"
)

// Pause makes all processes begin no more attempts of the queue, until Resume is called.
// They notice within about two seconds. Callbacks are stored as before.
func (o *Outbox) Pause(ctx context.Context, q Queue) error {
	now := time.Now().UTC()
	return o.change(ctx, func(tx riverdriver.ExecutorTx) error {
		if err := touch(ctx, tx, q); err != nil {
			return err
		}
		return tx.QueuePause(ctx, &riverdriver.QueuePauseParams{Name: q.river(), Now: &now})
	})
}

// Resume ends a pause.
func (o *Outbox) Resume(ctx context.Context, q Queue) error {
	now := time.Now().UTC()
	return o.change(ctx, func(tx riverdriver.ExecutorTx) error {
		if err := touch(ctx, tx, q); err != nil {
			return err
		}
		return tx.QueueResume(ctx, &riverdriver.QueueResumeParams{Name: q.river(), Now: &now})
	})
}

// touch writes the row of the queue, which is unknown to River until a process works it.
func touch(ctx context.Context, exec riverdriver.Executor, q Queue) error {
	now := time.Now().UTC()
	_, err := exec.QueueCreateOrSetUpdatedAt(ctx, &riverdriver.QueueCreateOrSetUpdatedAtParams{Metadata: []byte("{}"), Name: q.river(), Now: &now})
	return err
}

// isPaused reports whether the queue is paused, as far as the store can tell.
func (o *Outbox) isPaused(ctx context.Context, q Queue) bool {
	known, err := o.store.read.QueueGet(ctx, &riverdriver.QueueGetParams{Name: q.river()})
	return err == nil && known.PausedAt != nil
}

// maxQueues is more than any configuration has.
const maxQueues = 10000

// Paused returns the queues that are paused.
func (o *Outbox) Paused(ctx context.Context) ([]Queue, error) {
	if err := o.usable(); err != nil {
		return nil, err
	}
	all, err := o.store.read.QueueList(ctx, &riverdriver.QueueListParams{Max: maxQueues})
	if err != nil {
		return nil, err
	}
	var paused []Queue
	for _, q := range all {
		if q.PausedAt != nil {
			paused = append(paused, queueOf(q.Name))
		}
	}
	return paused, nil
}
