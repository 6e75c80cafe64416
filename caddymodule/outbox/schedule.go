// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package outbox

import (
	"context"
	"time"

	"github.com/riverqueue/river/riverdriver"
)

// scheduling is a River driver that makes due retries available with one simple
// statement. River's own also looks for rows with the same unique key, although waiting
// rows always have different ones here, and returns all rows that it changed. With
// thousands of retries, that delays Put by seconds, every 5 seconds.
type scheduling[TTx any] struct {
	riverdriver.Driver[TTx]
	statement string // Database.Schedule
}

// GetExecutor implements riverdriver.Driver.
func (d scheduling[TTx]) GetExecutor() riverdriver.Executor {
	return schedulingExecutor{d.Driver.GetExecutor(), d.statement}
}

// UnwrapTx implements riverdriver.Driver.
func (d scheduling[TTx]) UnwrapTx(tx riverdriver.ExecutorTx) TTx {
	if t, ok := tx.(schedulingTx); ok {
		tx = t.ExecutorTx
	}
	return d.Driver.UnwrapTx(tx)
}

type schedulingExecutor struct {
	riverdriver.Executor
	statement string
}

// Begin implements riverdriver.Executor.
func (e schedulingExecutor) Begin(ctx context.Context) (riverdriver.ExecutorTx, error) {
	tx, err := e.Executor.Begin(ctx)
	if err != nil {
		return nil, err
	}
	return schedulingTx{tx, e.statement}, nil
}

type schedulingTx struct {
	riverdriver.ExecutorTx
	statement string
}

// JobSchedule implements riverdriver.Executor. It returns no rows, which River would only
// use for notifications.
func (tx schedulingTx) JobSchedule(ctx context.Context, params *riverdriver.JobScheduleParams) ([]*riverdriver.JobScheduleResult, error) {
	return nil, tx.Exec(ctx, tx.statement, params.Now.UTC().Format(time.RFC3339Nano))
}
