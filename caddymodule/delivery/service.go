// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

// Package delivery provides the app tim_delivery, which stores callbacks for tim_callback
// handlers, and delivers them by the handlers of their backend or consumer until it accepts
// them. It also provides an admin API.
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
	"sync"
	"sync/atomic"
	"time"

	"github.com/tink-crypto/tink-go/v2/tink"
	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/timguard/timguard/caddymodule"
	"github.com/timguard/timguard/caddymodule/internal/metric"
	"github.com/timguard/timguard/caddymodule/internal/option"
	"github.com/timguard/timguard/caddymodule/outbox"
)

func init() {
	caddy.RegisterModule(Service{})
}

// Service is the app that stores callbacks and delivers them to the backend or consumer
// until it accepts them. It implements `deliver`, `fallback deliver` and `copy` of
// tim_callback handlers, and works without configuration.
//
// Callbacks that are answered OK by `deliver` or `fallback deliver` are stored durably.
// Delivery is attempted at least once, until the backend accepts the callback or the
// attempts are exhausted; then it stays listed as dead. Which answers accept a callback is
// an option of each backend and consumer. Deliveries are in no particular order, except for
// the conversations of a queue with `ordered`.
//
// A stored callback belongs to the name of its guard and consumer. Whichever guard has the
// name delivers it, whatever its rules are.
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

	// The maximum number of concurrent attempts of a queue, unless it has its own. Default:
	// 16.
	Workers int `json:"workers,omitempty"`

	// The timeout of an attempt, unless its queue has its own. Default: `30s`.
	Timeout caddy.Duration `json:"timeout,omitempty"`

	// The maximum number of attempts for each callback, unless its queue has its own. The
	// delay between attempts doubles from 1 second to 1 hour, with some random deviation.
	// Default: 20.
	MaxAttempts int `json:"max_attempts,omitempty"`

	// How long delivered callbacks are kept. During this time, callbacks with the same
	// content are duplicates. Default: `24h`.
	Keep caddy.Duration `json:"keep,omitempty"`

	// How long dead and discarded callbacks are kept. Default: `30d`.
	KeepDead caddy.Duration `json:"keep_dead,omitempty"`

	// Keys to encrypt the bodies and headers of stored callbacks with, by AES-256-GCM: 32
	// bytes each, in base64, as `tim-callback keygen` prints them. They should be placeholders
	// such as `{file./run/secrets/tim_key}`. The first one encrypts, and all decrypt, so that
	// keys can be replaced. What is stored of a callback besides, such as its command, group,
	// accounts and times, is not encrypted. Default: no encryption.
	Encrypt []string `json:"encrypt,omitempty"`

	store   Store
	name    string // of the store
	guards  map[string][]*caddymodule.Guard
	ctx     caddy.Context
	events  *caddyevents.App
	queue   *eventQueue
	logger  *zap.Logger
	failing *atomic.Bool // storing the last callback has failed
	queues  *queueLog
	cipher  tink.AEAD // nil without keys

	open *opening
}

// opening is the state of an app that has been started.
type opening struct {
	mu      sync.Mutex
	outbox  *outbox.Outbox // nil until it is needed
	workers *outbox.Workers
	stopped bool
}

// Store is the interface of guest modules in the namespace tim_delivery.stores, which
// are databases for callbacks.
type Store interface {
	// Key identifies the database. A configuration reuses the open store of the
	// previous one if the keys are equal. The key may contain a password, and must not
	// be logged.
	Key() string

	// Location says where the database is, without a password.
	Location() string

	// Exists reports whether the database may contain callbacks, without opening it.
	Exists() bool

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
	s.failing, s.queue, s.queues, s.open = new(atomic.Bool), new(eventQueue), newQueueLog(s.logger), new(opening)
	s.guards = make(map[string][]*caddymodule.Guard)
	s.setDefaults()
	var err error
	if s.cipher, err = newCipher(s.Encrypt); err != nil {
		return err
	}
	if err := s.provisionStore(); err != nil {
		return err
	}
	app, err := ctx.App("events")
	if err != nil {
		return err
	}
	s.events = app.(*caddyevents.App)
	if err := s.events.On("started", s); err != nil {
		return err
	}
	return metric.Register(ctx.GetMetricsRegistry(), attemptsTotal, storeSeconds, stored)
}

