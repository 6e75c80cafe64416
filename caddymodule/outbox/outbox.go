// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

// Package outbox stores callbacks durably and delivers them until they are
// accepted. The queue is River; this package adds the coalescing of writes, the
// words an operator sees, and a worker set that can be exchanged while the
// store stays open.
//
// What Put accepted is on stable storage and is offered at least once. Order is
// not promised.
package outbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"
)

// Config says where callbacks are stored and how they are delivered.
type Config struct {
	// Driver is "sqlite" or "postgres". The default is "sqlite".
	Driver string

	// Path is the SQLite file. It and its directory are made if missing, for
	// this user only.
	Path string

	// DSN is PostgreSQL's connection string or URL. The tables need a database
	// or a schema (search_path) of their own: River's maintenance takes every
	// job there for one of its own. Workers poll and never listen for
	// notifications, which YugabyteDB does not offer by default.
	DSN string

	// Timeout bounds one attempt at delivery. Default 30s.
	Timeout time.Duration

	// MaxAttempts is how often a callback is offered before it is dead.
	// Default 20.
	MaxAttempts int

	// Keep is how long a delivered callback stays listed, and with it how long
	// after its delivery a callback with the same key counts as a duplicate.
	// Default 24h.
	Keep time.Duration

	// KeepDead is how long a dead or discarded callback stays listed.
	// Default 30 days.
	KeepDead time.Duration

	// Logger gets what goes wrong in the background. Default slog.Default().
	Logger *slog.Logger
}

// The defaults of Config.
const (
	DefaultTimeout     = 30 * time.Second
	DefaultMaxAttempts = 20
	DefaultKeep        = 24 * time.Hour
	DefaultKeepDead    = 30 * 24 * time.Hour
)

// withDefaults returns c with every unset field filled in.
func (c Config) withDefaults() Config {
	set := func(d *time.Duration, def time.Duration) {
		if *d == 0 {
			*d = def
		}
	}
	set(&c.Timeout, DefaultTimeout)
	set(&c.Keep, DefaultKeep)
	set(&c.KeepDead, DefaultKeepDead)
	if c.Driver == "" {
		c.Driver = "sqlite"
	}
	if c.MaxAttempts == 0 {
		c.MaxAttempts = DefaultMaxAttempts
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

var (
	// ErrClosed is what every method returns once Close was called.
	ErrClosed = errors.New("outbox is closed")

	// ErrNotReady is returned, wrapped, until the database was reached for the
	// first time and its tables are up to date.
	ErrNotReady = errors.New("outbox has not reached its database yet")
)

// Outbox is an open store. Its methods may be called concurrently.
type Outbox struct {
	config Config
	store  store
	log    *slog.Logger

	puts       chan *put
	putTimeout time.Duration
	ready      atomic.Bool

	// crowd is how many callers of Put wait for the commit on its way.
	crowd atomic.Int64

	mu      sync.Mutex
	workers []*Workers
	changed chan struct{}

	ctx    context.Context
	cancel context.CancelFunc
	done   sync.WaitGroup
}

// store is one database, as one of the two drivers opens it.
type store struct {
	// put inserts, operate looks and changes for a person. They are apart so
	// that nobody who is looking makes a callback wait.
	put, operate client

	// newWorker makes the client that delivers.
	newWorker func(*river.Config) (client, error)

	// migrate brings the tables up to date.
	migrate func(context.Context) error

	// count returns the number of rows by River's state, how many of those that
	// wait have been attempted, and the age of the oldest row that waits or runs.
	count func(context.Context) (counts map[rivertype.JobState]int, retrying int, age time.Duration, err error)

	// poison tells that an insert failed for what it holds, not for the state
	// of the database.
	poison func(error) bool

	// oneWriter tells that deliveries hold up those who store.
	oneWriter bool

	close func()

	sqlite   *river.Client[*sql.Tx]
	postgres *river.Client[pgx.Tx]
}

// Open opens the store and brings its tables up to date with River's migrator.
// For SQLite a path that cannot be used is an error. A PostgreSQL server that
// cannot be reached is not: Open returns, keeps trying, and Put returns
// ErrNotReady until it succeeds, so that whoever stores callbacks can start and
// degrade. ctx bounds Open alone.
func Open(ctx context.Context, config Config) (*Outbox, error) {
	config = config.withDefaults()
	o := &Outbox{
		config:     config,
		log:        slog.New(newQuietHandler(config.Logger.Handler())),
		puts:       make(chan *put),
		putTimeout: putTimeout,
		changed:    make(chan struct{}, 1),
	}
	if err := o.openStore(ctx); err != nil {
		return nil, err
	}
	o.ctx, o.cancel = context.WithCancel(context.Background())
	o.done.Go(o.commit)
	o.done.Go(o.supervise)
	return o, nil
}

func (o *Outbox) openStore(ctx context.Context) (err error) {
	switch o.config.Driver {
	case "sqlite":
		o.store, err = openSQLite(o.config.Path, o.log)
	case "postgres":
		o.store, err = openPostgres(o.config.DSN, o.log)
	default:
		err = fmt.Errorf("unknown driver %q: want sqlite or postgres", o.config.Driver)
	}
	if err != nil {
		return err
	}
	if err = o.migrate(ctx); err == nil {
		return nil
	}
	if o.config.Driver == "sqlite" {
		o.store.close()
		return err
	}
	o.log.Error("database not reached; trying on", "err", err)
	return nil
}

// migrate brings the tables up to date once.
func (o *Outbox) migrate(ctx context.Context) error {
	if o.ready.Load() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, migrateTimeout)
	defer cancel()
	if err := o.store.migrate(ctx); err != nil {
		return fmt.Errorf("%w: %w", ErrNotReady, err)
	}
	o.ready.Store(true)
	return nil
}

// migrateTimeout bounds one try at the migrations, so that Open returns soon
// when a database does not answer. A rebuild of a large table needs longer than
// a probe would.
const migrateTimeout = 10 * time.Second

// SQLite returns a River client for River UI, or nil if the store is not SQLite.
// It is for looking and for retrying or cancelling, and must not be started.
func (o *Outbox) SQLite() *river.Client[*sql.Tx] { return o.store.sqlite }

// Postgres returns a River client for River UI, or nil if the store is not
// PostgreSQL. It is for looking and for retrying or cancelling, and must not be
// started.
func (o *Outbox) Postgres() *river.Client[pgx.Tx] { return o.store.postgres }

// Close stops what still works, waits until the outcome of finished attempts is
// written, and closes the store. Stop the Workers first: attempts that still run
// are cut off, and have 8s to end.
func (o *Outbox) Close() {
	o.cancel()
	o.done.Wait()
	o.store.close()
}
