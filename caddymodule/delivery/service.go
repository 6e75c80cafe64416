// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

// Package delivery is the app tim_delivery: it stores callbacks for tim_callback
// handlers and delivers them by sending them through their site again, until the
// backend accepts. With it come an admin API, the handler tim_console and the
// command deliveries.
package delivery

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/timguard/timguard/caddymodule"
	"github.com/timguard/timguard/caddymodule/outbox"
)

func init() {
	caddy.RegisterModule(Service{})
}

// Service is the app that stores callbacks and delivers them to the backend until
// it accepts them. It serves the `deliver` rules, `fallback deliver` and `copy` of
// every tim_callback handler, and needs no configuration.
//
// A callback answered OK by `deliver` or `fallback deliver` is on stable storage and
// is offered to the backend at least once, until it accepts or the attempts run
// out; then it stays listed as dead. The backend accepts with a 2xx answer that
// does not say `"ActionStatus":"FAIL"`, to what the guard that stored the callback
// passed on. Order between events is not promised.
//
// Stored bodies hold what users wrote. They are kept for `keep` after their
// delivery, and for `keep_dead` if they could not be delivered.
//
// It emits these events:
//
// Event | Meaning
// ------|--------
// `tim_delivery.dead` | A delivery has had its last attempt. Its data are `id`, `guard`, `consumer`, `command`, `sdk_app_id`, `attempts` and `error`.
// `tim_delivery.store_failed` | A callback could not be stored, after one that could. Its data are `store` and `error`.
// `tim_delivery.store_recovered` | Callbacks are stored again. Its data is `store`.
type Service struct {
	// Where callbacks are stored. Default: `sqlite`, in the file
	// tim_callback/deliveries.db of Caddy's data directory.
	StoreRaw json.RawMessage `json:"store,omitempty" caddy:"namespace=tim_delivery.stores inline_key=module"`

	// How many deliveries each guard, and each consumer of a guard, attempts at a
	// time. Default: 16.
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

	store   Store
	name    string // of the store
	guards  map[string][]*caddymodule.Guard
	ctx     caddy.Context
	events  *caddyevents.App
	grace   func() time.Duration
	logger  *zap.Logger
	failing *atomic.Bool // the last callback could not be stored

	started chan struct{} // closed when outbox is set
	outbox  *outbox.Outbox
	stopped chan struct{} // closed when no more deliveries are to begin
	working chan struct{} // closed when workers is set, or will not be
	workers *outbox.Workers
}

// Store is a guest module in the namespace tim_delivery.stores: a database that
// callbacks are stored in.
type Store interface {
	// Key tells the database from others, so that a configuration goes on with the
	// store that the one before opened. It is not shown: it may hold a password.
	Key() string

	// Open opens the database.
	Open(logger *slog.Logger) (outbox.Store, error)
}

const (
	defaultStore       = "sqlite"
	defaultWorkers     = 16
	defaultTimeout     = 30 * time.Second
	defaultMaxAttempts = 20
	defaultKeep        = 24 * time.Hour
	defaultKeepDead    = 30 * 24 * time.Hour
)

// CaddyModule returns the Caddy module information.
func (Service) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "tim_delivery",
		New: func() caddy.Module { return new(Service) },
	}
}

// Provision sets up the app. It opens nothing.
func (s *Service) Provision(ctx caddy.Context) error {
	s.ctx, s.logger = ctx, ctx.Logger()
	s.failing = new(atomic.Bool)
	s.guards = make(map[string][]*caddymodule.Guard)
	s.started, s.stopped, s.working = make(chan struct{}), make(chan struct{}), make(chan struct{})
	s.grace = func() time.Duration { return gracePeriod(ctx, time.Duration(s.Timeout)) }
	s.setDefaults()
	if err := s.provisionStore(); err != nil {
		return err
	}
	app, err := ctx.App("events")
	if err != nil {
		return err
	}
	s.events = app.(*caddyevents.App)
	return registerMetrics(ctx.GetMetricsRegistry())
}

