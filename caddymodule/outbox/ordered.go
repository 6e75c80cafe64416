// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package outbox

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/riverqueue/river/riverdriver"
	"github.com/riverqueue/river/rivertype"
)

// In an ordered queue, the rows of a conversation wait in River's state pending, in which River
// leaves them alone, but for the first: it is available, running or retryable until it is
// accepted, dead or discarded. Then the next one becomes available. So the order is in the
// rows themselves, for all processes, and needs no lock.
//
// A row becomes available after a commit: that of its own insertion, or that of the end of
// the row before it. Whichever of the two is later sees the other one. Only a process that
// dies in between leaves a row behind, for which sweep looks.

// orderIndex lets the first row of a conversation be found among any number.
const orderIndex = "CREATE INDEX IF NOT EXISTS river_job_tim_callback_order ON river_job (queue, (" + conversationOf + "), id) WHERE " + unfinished

const (
	conversationOf = "args->>'conversation'"
	// unfinished must be in each query in these words, or SQLite does not use the index.
	unfinished = "state IN ('available', 'pending', 'retryable', 'running', 'scheduled')"
)

// advanceAfter makes the first waiting row of each of the rows' conversations available if
// none of the conversation is. A queue that is not ordered has no waiting row, and no index to
// look for it either.
func advanceAfter(ctx context.Context, exec riverdriver.Executor, ids ...int64) error {
	if len(ids) == 0 {
		return nil
	}
	return exec.Exec(ctx, "UPDATE river_job SET state = 'available' WHERE state = 'pending' AND id IN ("+
		"SELECT (SELECT min(id) FROM river_job WHERE queue = c.queue AND "+conversationOf+" = c.conversation AND "+unfinished+" AND state = 'pending')"+
		" FROM (SELECT DISTINCT queue, "+conversationOf+" AS conversation FROM river_job WHERE id IN ("+joined(ids)+")) c"+
		" WHERE EXISTS (SELECT 1 FROM river_job WHERE queue = c.queue AND state = 'pending') AND NOT EXISTS ("+
		"SELECT 1 FROM river_job WHERE queue = c.queue AND "+conversationOf+" = c.conversation AND "+unfinished+" AND state <> 'pending'))")
}

func joined(ids []int64) string {
	texts := make([]string, len(ids))
	for i, id := range ids {
		texts[i] = strconv.FormatInt(id, 10)
	}
	return strings.Join(texts, ", ")
}

// sweepInterval is how often rows are looked for whose process died before it could advance
// their conversation.
const sweepInterval = 5 * time.Second

// sweep advances the conversations of an ordered queue in which all rows are waiting.
func (o *Outbox) sweep(ctx context.Context, q Queue) error {
	ids, err := o.selectIDs(ctx, "SELECT min(id) AS id FROM river_job WHERE queue = $1 AND "+unfinished+" AND "+conversationOf+" IS NOT NULL"+
		" GROUP BY "+conversationOf+" HAVING sum(CASE WHEN state = 'pending' THEN 0 ELSE 1 END) = 0 LIMIT 1000", q.river())
	if err != nil {
		return err
	}
	if len(ids) > 0 {
		o.advance(ctx, q, ids...)
	}
	return nil
}

// advance advances the conversations of the rows of a queue. If that fails, sweep does it.
func (o *Outbox) advance(ctx context.Context, q Queue, ids ...int64) {
	if err := advanceAfter(ctx, o.store.write, ids...); err != nil {
		o.quiet.Error("conversations go on later, because the store failed", "error", err)
		return
	}
	o.wake(q)
}

