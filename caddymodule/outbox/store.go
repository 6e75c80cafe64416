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
	"riverqueue.com/riverui"
	"riverqueue.com/riverui/uiendpoints"
)

// Database says what has to be known of a database besides River's driver of it.
type Database struct {
	// Remote says that it is a server, which may be away for a while.
	Remote bool

	// OneWriter says that deliveries hold up those who store.
	OneWriter bool

	// IsBadRow reports that an insert failed for what it holds, not for the state of
	// the database.
	IsBadRow func(error) bool

	// Check returns an error if what was committed may not be where it belongs, such
	// as in a file that was replaced. May be nil.
	Check func() error

	// SelectJSON returns a query for one text, a JSON array of the objects that the
	// query selects, with its columns for names. Some of them hold JSON themselves.
	SelectJSON func(query string, columns, jsonColumns []string) string

	// Time is an expression for a timestamp in RFC 3339, of the column in place of %s.
	Time string

	// Arguments is an expression for a job's arguments without their body, as JSON.
	Arguments string

	// Errors is an expression for a job's errors, as JSON.
	Errors string

	// Schedule is a statement that makes deliveries available that are due by its
	// argument, a time in RFC 3339: some thousands at most, so that those who store
	// hardly wait for it.
	Schedule string

	// Close closes it.
	Close func()
}

// Store is a database with a River driver.
type Store struct {
	Database

	put       client               // inserts
	write     riverdriver.Executor // changes what is there
	read      riverdriver.Executor // looks, so that nobody who is looking makes a callback wait
	migrate   func(context.Context, *slog.Logger) error
	newWorker func(*river.Config) (client, error)
	endpoints func() uiendpoints.Bundle
}

// client is a River client of any driver: River's own type carries the driver's
// transaction type, which nothing here cares for.
type client interface {
	InsertMany(context.Context, []river.InsertManyParams) ([]*rivertype.JobInsertResult, error)
	JobCancel(context.Context, int64) (*rivertype.JobRow, error)
	JobDelete(context.Context, int64) (*rivertype.JobRow, error)
	Start(context.Context) error
	Stop(context.Context) error
	StopAndCancel(context.Context) error
	Stopped() <-chan struct{}
}

// NewStore makes a Store of two drivers of the same database: one that writes, and
// one that reads, which may be the same.
func NewStore[TTx any](d Database, write, read riverdriver.Driver[TTx], logger *slog.Logger) (Store, error) {
	put, err := newClient(write, logger)
	if err != nil {
		return Store{}, err
	}
	ui, err := newClient(read, logger)
	if err != nil {
		return Store{}, err
	}
	return Store{
		Database: d,
		put:      put, write: write.GetExecutor(), read: read.GetExecutor(),
		migrate: func(ctx context.Context, log *slog.Logger) error {
			m, err := rivermigrate.New(write, &rivermigrate.Config{Logger: log})
			if err != nil {
				return err
			}
			// Several processes may do so at the same time: the slower one fails and
			// tries again.
			_, err = m.Migrate(ctx, rivermigrate.DirectionUp, nil)
			return err
		},
		newWorker: func(c *river.Config) (client, error) { return river.NewClient(scheduling[TTx]{write, d.Schedule}, c) },
		endpoints: func() uiendpoints.Bundle { return riverui.NewEndpoints(ui, nil) },
	}, nil
}

// newClient makes a client that inserts, lists and changes rows, but works none.
func newClient[TTx any](driver riverdriver.Driver[TTx], logger *slog.Logger) (*river.Client[TTx], error) {
	return river.NewClient(driver, &river.Config{
		Logger: slog.New(newQuietHandler(logger.Handler())),
		// River announces inserted rows once in this time. Nobody listens,
		// workers poll, so each announcement would be a write for nothing.
		FetchCooldown:     24 * time.Hour,
		FetchPollInterval: 24 * time.Hour,
	})
}