func (s *Service) setDefaults() {
	s.Workers = cmp.Or(s.Workers, defaultWorkers)
	s.MaxAttempts = cmp.Or(s.MaxAttempts, defaultMaxAttempts)
	s.Timeout = cmp.Or(s.Timeout, caddy.Duration(defaultTimeout))
	s.Keep = cmp.Or(s.Keep, caddy.Duration(defaultKeep))
	s.KeepDead = cmp.Or(s.KeepDead, caddy.Duration(defaultKeepDead))
	if s.StoreRaw == nil {
		s.StoreRaw = json.RawMessage(`{"module":"` + defaultStore + `"}`)
	}
}

func (s *Service) provisionStore() error {
	var chosen struct{ Module string }
	if err := json.Unmarshal(s.StoreRaw, &chosen); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	s.name = chosen.Module
	module, err := s.ctx.LoadModule(s, "StoreRaw")
	if err != nil {
		return fmt.Errorf("store: %w; this Caddy has %s", err, strings.Join(storeNames(), ", "))
	}
	store, ok := module.(Store)
	if !ok {
		return fmt.Errorf("store %s is a %T, which is no store", s.name, module)
	}
	s.store = store
	return nil
}

// storeNames are the stores that were built in.
func storeNames() []string {
	var names []string
	for _, m := range caddy.GetModules("tim_delivery.stores") {
		names = append(names, m.ID.Name())
	}
	return names
}

// Validate rejects invalid settings.
func (s *Service) Validate() error {
	switch {
	case s.Workers < 0 || s.Workers > 1000:
		return errors.New("workers: want a number from 1 to 1000")
	case s.MaxAttempts < 0 || s.MaxAttempts > 1000:
		return errors.New("max_attempts: want a number from 1 to 1000")
	case s.Timeout < 0 || s.Keep < 0 || s.KeepDead < 0:
		return errors.New("timeout, keep and keep_dead must be positive")
	}
	return nil
}

// Register implements [caddymodule.Deliveries]. A guard's name is in what it stores,
// so that no two can have the same, unless they are one directive of a site that has
// several listeners.
func (s *Service) Register(g *caddymodule.Guard) error {
	for _, other := range s.guards[g.Name] {
		if other.Server == g.Server || other.Config != g.Config {
			return fmt.Errorf("two tim_callback that deliver are named %q: give each a name of its own, which stays with its stored deliveries", g.Name)
		}
	}
	for _, queue := range queuesOf(g) {
		if err := queue.Check(); err != nil {
			return err
		}
	}
	s.guards[g.Name] = append(s.guards[g.Name], g)
	return nil
}

// StoreName implements [caddymodule.Deliveries].
func (s *Service) StoreName() string { return s.name }

// queuesOf returns the queues of a guard: its own, and one for each consumer.
func queuesOf(g *caddymodule.Guard) []outbox.Queue {
	queues := []outbox.Queue{{Guard: g.Name}}
	for _, consumer := range g.Consumers {
		queues = append(queues, outbox.Queue{Guard: g.Name, Consumer: consumer})
	}
	return queues
}

