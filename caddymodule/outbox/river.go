// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package outbox

import (
	"context"
	"log/slog"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver"
	"github.com/riverqueue/river/rivermigrate"
	"github.com/riverqueue/river/rivertype"
)

// client is a River client of either driver: River's own type carries the
// driver's transaction type, which nothing here cares for.
type client interface {
	InsertMany(context.Context, []river.InsertManyParams) ([]*rivertype.JobInsertResult, error)
	JobList(context.Context, *river.JobListParams) (*river.JobListResult, error)
	JobGet(context.Context, int64) (*rivertype.JobRow, error)
	JobRetry(context.Context, int64) (*rivertype.JobRow, error)
	JobCancel(context.Context, int64) (*rivertype.JobRow, error)
	JobDelete(context.Context, int64) (*rivertype.JobRow, error)
	Queues() *river.QueueBundle
	Start(context.Context) error
	StopAndCancel(context.Context) error
	Stopped() <-chan struct{}
}

// newClient makes a client that inserts, lists and changes rows, but works none.
func newClient[T any](driver riverdriver.Driver[T], log *slog.Logger) (*river.Client[T], error) {
	return river.NewClient(driver, &river.Config{
		Logger: log,
		// River announces inserted rows once in this time. Nobody listens,
		// workers poll, so each announcement would be a write for nothing.
		FetchCooldown:     24 * time.Hour,
		FetchPollInterval: 24 * time.Hour,
	})
}

// migrator returns a function that brings the tables up to date. Several
// processes may run it at the same time: the slower one fails and tries again.
func migrator[T any](driver riverdriver.Driver[T], log *slog.Logger) func(context.Context) error {
	return func(ctx context.Context) error {
		m, err := rivermigrate.New(driver, &rivermigrate.Config{Logger: log})
		if err != nil {
			return err
		}
		_, err = m.Migrate(ctx, rivermigrate.DirectionUp, nil)
		return err
	}
}

// counter returns the store's count. River counts rows by state; what it does not
// count is asked for in SQL, in which age is the driver's own.
func counter[T any](driver riverdriver.Driver[T], age string) func(context.Context) (map[rivertype.JobState]int, int, time.Duration, error) {
	waiting := "SELECT count(*) FILTER (WHERE state <> 'running' AND attempt > 0), " + age +
		" FROM river_job WHERE state IN ('available', 'pending', 'retryable', 'running', 'scheduled')"
	return func(ctx context.Context) (map[rivertype.JobState]int, int, time.Duration, error) {
		exec := driver.GetExecutor()
		byState, err := exec.JobCountByAllStates(ctx, &riverdriver.JobCountByAllStatesParams{})
		if err != nil {
			return nil, 0, 0, err
		}
		var retrying int
		var seconds float64
		if err := exec.QueryRow(ctx, waiting).Scan(&retrying, &seconds); err != nil {
			return nil, 0, 0, err
		}
		return byState, retrying, time.Duration(max(seconds, 0) * float64(time.Second)), nil
	}
}
