// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

// Package console provides the handler tim_console, a page for people who run callbacks.
package console

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"

	"riverqueue.com/riverui"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/timguard/timguard/caddymodule/delivery"
	"github.com/timguard/timguard/caddymodule/outbox"
)

func init() {
	caddy.RegisterModule(Console{})
	// Not RegisterHandlerDirective, which would parse the prefix as a path matcher.
	httpcaddyfile.RegisterDirective("tim_console", parseConsole)
	httpcaddyfile.RegisterDirectiveOrder("tim_console", httpcaddyfile.Before, "reverse_proxy")
}

// Console serves River UI (https://riverqueue.com/docs/river-ui), a web interface that
// shows stored callbacks with their attempts and errors, and can retry, cancel or
// delete them. The start page lists the state that needs most attention.
//
// It has no authentication, and the stored bodies contain what users wrote: put
// `basic_auth` or the like in front of it.
type Console struct {
	// The path under which the interface is served. Default: `/`.
	Prefix string `json:"prefix,omitempty"`

	service *delivery.Service
	logger  *slog.Logger
	ctx     context.Context // canceled by Cleanup
	cancel  context.CancelFunc

	mu *sync.Mutex
	ui http.Handler // nil until a request has started it
}

// CaddyModule returns the Caddy module information.
func (Console) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.tim_console",
		New: func() caddy.Module { return new(Console) },
	}
}

// Provision sets up the handler.
func (c *Console) Provision(ctx caddy.Context) error {
	if err := checkPrefix(c.Prefix); err != nil {
		return err
	}
	c.Prefix = strings.TrimRight(c.Prefix, "/")
	app, err := ctx.App("tim_delivery")
	if err != nil {
		return err
	}
	c.service = app.(*delivery.Service)
	c.logger = ctx.Slogger()
	c.mu = new(sync.Mutex)
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return nil
}

// checkPrefix rejects invalid prefixes. Braces would be a wildcard in the pattern of a
// [http.ServeMux].
func checkPrefix(prefix string) error {
	if prefix != "" && !strings.HasPrefix(prefix, "/") || strings.ContainsAny(prefix, "{}") {
		return fmt.Errorf("prefix %q: want a path that begins with / and contains no braces", prefix)
	}
	return nil
}

// Cleanup stops River UI.
func (c *Console) Cleanup() error {
	if c.cancel != nil { // nil if Provision failed
		c.cancel()
	}
	return nil
}

// ServeHTTP serves River UI.
func (c *Console) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	path, ok := strings.CutPrefix(r.URL.Path, c.Prefix)
	if !ok || path != "" && path[0] != '/' {
		return next.ServeHTTP(w, r)
	}
	ui, err := c.handler()
	if errors.Is(err, outbox.ErrNotReady) {
		return caddyhttp.Error(http.StatusServiceUnavailable, err)
	}
	if err != nil {
		return caddyhttp.Error(http.StatusInternalServerError, err)
	}
	if r.Method == http.MethodGet && strings.Trim(path, "/") == "" {
		http.Redirect(w, r, c.Prefix+"/jobs?state="+c.startState(r.Context()), http.StatusFound)
		return nil
	}
	ui.ServeHTTP(w, r)
	return nil
}

// startState returns River's name of the state that needs most attention, among those
// with any deliveries.
func (c *Console) startState(ctx context.Context) string {
	counts, _ := c.service.Outbox().Counts(ctx) // the page itself shows the error
	states := make(map[outbox.State]int)
	for _, count := range counts {
		states[count.State] += count.N
	}
	for _, s := range []struct {
		state outbox.State
		river string
	}{
		{outbox.Dead, "discarded"},
		{outbox.Retrying, "retryable"},
		{outbox.Running, "running"},
		{outbox.Pending, "available"},
		{outbox.Delivered, "completed"},
		{outbox.Discarded, "cancelled"},
	} {
		if states[s.state] > 0 {
			return s.river
		}
	}
	return "completed"
}

// handler returns River UI. The first request that finds the store open starts it.
func (c *Console) handler() (http.Handler, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ui != nil {
		return c.ui, nil
	}
	ui, err := c.start()
	if err == nil {
		c.ui = ui
	}
	return ui, err
}

func (c *Console) start() (http.Handler, error) {
	endpoints, err := c.service.Outbox().Endpoints()
	if err != nil {
		return nil, err
	}
	ui, err := riverui.NewHandler(&riverui.HandlerOpts{
		Endpoints: endpoints, Logger: c.logger, Prefix: c.Prefix,
	})
	if err != nil {
		return nil, err
	}
	if err := ui.Start(c.ctx); err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("/", ui)
	mux.HandleFunc("POST "+c.Prefix+"/api/jobs/retry", c.retry)
	// Browsers attach basic_auth credentials to cross-site requests.
	return http.NewCrossOriginProtection().Handler(mux), nil
}

// retry replaces the endpoint of River UI, which gives a job only one more attempt.
// Elsewhere, a retried delivery gets all its attempts again.
func (c *Console) retry(w http.ResponseWriter, r *http.Request) {
	var request struct {
		IDs []json.Number `json:"ids"`
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&request); err != nil {
		http.Error(w, "want the ids of jobs", http.StatusBadRequest)
		return
	}
	for _, text := range request.IDs {
		id, err := text.Int64()
		if err == nil {
			_, err = c.service.Retry(r.Context(), id)
		}
		if err != nil && !errors.Is(err, outbox.ErrState) && !errors.Is(err, outbox.ErrNotFound) {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]string{"status": "ok"})
}

func parseConsole(h httpcaddyfile.Helper) ([]httpcaddyfile.ConfigValue, error) {
	c := new(Console)
	if err := c.UnmarshalCaddyfile(h.Dispenser); err != nil {
		return nil, err
	}
	return h.NewRoute(nil, c), nil
}

// UnmarshalCaddyfile sets up the handler from Caddyfile tokens. Syntax:
//
//	tim_console [<prefix>]
func (c *Console) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume directive name
	if d.NextArg() {
		c.Prefix = d.Val()
	}
	if d.NextArg() {
		return d.Errf("tim_console takes only a prefix, but got %q as well", d.Val())
	}
	if err := checkPrefix(c.Prefix); err != nil {
		return d.Errf("tim_console: %v", err)
	}
	if d.NextBlock(0) {
		return d.Errf("tim_console takes no block")
	}
	return nil
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Console)(nil)
	_ caddy.CleanerUpper          = (*Console)(nil)
	_ caddyhttp.MiddlewareHandler = (*Console)(nil)
	_ caddyfile.Unmarshaler       = (*Console)(nil)
)
