// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package outbox

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/riverqueue/river/riverdriver"
	"github.com/riverqueue/river/rivertype"
)

// workingDriver is the River driver of workers. It replaces two operations of River's
// maintenance, and looks at what is fetched and ended.
type workingDriver[TTx any] struct {
	riverdriver.Driver[TTx]
	workers *Workers
}

// GetExecutor implements riverdriver.Driver.
func (d workingDriver[TTx]) GetExecutor() riverdriver.Executor {
	return workingExecutor{d.Driver.GetExecutor(), d.workers}
}

// UnwrapTx implements riverdriver.Driver.
func (d workingDriver[TTx]) UnwrapTx(tx riverdriver.ExecutorTx) TTx {
	if t, ok := tx.(workingTx); ok {
		tx = t.ExecutorTx
	}
	return d.Driver.UnwrapTx(tx)
}

type workingExecutor struct {
	riverdriver.Executor
	workers *Workers
}

// Begin implements riverdriver.Executor.
func (e workingExecutor) Begin(ctx context.Context) (riverdriver.ExecutorTx, error) {
	tx, err := e.Executor.Begin(ctx)
	if err != nil {
		return nil, err
	}
	return workingTx{tx, e.workers.outbox.store.Schedule}, nil
}

// JobGetAvailable implements riverdriver.Executor. If there is nothing to do, it waits until
// there is, up to fetchInterval, so that a callback is delivered as soon as it is stored.
func (e workingExecutor) JobGetAvailable(ctx context.Context, params *riverdriver.JobGetAvailableParams) (*riverdriver.JobGetAvailableResult, error) {
	q := queueOf(params.Queue)
	for woken := e.workers.outbox.woken(q); ; {
		result, err := e.Executor.JobGetAvailable(ctx, params)
		if err == nil && len(result.Jobs)+len(result.DecodeErrors) > 0 {
			e.workers.outbox.note(nil)
			return result, nil
		}
		e.workers.outbox.noteIdle(ctx, q, err)
		select {
		case <-woken:
			woken = nil // the next time, it does not wait for more
			continue
		case <-time.After(fetchInterval):
		case <-e.workers.stopping.Done():
		}
		return result, err
	}
}

// JobSetStateIfRunningMany implements riverdriver.Executor. After rows of ordered queues have
// ended, those that wait for them become available.
func (e workingExecutor) JobSetStateIfRunningMany(ctx context.Context, params *riverdriver.JobSetStateIfRunningManyParams) ([]*rivertype.JobRow, error) {
	rows, err := e.Executor.JobSetStateIfRunningMany(ctx, params)
	if err != nil {
		return rows, err
	}
	ended := make(map[Queue][]int64)
	for _, row := range rows {
		if row.FinalizedAt != nil && e.workers.isOrdered(row) {
			q := queueOf(row.Queue)
			ended[q] = append(ended[q], row.ID)
		}
	}
	for q, ids := range ended {
		e.workers.outbox.advance(ctx, q, ids...)
	}
	return rows, nil
}

// JobRescueMany implements riverdriver.Executor. River would count attempts that were lost
// with their process, so that a crash during the last one would make the callback dead. But
// a crash is no failure of the backend: the attempt is due again, and does not count.
func (e workingExecutor) JobRescueMany(ctx context.Context, params *riverdriver.JobRescueManyParams) (*struct{}, error) {
	now := time.Now().UTC()
	var ids []string
	for i, state := range params.State {
		if state == string(rivertype.JobStateCancelled) {
			continue
		}
		params.State[i], params.FinalizedAt[i], params.ScheduledAt[i] = string(rivertype.JobStateRetryable), nil, now
		params.Error[i] = withError(params.Error[i], "the attempt was lost with its process, and is repeated")
		ids = append(ids, fmt.Sprint(params.ID[i]))
	}
	tx, err := e.Executor.Begin(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	if _, err := tx.JobRescueMany(ctx, params); err != nil {
		return nil, err
	}
	if len(ids) > 0 {
		// Another process may have stored the outcome of the attempt in the meantime.
		err := tx.Exec(ctx, "UPDATE river_job SET attempt = attempt - 1 WHERE state = 'retryable' AND attempt > 0 AND id IN ("+strings.Join(ids, ", ")+")")
		if err != nil {
			return nil, err
		}
	}
	return &struct{}{}, tx.Commit(ctx)
}

// withError returns the JSON of an AttemptError with another text.
func withError(attempt []byte, text string) []byte {
	var e rivertype.AttemptError
	if json.Unmarshal(attempt, &e) != nil {
		return attempt
	}
	e.Error = text
	changed, err := json.Marshal(e)
	if err != nil {
		return attempt
	}
	return changed
}

type workingTx struct {
	riverdriver.ExecutorTx
	schedule string
}

// JobSchedule implements riverdriver.Executor. It makes due retries available with one
// simple statement. River's own also looks for rows with the same unique key, although
// waiting rows always have different ones here, and returns all rows that it changed. With
// thousands of retries, that delays Put by seconds, every 5 seconds. It returns no rows,
// which River would only use for notifications.
func (tx workingTx) JobSchedule(ctx context.Context, params *riverdriver.JobScheduleParams) ([]*riverdriver.JobScheduleResult, error) {
	return nil, tx.Exec(ctx, tx.schedule, params.Now.UTC().Format(time.RFC3339Nano))
}
