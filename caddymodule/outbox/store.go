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

// Database describes what a store needs of a database besides its River driver.
type Database struct {
	// IsBadRow reports whether an insert failed because of a value that it inserts,
	// not because of the state of the database.
	IsBadRow func(error) bool

	// Check is called after each commit. It returns an error if the commit may be
	// lost, for example because the file was replaced. It may be nil.
	Check func() error

	// SelectJSON wraps a query so that its result is a single text: a JSON array of
	// objects whose names are the columns. The jsonColumns contain JSON values.
	SelectJSON func(query string, columns, jsonColumns []string) string

	// Time is an SQL expression that formats the column %s as an RFC 3339 timestamp.
	Time string

	// Arguments is an SQL expression for a job's arguments as JSON, without the body.
	Arguments string

	// Errors is an SQL expression for a job's errors as JSON.
	Errors string

	// Exclusive is whether no other process can have the database open, so that attempts
	// that seem to be running when it is opened were lost with the last one.
	Exclusive bool

	// Schedule is an SQL statement that makes deliveries available that are due at its
	// argument, an RFC 3339 timestamp. It must be limited to some thousands, so that
	// it does not delay Put noticeably.
	Schedule string

	// Lock holds a lock that all processes with the database share until the returned
	// function is called. It may be nil if there is one process only.
	Lock func(context.Context) (unlock func(), err error)

	// Explain may return an error that says better what is wrong when the database cannot
	// be opened. It may be nil.
	Explain func(error) error

	// Close closes the database.
	Close func()
}

// Store is a database with a River driver.
type Store struct {
	Database

	put       client               // inserts
	write     riverdriver.Executor // updates
	read      riverdriver.Executor // queries, without delaying inserts
	migrate   func(context.Context, *slog.Logger) error
	newWorker func(*river.Config, *Workers) (client, error)
}

// client is a River client of any driver. River's own type has the driver's transaction
// type as a type parameter.
type client interface {
	InsertMany(context.Context, []river.InsertManyParams) ([]*rivertype.JobInsertResult, error)
	Start(context.Context) error
	Stop(context.Context) error
	Stopped() <-chan struct{}
}

// NewStore returns a Store with two drivers for the same database, one for writing and
// one for reading. They may be the same.
func NewStore[TTx any](d Database, write, read riverdriver.Driver[TTx], logger *slog.Logger) (Store, error) {
	put, err := newClient(write, logger)
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
			if _, err = m.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
				return err
			}
			for _, index := range filterIndexes {
				if err := write.GetExecutor().Exec(ctx, index); err != nil {
					return err
				}
			}
			return nil
		},
		newWorker: func(c *river.Config, w *Workers) (client, error) {
			return river.NewClient(workingDriver[TTx]{write, w}, c)
		},
	}, nil
}

// newClient returns a client that inserts jobs but does not work them.
func newClient[TTx any](driver riverdriver.Driver[TTx], logger *slog.Logger) (*river.Client[TTx], error) {
	return river.NewClient(driver, &river.Config{
		Logger: slog.New(newQuietHandler(logger.Handler(), func() bool { return true })),
		// River notifies of inserted jobs at most once per cooldown. Workers poll, so
		// notifications would be useless writes.
		FetchCooldown:     24 * time.Hour,
		FetchPollInterval: 24 * time.Hour,
	})
}

// alone calls change while no other process does.
func (s *Store) alone(ctx context.Context, change func() error) error {
	if s.Lock == nil {
		return change()
	}
	unlock, err := s.Lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	return change()
}

// recover makes attempts due that were lost with another process. They do not count.
func (s *Store) recover(ctx context.Context) error {
	if !s.Exclusive {
		return nil // River looks for attempts that take too long
	}
	return s.write.Exec(ctx, "UPDATE river_job SET state = 'available', attempt = attempt - 1 WHERE state = 'running' AND attempt > 0")
}

// index creates the index that ordered queues need.
func (s *Store) index(ctx context.Context) error {
	return s.alone(ctx, func() error { return s.write.Exec(ctx, orderIndex) })
}