func (s *Service) setDefaults() {
	s.Workers = cmp.Or(s.Workers, defaultWorkers)
	s.Timeout = cmp.Or(s.Timeout, caddy.Duration(defaultTimeout))
	s.MaxAttempts = cmp.Or(s.MaxAttempts, defaultMaxAttempts)
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
	if s.Keep < 0 || s.KeepDead < 0 {
		return errors.New("keep and keep_dead must be positive")
	}
	return s.attempts().Check()
}

// Register implements [caddymodule.Deliveries]. Names of guards that store callbacks must be
// unique, because stored callbacks refer to them. Only a directive in a site with several
// listeners is provisioned as several guards with the same name.
func (s *Service) Register(g *caddymodule.Guard) error {
	for _, other := range s.guards[g.Name] {
		same := other.Server != g.Server && other.ConfigHash == g.ConfigHash
		if (g.Stores || other.Stores) && !same {
			return fmt.Errorf("tim_callback %s stores callbacks, and another one with a backend or consumers has the same name: "+
				"write name <name> in one of them, and do not change it later", g.Name)
		}
	}
	for consumer := range g.Routes {
		if err := (outbox.Queue{Guard: g.Name, Consumer: consumer}).Check(); err != nil {
			return err
		}
	}
	s.guards[g.Name] = append(s.guards[g.Name], g)
	return nil
}

// StoreName implements [caddymodule.Deliveries].
func (s *Service) StoreName() string { return s.name }

// attempts returns the options that queues can have as well.
func (s *Service) attempts() option.Attempts {
	return option.Attempts{Workers: &s.Workers, Timeout: &s.Timeout, MaxAttempts: &s.MaxAttempts}
}

// stores reports whether any guard stores callbacks.
func (s *Service) stores() bool {
	for _, guards := range s.guards {
		for _, g := range guards {
			if g.Stores {
				return true
			}
		}
	}
	return false
}

// Get returns a delivery, decrypted if it can be.
func (s *Service) Get(ctx context.Context, id int64) (outbox.Delivery, error) {
	d, err := s.Outbox().Get(ctx, id)
	if err == nil {
		if failed := s.unseal(&d.Callback); failed != nil {
			d.Unreadable = failed.Error()
		}
	}
	return d, err
}

// Retry makes a delivery due immediately, with all its attempts again.
func (s *Service) Retry(ctx context.Context, id int64) (outbox.Delivery, error) {
	return s.Outbox().Retry(ctx, id, s.optionsOf)
}

// RetryAll makes all deliveries that match the filter due immediately, with all their
// attempts again, and returns their number.
func (s *Service) RetryAll(ctx context.Context, f outbox.Filter) (int, error) {
	return s.Outbox().RetryAll(ctx, f, s.optionsOf)
}

// IsOpen reports whether the app uses its store, because callbacks are or were stored.
func (s *Service) IsOpen() bool {
	s.open.mu.Lock()
	defer s.open.mu.Unlock()
	return s.open.outbox != nil
}

// running returns the app of the running configuration, or nil if it has none that uses a
// store. A configuration that is still being loaded is not running yet, because it may
// fail.
func running() *Service {
	app, err := caddy.ActiveContext().AppIfConfigured("tim_delivery")
	if err != nil {
		return nil
	}
	if s, ok := app.(*Service); ok && s.IsOpen() {
		return s
	}
	return nil
}

// Start opens the store if callbacks are or were stored. A store that cannot be opened does
// not stop the server: callbacks are forwarded until it can.
func (s *Service) Start() error {
	if s.stores() || s.store.Exists() {
		s.Outbox()
	}
	return nil
}

// Handle implements [caddyevents.Handler]. It starts delivering when the whole
// configuration is running, because deliveries need other apps.
func (s *Service) Handle(context.Context, caddy.Event) error {
	s.open.mu.Lock()
	defer s.open.mu.Unlock()
	if s.open.outbox == nil || s.open.workers != nil || s.open.stopped {
		return nil
	}
	queues := make(map[outbox.Queue]outbox.QueueConfig)
	for _, q := range s.Queues() {
		queues[q] = s.queueConfig(q)
	}
	var err error
	s.open.workers, err = s.open.outbox.Work(outbox.WorkConfig{
		Queues: queues, Keep: time.Duration(s.Keep), KeepDead: time.Duration(s.KeepDead), Dead: s.emitDead,
	})
	if err != nil {
		s.logger.Error("starting deliveries failed", zap.Error(err))
		return nil
	}
	go s.warnOfUnclaimed()
	return nil
}