// putInOrder makes the states of the waiting rows fit an option that may have been changed.
func (o *Outbox) putInOrder(ctx context.Context, q Queue, ordered bool) error {
	change, which := "available", "state = 'pending'"
	if ordered {
		change = "pending"
		which = "state IN ('available', 'retryable', 'scheduled') AND EXISTS (SELECT 1 FROM river_job e WHERE e.queue = river_job.queue" +
			" AND e." + conversationOf + " = river_job." + conversationOf + " AND e." + unfinished + " AND e.id < river_job.id)"
	}
	for {
		ids, err := o.selectIDs(ctx, "SELECT id FROM river_job WHERE queue = $1 AND "+unfinished+" AND "+which+" LIMIT 500", q.river())
		if err != nil || len(ids) == 0 {
			return err
		}
		err = o.store.write.Exec(ctx, fmt.Sprintf("UPDATE river_job SET state = '%s' WHERE id IN (%s) AND state NOT IN ('running', 'completed', 'discarded', 'cancelled')",
			change, joined(ids)))
		if err != nil {
			return err
		}
	}
}

// selectIDs runs a query for ids.
func (o *Outbox) selectIDs(ctx context.Context, query string, args ...any) ([]int64, error) {
	var rows []struct {
		ID int64 `json:"id"`
	}
	if err := o.usable(); err != nil {
		return nil, err
	}
	if err := o.selectJSON(ctx, &rows, []string{"id"}, nil, query, args...); err != nil {
		return nil, err
	}
	ids := make([]int64, len(rows))
	for i, r := range rows {
		ids[i] = r.ID
	}
	return ids, nil
}

// Waits reports whether callbacks of the conversation wait in the queue, or are being
// delivered.
func (o *Outbox) Waits(ctx context.Context, q Queue, conversation string) (bool, error) {
	ids, err := o.selectIDs(ctx, "SELECT id FROM river_job WHERE queue = $1 AND "+conversationOf+" = $2 AND "+unfinished+" LIMIT 1", q.river(), conversation)
	return len(ids) > 0, err
}

// keepOrder sweeps the ordered queues until the context ends. In the others, no row may wait
// for its turn: one does that the former configuration, in which the queue was ordered, has
// stored after this one was prepared.
func (w *Workers) keepOrder(ctx context.Context) {
	for {
		for name, q := range w.queues {
			var err error
			if q.config.Ordered {
				err = w.outbox.sweep(ctx, name)
			} else {
				err = w.outbox.putInOrder(ctx, name, false)
			}
			if err != nil && ctx.Err() == nil {
				w.outbox.quiet.Error("looking for conversations that can go on failed", "error", err)
			}
		}
		select {
		case <-time.After(sweepInterval):
		case <-ctx.Done():
			return
		}
	}
}

// prepare makes the rows of the queues fit their options.
func (w *Workers) prepare(ctx context.Context) error {
	for name, q := range w.queues {
		if q.config.Ordered {
			if err := w.outbox.store.index(ctx); err != nil {
				return err
			}
		}
		if err := w.outbox.putInOrder(ctx, name, q.config.Ordered); err != nil {
			return err
		}
	}
	return nil
}

// isOrdered reports whether the row is one of a conversation in an ordered queue.
func (w *Workers) isOrdered(job *rivertype.JobRow) bool {
	q := w.queues[queueOf(job.Queue)]
	if q == nil || !q.config.Ordered {
		return false
	}
	var c struct {
		Conversation string `json:"conversation"`
	}
	return json.Unmarshal(job.EncodedArgs, &c) == nil && c.Conversation != ""
}

// complete stores at once that a row of an ordered queue is delivered, so that the next one
// need not wait for River, which collects such changes for some time.
func (w *Workers) complete(ctx context.Context, id int64) {
	now := time.Now().UTC()
	done := riverdriver.JobSetStateCompleted(id, now, nil)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), putTimeout)
	defer cancel()
	// River stores the state if this fails.
	_, _ = workingExecutor{w.outbox.store.write, w}.JobSetStateIfRunningMany(ctx, &riverdriver.JobSetStateIfRunningManyParams{
		ID: []int64{id}, Attempt: []*int{nil}, ErrData: [][]byte{nil}, FinalizedAt: []*time.Time{done.FinalizedAt},
		MetadataDoMerge: []bool{false}, MetadataUpdates: [][]byte{nil}, Now: &now, ScheduledAt: []*time.Time{nil}, State: []rivertype.JobState{done.State},
	})
}
