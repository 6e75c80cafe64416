// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

// Package delivery provides the app tim_delivery, which stores callbacks for tim_callback
// handlers, and delivers them by replaying them through their site until the backend
// accepts them. It also provides an admin API, the handler tim_console and the command
// deliveries.
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

// Service is the app that stores callbacks and delivers them to the backend until it
// accepts them. It implements `deliver`, `fallback deliver` and `copy` of tim_callback
// handlers, and works without configuration.
//
// Callbacks that are answered OK by `deliver` or `fallback deliver` are stored durably.
// Delivery is attempted at least once, until the backend accepts the callback or the
// attempts are exhausted; then it stays listed as dead. The backend accepts a callback by
// a 2xx response that does not say `"ActionStatus":"FAIL"`. Only a response to a request
// that the guard which stored the callback has passed on counts. The order of deliveries
// is unspecified.
//
// Stored bodies contain what users wrote. They are kept for `keep` after delivery, or for
// `keep_dead` if they could not be delivered.
//
// It emits these events:
//
// Event | Meaning
// ------|--------
// `tim_delivery.dead` | The last attempt of a delivery has failed. Data: `id`, `guard`, `consumer`, `command`, `sdk_app_id`, `attempts` and `error`.
// `tim_delivery.store_failed` | The store has begun to fail. Data: `store` and `error`.
// `tim_delivery.store_recovered` | The store has recovered. Data: `store`.
type Service struct {
	// The store for callbacks. Default: `sqlite`, with the file
	// tim_callback/deliveries.db in Caddy's data directory.
	StoreRaw json.RawMessage `json:"store,omitempty" caddy:"namespace=tim_delivery.stores inline_key=module"`

	// The maximum number of concurrent attempts of each guard, and of each consumer of
	// a guard. Default: 16.
	Workers int `json:"workers,omitempty"`

	// The timeout of an attempt. Default: `30s`.
	Timeout caddy.Duration `json:"timeout,omitempty"`

	// The maximum number of attempts. The delay between attempts doubles from 1 second
	// to 1 hour, with some random deviation. Default: 20.
	MaxAttempts int `json:"max_attempts,omitempty"`

	// How long delivered callbacks are kept. During this time, callbacks with the same
	// content are duplicates. Default: `24h`.
	Keep caddy.Duration `json:"keep,omitempty"`

	// How long dead and discarded callbacks are kept. Default: `30d`.
	KeepDead caddy.Duration `json:"keep_dead,omitempty"`

	store   Store
	name    string // of the store
	guards  map[string][]*caddymodule.Guard
	ctx     caddy.Context
	events  *caddyevents.App
	queue   *eventQueue
	grace   func() time.Duration
	logger  *zap.Logger
	failing *atomic.Bool // storing the last callback has failed

	started chan struct{} // closed when outbox is set
	outbox  *outbox.Outbox
	stopped chan struct{} // closed by Stop
	working chan struct{} // closed when work has returned
	workers *outbox.Workers
}

// Store is the interface of guest modules in the namespace tim_delivery.stores, which
// are databases for callbacks.
type Store interface {
	// Key identifies the database. A configuration reuses the open store of the
	// previous one if the keys are equal. The key may contain a password, and must not
	// be logged.
	Key() string

	// Open opens the database. A remote one need not be reachable.
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

// Provision sets up the app. It does not open the store.
func (s *Service) Provision(ctx caddy.Context) error {
	s.ctx, s.logger = ctx, ctx.Logger()
	s.failing, s.queue = new(atomic.Bool), new(eventQueue)
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
		return fmt.Errorf("store %s: %T does not implement delivery.Store", s.name, module)
	}
	s.store = store
	return nil
}

// storeNames returns the names of the stores in this binary.
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

// Register implements [caddymodule.Deliveries]. Names of guards must be unique, because
// stored callbacks refer to them. Only a directive in a site with several listeners is
// provisioned as several guards with the same name.
func (s *Service) Register(g *caddymodule.Guard) error {
	for _, other := range s.guards[g.Name] {
		if other.Server == g.Server || other.ConfigHash != g.ConfigHash {
			return fmt.Errorf("two tim_callback that store callbacks are named %q: give each a unique name, and do not change it later", g.Name)
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

// guard returns the guard with the name, preferably that of the server with the name. It
// returns nil if there is none.
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

// outboxes is a pool of the open stores, so that they stay open when a configuration is
// replaced by one with the same store.
var outboxes = caddy.NewUsagePool()

// openOutbox is an Outbox in the pool.
type openOutbox struct{ *outbox.Outbox }

// Destruct implements [caddy.Destructor]. It closes the store when no configuration uses
// it any longer.
func (o openOutbox) Destruct() error {
	o.Close()
	return nil
}

func (s *Service) key() string { return s.name + "\n" + s.store.Key() }

// acquire returns the open store, and increments its reference count.
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

// running returns the app of the running configuration, or nil if it has none. A
// configuration that is still being loaded is not running yet, because it may fail.
func running() *Service {
	app, err := caddy.ActiveContext().AppIfConfigured("tim_delivery")
	if err != nil {
		return nil
	}
	s, _ := app.(*Service)
	return s
}

// Start opens the store. Deliveries begin when the whole configuration is running.
func (s *Service) Start() (err error) {
	if s.outbox, err = s.acquire(); err != nil {
		return fmt.Errorf("opening the store: %w", err)
	}
	close(s.started)
	go s.work()
	return nil
}

// work starts delivering when the configuration is running. It waits for that because the
// HTTP app, which deliveries need, may start after this app, or fail to start.
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
		s.logger.Error("starting deliveries failed", zap.Error(err))
	}
	s.warnOfUnclaimed()
}

// Stop begins no more deliveries. If Caddy is exiting, it waits for running ones, up to
// the grace period of the HTTP app; otherwise, they are finished in the background.
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
	if _, err := s.acquire(); err != nil { // for the deliveries that continue after Cleanup
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
		caddy.Log().Named("tim_delivery").Info("running deliveries were canceled and will be repeated", zap.Error(err))
	}
}

func (s *Service) release() {
	if _, err := outboxes.Delete(s.key()); err != nil {
		caddy.Log().Named("tim_delivery").Warn("closing store", zap.Error(err))
	}
}

// Cleanup closes the store, unless another configuration uses it. Caddy calls it after all
// servers have stopped, so callbacks can be stored until then.
func (s *Service) Cleanup() error {
	if s.outbox != nil {
		s.release()
	}
	return nil
}

// gracePeriod returns how long to wait for deliveries when Caddy exits: the grace period
// of the HTTP app or, if that is not limited, the timeout of an attempt.
func gracePeriod(ctx caddy.Context, attempt time.Duration) time.Duration {
	app, err := ctx.AppIfConfigured("http")
	if http, ok := app.(*caddyhttp.App); err == nil && ok && http.GracePeriod > 0 {
		return time.Duration(http.GracePeriod)
	}
	return attempt
}

// unclaimed returns the number of waiting deliveries in each queue that is not configured,
// because its guard or consumer was renamed or removed.
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
		return // errors of the store are logged elsewhere
	}
	for queue, n := range s.unclaimed(counts) {
		s.logger.Warn("deliveries await a guard or consumer that is not configured; restore it, or discard them",
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
