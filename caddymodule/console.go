// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"

	"riverqueue.com/riverui"
	"riverqueue.com/riverui/uiendpoints"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/timguard/timguard/caddymodule/outbox"
)

func init() {
	caddy.RegisterModule(Console{})
	// Not a handler directive: those take a first argument with a slash for a matcher.
	httpcaddyfile.RegisterDirective("tim_console", parseConsole)
	httpcaddyfile.RegisterDirectiveOrder("tim_console", httpcaddyfile.Before, "reverse_proxy")
}

// Console serves River UI (https://riverqueue.com/docs/river-ui): a site for
// looking at stored callbacks, their attempts and errors, and for retrying,
// cancelling or deleting them.
//
// It authenticates nobody, and the stored bodies hold what users wrote: put
// `basic_auth` or another check in front of it.
type Console struct {
	// The path that it is served under. Default: `/`.
	Prefix string `json:"prefix,omitempty"`

	delivery *Delivery
	logger   *slog.Logger
	ctx      context.Context // ends with the configuration
	cancel   context.CancelFunc

	ui func() (http.Handler, error) // made by the first request
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
	if c.Prefix = strings.TrimRight(c.Prefix, "/"); c.Prefix != "" && !strings.HasPrefix(c.Prefix, "/") {
		return fmt.Errorf("prefix is %q: want a path that begins with /", c.Prefix)
	}
	app, err := ctx.App("tim_delivery")
	if err != nil {
		return err
	}
	c.delivery = app.(*Delivery)
	c.logger = ctx.Slogger()
	c.ctx, c.cancel = context.WithCancel(context.Background())
	// The store is open only once the configuration runs.
	c.ui = sync.OnceValues(func() (http.Handler, error) { return c.start(c.delivery.outbox) })
	return nil
}

// Cleanup ends what River UI does in the background.
func (c *Console) Cleanup() error {
	if c.cancel != nil { // Caddy also cleans up what it could not provision
		c.cancel()
	}
	return nil
}

// ServeHTTP serves River UI.
func (c *Console) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if r.URL.Path != c.Prefix && !strings.HasPrefix(r.URL.Path, c.Prefix+"/") {
		return next.ServeHTTP(w, r)
	}
	select {
	case <-c.delivery.started:
	default:
		return caddyhttp.Error(http.StatusServiceUnavailable, errors.New("the store is not open"))
	}
	ui, err := c.ui()
	if err != nil {
		return caddyhttp.Error(http.StatusInternalServerError, err)
	}
	ui.ServeHTTP(w, r)
	return nil
}

func (c *Console) start(o *outbox.Outbox) (http.Handler, error) {
	var endpoints uiendpoints.Bundle
	if client := o.SQLite(); client != nil {
		endpoints = riverui.NewEndpoints(client, nil)
	} else {
		endpoints = riverui.NewEndpoints(o.Postgres(), nil)
	}
	ui, err := riverui.NewHandler(&riverui.HandlerOpts{Endpoints: endpoints, Logger: c.logger, Prefix: c.Prefix})
	if err != nil {
		return nil, err
	}
	if err := ui.Start(c.ctx); err != nil {
		return nil, err
	}
	// Browsers send basic_auth's password along with what any page makes them post.
	return http.NewCrossOriginProtection().Handler(ui), nil
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
		return d.Errf("tim_console takes one prefix, but %q stands after it", d.Val())
	}
	if c.Prefix != "" && !strings.HasPrefix(c.Prefix, "/") {
		return d.Errf("tim_console: prefix %q: want a path that begins with /", c.Prefix)
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