// Stop begins no more deliveries. If Caddy is exiting, it waits for running ones, up to
// the grace period of the HTTP app; otherwise, they are finished in the background.
func (s *Service) Stop() error {
	s.open.mu.Lock()
	workers := s.open.workers
	s.open.workers, s.open.stopped = nil, true
	s.open.mu.Unlock()
	if workers != nil {
		finishing.Store(workers, true)
	}
	switch {
	case caddy.Exiting(): // those of former configurations too
		var all sync.WaitGroup
		for w := range finishing.Range {
			all.Go(func() {
				finish(w.(*outbox.Workers), s.grace())
				finishing.Delete(w)
			})
		}
		all.Wait()
	case workers != nil:
		s.acquire() // for the deliveries that continue after Cleanup
		go func() {
			finish(workers, s.longestTimeout())
			finishing.Delete(workers)
			s.release()
		}()
	}
	return nil
}

// finishing are the workers of this and former configurations whose deliveries continue.
var finishing sync.Map

func finish(workers *outbox.Workers, within time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	if err := workers.Stop(ctx); err != nil {
		caddy.Log().Named("tim_delivery").Info("running deliveries were canceled and will be repeated", zap.Error(err))
	}
}

// grace returns how long to wait for deliveries when Caddy exits: the grace period of the
// HTTP app or, if that is not limited, the timeout of an attempt.
func (s *Service) grace() time.Duration {
	app, err := s.ctx.AppIfConfigured("http")
	if http, ok := app.(*caddyhttp.App); err == nil && ok && http.GracePeriod > 0 {
		return time.Duration(http.GracePeriod)
	}
	return s.longestTimeout()
}

func (s *Service) longestTimeout() time.Duration {
	longest := s.Timeout
	for _, guards := range s.guards {
		for _, g := range guards {
			for _, route := range g.Routes {
				longest = max(longest, route.Timeout)
			}
		}
	}
	return time.Duration(longest)
}

// Cleanup closes the store, unless another configuration uses it. If Caddy is exiting, all
// servers have stopped before. Otherwise, they are still serving calls that have begun, and
// the store is closed when there are none any more. Cleanup also stops the deliveries of a
// configuration that has failed to start after it was said to be running.
func (s *Service) Cleanup() error {
	if s.open == nil { // Provision has failed
		return nil
	}
	if err := s.Stop(); err != nil {
		return err
	}
	switch {
	case !s.IsOpen():
	case caddy.Exiting():
		s.release()
	default:
		go func() {
			left := s.warnOfLeft(0)
			s.awaitCalls()
			s.warnOfLeft(left)
			s.release()
		}()
	}
	return nil
}

// newConnection is how long a connection that has not sent anything may do so after its
// server was told to shut down: [http.Server.Shutdown] closes it then.
const newConnection = 5 * time.Second

// awaitCalls waits until the servers of a replaced configuration serve no call any more that
// may be stored.
func (s *Service) awaitCalls() {
	for stopped := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		ended := caddy.Exiting() || time.Since(stopped) > newConnection
		if ended && !s.inProgress() {
			return
		}
	}
}

// inProgress reports whether any guard is serving calls.
func (s *Service) inProgress() bool {
	for _, guards := range s.guards {
		if slices.ContainsFunc(guards, (*caddymodule.Guard).InProgress) {
			return true
		}
	}
	return false
}

// Interface guards
var (
	_ caddy.App              = (*Service)(nil)
	_ caddy.Provisioner      = (*Service)(nil)
	_ caddy.Validator        = (*Service)(nil)
	_ caddy.CleanerUpper     = (*Service)(nil)
	_ caddyevents.Handler    = (*Service)(nil)
	_ caddymodule.Deliveries = (*Service)(nil)
)
