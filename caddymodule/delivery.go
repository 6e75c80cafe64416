// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/exp/zapslog"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/timguard/timguard/caddymodule/outbox"
)

func init() {
	caddy.RegisterModule(Delivery{})
}

// Delivery is the app that stores callbacks and delivers them to the backend
// until it accepts them. It serves the `deliver` rules and `fallback deliver` of
// every tim_callback handler, and needs no configuration.
//
// A callback answered OK by either is on stable storage and is offered to the
// backend at least once, until it accepts or the attempts run out; then it stays
// listed as dead. The backend accepts with a 2xx answer that does not say
// `"ActionStatus":"FAIL"`. Order between events is not promised.
//
// Stored bodies hold what users wrote. They are kept for `keep` after their
// delivery, and for `keep_dead` if they could not be delivered.
type Delivery struct {
	// Where callbacks are stored. Default: SQLite, in the file
	// tim_callback/deliveries.db of Caddy's data directory.
	Store *Store `json:"store,omitempty"`

	// How many deliveries each guard attempts at a time. Default: 16.
	Workers int `json:"workers,omitempty"`

	// How long one attempt may take. Default: `30s`.
	Timeout caddy.Duration `json:"timeout,omitempty"`

	// How often a callback is offered before it is dead. The time between two
	// attempts doubles from 1 second to 1 hour, give or take some. Default: 20.
	MaxAttempts int `json:"max_attempts,omitempty"`

	// How long delivered callbacks stay listed, and how long a callback with the
	// same content is taken for a duplicate. Default: `24h`.
	Keep caddy.Duration `json:"keep,omitempty"`

	// How long dead and discarded callbacks stay listed. Default: `30d`.
	KeepDead caddy.Duration `json:"keep_dead,omitempty"`

	config  outbox.Config
	key     string // of the open store in the pool
	guards  map[string]*Handler
	grace   func() time.Duration
	logger  *zap.Logger
	started chan struct{} // closed when outbox is set
	outbox  *outbox.Outbox
	stopped chan struct{} // closed when no more deliveries are to begin
	working chan struct{} // closed when workers is set, or will not be
	workers *outbox.Workers
}

// Store is where callbacks are stored.
type Store struct {
	// `sqlite` or `postgres`. Default: `sqlite`.
	Driver string `json:"driver,omitempty"`

	// The file of `sqlite`. Default: tim_callback/deliveries.db in Caddy's data
	// directory.
	Path string `json:"path,omitempty"`

	// The connection string of `postgres`, which may be a placeholder such as
	// `{env.DATABASE_URL}`. The database, or the schema in its search_path, must
	// be for this alone. YugabyteDB is reached in the same way.
	DSN string `json:"dsn,omitempty"`
}

const (
	storeSQLite   = "sqlite"
	storePostgres = "postgres"

	defaultWorkers = 16
)

// CaddyModule returns the Caddy module information.
func (Delivery) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "tim_delivery",
		New: func() caddy.Module { return new(Delivery) },
	}
}

// Provision sets up the app. It opens nothing.
func (d *Delivery) Provision(ctx caddy.Context) error {
	d.logger = ctx.Logger()
	d.guards = make(map[string]*Handler)
	d.started, d.stopped, d.working = make(chan struct{}), make(chan struct{}), make(chan struct{})
	d.grace = func() time.Duration { return gracePeriod(ctx, time.Duration(d.Timeout)) }
	d.setDefaults()
	if err := d.check(); err != nil {
		return err
	}
	repl := caddy.NewReplacer()
	path, err := repl.ReplaceOrErr(d.Store.Path, true, true)
	if err != nil {
		return fmt.Errorf("store sqlite: %w", err)
	}
	dsn, err := repl.ReplaceOrErr(d.Store.DSN, true, true)
	if err != nil {
		return fmt.Errorf("store postgres: %w", err)
	}
	d.config = outbox.Config{
		Driver: d.Store.Driver, Path: path, DSN: dsn,
		Timeout: time.Duration(d.Timeout), MaxAttempts: d.MaxAttempts,
		Keep: time.Duration(d.Keep), KeepDead: time.Duration(d.KeepDead),
		Logger: slog.New(currentLog{}),
	}
	d.key = fmt.Sprint(path, "\n", dsn, "\n", d.Timeout, d.MaxAttempts, d.Keep, d.KeepDead)
	return registerDeliveryMetrics(ctx.GetMetricsRegistry())
}

func (d *Delivery) setDefaults() {
	if d.Store == nil {
		d.Store = new(Store)
	}
	if d.Store.Driver == "" {
		d.Store.Driver = storeSQLite
	}
	if d.Store.Driver == storeSQLite && d.Store.Path == "" {
		d.Store.Path = filepath.Join(caddy.AppDataDir(), "tim_callback", "deliveries.db")
	}
	d.Workers = cmp.Or(d.Workers, defaultWorkers)
	d.MaxAttempts = cmp.Or(d.MaxAttempts, outbox.DefaultMaxAttempts)
	d.Timeout = cmp.Or(d.Timeout, caddy.Duration(outbox.DefaultTimeout))
	d.Keep = cmp.Or(d.Keep, caddy.Duration(outbox.DefaultKeep))
	d.KeepDead = cmp.Or(d.KeepDead, caddy.Duration(outbox.DefaultKeepDead))
}