// guard returns the guard of that name, on the server of that name if there is one.
func (s *Service) guard(name, server string) *caddymodule.Guard {
	guards := s.guards[name]
	for _, g := range guards {
		if g.Server.Name() == server {
			return g
		}
	}
	if len(guards) == 0 {
		return nil
	}
	return guards[0]
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

func (s *Service) key() string { return s.name + "\n" + s.store.Key() }

// acquire returns the open store, of which one more user is counted.
func (s *Service) acquire() (*outbox.Outbox, error) {
	open, _, err := outboxes.LoadOrNew(s.key(), func() (caddy.Destructor, error) {
		logger := slog.New(currentLog{})
		store, err := s.store.Open(logger)
		if err != nil {
			return nil, err
		}
		o, err := outbox.Open(context.Background(), store, logger)
		return openOutbox{o}, err
	})
	if err != nil {
		return nil, err
	}
	return open.(openOutbox).Outbox, nil
}

// running returns the app of the running configuration, nil if that stores nothing.
// A configuration that is being loaded may still fail.
func running() *Service {
	app, err := caddy.ActiveContext().AppIfConfigured("tim_delivery")
	if err != nil {
		return nil
	}
	s, _ := app.(*Service)
	return s
}

// Start opens the store. Deliveries begin once the whole configuration runs.
func (s *Service) Start() (err error) {
	if s.outbox, err = s.acquire(); err != nil {
		return fmt.Errorf("opening the store: %w", err)
	}
	close(s.started)
	go s.work()
	return nil
}

// work begins to deliver when the configuration runs: the servers that deliveries
// go through start after this app, or before it, or not at all.
func (s *Service) work() {
	defer close(s.working)
	for running() != s {
		select {
		case <-s.stopped:
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
	deliver := make(map[outbox.Queue]outbox.DeliverFunc)
	for _, guards := range s.guards {
		for _, queue := range queuesOf(guards[0]) {
			deliver[queue] = s.deliver
		}
	}
	var err error
	s.workers, err = s.outbox.Work(outbox.WorkConfig{
		Deliver: deliver, Each: s.Workers, Timeout: time.Duration(s.Timeout),
		Keep: time.Duration(s.Keep), KeepDead: time.Duration(s.KeepDead), Dead: s.emitDead,
	})
	if err != nil {
		s.logger.Error("stored callbacks are not delivered", zap.Error(err))
	}
	s.warnOfUnclaimed()
}

// Stop begins no more deliveries and finishes those that run. When Caddy exits it
// waits for them for as long as the HTTP app's grace period; a reload does not wait.
func (s *Service) Stop() error {
	close(s.stopped)
	<-s.working
	if s.workers == nil {
		return nil
	}
	if caddy.Exiting() {
		s.finish(s.grace())
		return nil
	}
	if _, err := s.acquire(); err != nil { // it outlives Cleanup
		return err
	}
	go func() {
		s.finish(time.Duration(s.Timeout))
		s.release()
	}()
	return nil
}

func (s *Service) finish(within time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	if err := s.workers.Stop(ctx); err != nil {
		caddy.Log().Named("tim_delivery").Info("deliveries were cut off and are due again", zap.Error(err))
	}
}

func (s *Service) release() {
	if _, err := outboxes.Delete(s.key()); err != nil {
		caddy.Log().Named("tim_delivery").Warn("closing the store", zap.Error(err))
	}
}

// Cleanup closes the store, unless another configuration has it. All servers have
// stopped by then, so that a callback that came in until the end was stored.
func (s *Service) Cleanup() error {
	if s.outbox != nil {
		s.release()
	}
	return nil
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

// unclaimed returns the queues that hold deliveries but that this configuration does
// not have, with their numbers: their guard or consumer was renamed or removed.
func (s *Service) unclaimed(counts []outbox.Count) map[outbox.Queue]int {
	unclaimed := make(map[outbox.Queue]int)
	for _, c := range counts {
		waits := slices.Contains([]outbox.State{outbox.Pending, outbox.Retrying, outbox.Running}, c.State)
		if waits && !s.claims(c.Queue) {
			unclaimed[c.Queue] += c.N
		}
	}
	return unclaimed
}

func (s *Service) claims(queue outbox.Queue) bool {
	return slices.ContainsFunc(s.guards[queue.Guard], func(g *caddymodule.Guard) bool {
		return slices.Contains(queuesOf(g), queue)
	})
}

func (s *Service) warnOfUnclaimed() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	counts, err := s.outbox.Counts(ctx)
	if err != nil {
		return // the store's own trouble is logged already
	}
	for queue, n := range s.unclaimed(counts) {
		s.logger.Warn("deliveries wait for a guard or a consumer that is not in the configuration: give one that name, or discard them",
			zap.String("guard", queue.Guard), zap.String("consumer", queue.Consumer), zap.Int("deliveries", n))
	}
}

// Interface guards
var (
	_ caddy.App              = (*Service)(nil)
	_ caddy.Provisioner      = (*Service)(nil)
	_ caddy.Validator        = (*Service)(nil)
	_ caddy.CleanerUpper     = (*Service)(nil)
	_ caddymodule.Deliveries = (*Service)(nil)
)