// check reports values that cannot be meant.
func (d *Delivery) check() error {
	if s := d.Store; s != nil {
		switch {
		case s.Driver != "" && s.Driver != storeSQLite && s.Driver != storePostgres:
			return fmt.Errorf("store is %q: want sqlite [<path>] or postgres <dsn>", s.Driver)
		case s.Driver == storePostgres && s.DSN == "":
			return errors.New("store postgres: want a connection string, such as {env.DATABASE_URL}")
		case s.Driver == storePostgres && s.Path != "", s.Driver != storePostgres && s.DSN != "":
			return errors.New("store: sqlite has a path, postgres a dsn")
		}
	}
	switch {
	case d.Workers < 0 || d.Workers > 1000:
		return errors.New("workers: want a number from 1 to 1000")
	case d.MaxAttempts < 0 || d.MaxAttempts > 1000:
		return errors.New("max_attempts: want a number from 1 to 1000")
	case d.Timeout < 0 || d.Keep < 0 || d.KeepDead < 0:
		return errors.New("timeout, keep and keep_dead must be positive")
	}
	return nil
}

// register adds a guard that stores callbacks. Its name is in what it stores, so
// that no two can have the same.
func (d *Delivery) register(h *Handler) error {
	if d.guards[h.Name] != nil {
		return fmt.Errorf("two tim_callback that deliver are named %q: give each a name of its own, which stays with its stored deliveries; "+
			"a site with several listeners becomes several servers, each with a guard: write a site block for each", h.Name)
	}
	d.guards[h.Name] = h
	return nil
}

// outboxes holds the open stores, which outlive a configuration that is replaced
// by one with the same store.
var outboxes = caddy.NewUsagePool()

// openOutbox is an Outbox in the pool.
type openOutbox struct{ *outbox.Outbox }

// Destruct closes the store when no configuration uses it any more.
func (o openOutbox) Destruct() error {
	o.Close()
	return nil
}

// runningDelivery returns the app of the running configuration, nil if that
// stores nothing. A configuration that is being loaded may still fail.
func runningDelivery() *Delivery {
	app, err := caddy.ActiveContext().AppIfConfigured("tim_delivery")
	if err != nil {
		return nil
	}
	d, _ := app.(*Delivery)
	return d
}

// Start opens the store. Deliveries begin once the whole configuration runs.
func (d *Delivery) Start() error {
	open, _, err := outboxes.LoadOrNew(d.key, func() (caddy.Destructor, error) {
		o, err := outbox.Open(context.Background(), d.config)
		return openOutbox{o}, err
	})
	if err != nil {
		return fmt.Errorf("opening the store: %w", err)
	}
	d.outbox = open.(openOutbox).Outbox
	close(d.started)
	go d.work()
	return nil
}

// work begins to deliver when the configuration runs: the servers that deliveries
// go through start after this app, or before it, or not at all.
func (d *Delivery) work() {
	defer close(d.working)
	for runningDelivery() != d {
		select {
		case <-d.stopped:
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
	deliver := make(map[string]outbox.DeliverFunc, len(d.guards))
	for name, h := range d.guards {
		deliver[name] = h.redeliver
	}
	var err error
	if d.workers, err = d.outbox.Work(deliver, d.Workers); err != nil {
		d.logger.Error("stored callbacks are not delivered", zap.Error(err))
	}
}

// Stop begins no more deliveries, finishes those that run, and closes the store
// unless another configuration has it. When Caddy exits it waits for them for as
// long as the HTTP app's grace period; a reload does not wait.
func (d *Delivery) Stop() error {
	close(d.stopped)
	<-d.working
	if caddy.Exiting() {
		return d.finish(d.grace())
	}
	go func() {
		if err := d.finish(time.Duration(d.Timeout)); err != nil {
			caddy.Log().Named("tim_delivery").Warn("finishing the deliveries of the old configuration", zap.Error(err))
		}
	}()
	return nil
}

func (d *Delivery) finish(within time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	if d.workers != nil {
		if err := d.workers.Stop(ctx); err != nil {
			d.logger.Info("deliveries were cut off and are due again", zap.Error(err))
		}
	}
	_, err := outboxes.Delete(d.key)
	return err
}

// gracePeriod is how long deliveries may go on when Caddy stops: the HTTP app's
// grace period, or what an attempt may take if that is not limited.
func gracePeriod(ctx caddy.Context, attempt time.Duration) time.Duration {
	app, err := ctx.AppIfConfigured("http")
	if http, ok := app.(*caddyhttp.App); err == nil && ok && http.GracePeriod > 0 {
		return time.Duration(http.GracePeriod)
	}
	return attempt
}

// put stores a callback. A configuration's handlers may run a moment before its
// store is open.
func (d *Delivery) put(ctx context.Context, c outbox.Callback) error {
	select {
	case <-d.started:
	case <-ctx.Done():
		return ctx.Err()
	}
	start := time.Now()
	_, err := d.outbox.Put(ctx, c)
	storeSeconds.Observe(time.Since(start).Seconds())
	return err
}

// currentLog hands records to Caddy's log of the moment, because a store
// outlives the log of the configuration that opened it.
type currentLog struct{}

func (currentLog) handler() slog.Handler {
	return zapslog.NewHandler(caddy.Log().Core(), zapslog.WithName("tim_delivery"), zapslog.AddStacktraceAt(slog.Level(127)))
}

func (l currentLog) Enabled(ctx context.Context, level slog.Level) bool {
	return l.handler().Enabled(ctx, level)
}

func (l currentLog) Handle(ctx context.Context, record slog.Record) error {
	return l.handler().Handle(ctx, record)
}

// WithAttrs and WithGroup fix the log: they are for short-lived loggers.
func (l currentLog) WithAttrs(attrs []slog.Attr) slog.Handler { return l.handler().WithAttrs(attrs) }
func (l currentLog) WithGroup(name string) slog.Handler       { return l.handler().WithGroup(name) }

// Interface guards
var (
	_ caddy.App         = (*Delivery)(nil)
	_ caddy.Provisioner = (*Delivery)(nil)
)
