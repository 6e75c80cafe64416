// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

// Package console provides the handler tim_console, a page for people who run callbacks.
package console

import (
	"context"
	"fmt"
	"net/http"
	"path"
	"strings"
	"sync"

	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/timguard/timguard/caddymodule/delivery"
)

func init() {
	caddy.RegisterModule(Console{})
}

// Console serves a web page, in English and Chinese, that shows the guards, the calls that
// come in, and the stored deliveries, which it can retry, discard, pause and resume.
//
// It authenticates nobody, and stored payloads contain what users wrote: put `basic_auth` or
// the like in front of it. Each change is logged with `{http.auth.user.id}`.
type Console struct {
	// The path under which the page is served. Requests for other paths go on to the next
	// handler. Default: all paths.
	Prefix string `json:"prefix,omitempty"`

	// Whether to refuse changes, with status 403. Default: false.
	ReadOnly bool `json:"read_only,omitempty"`

	service *delivery.Service
	logger  *zap.Logger
	front   inFront
	mux     *http.ServeMux
	handler http.Handler
	warned  *sync.Once // that a request came without a user

	stopping context.Context // done when the server begins to shut down
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
	app, err := ctx.App("tim_delivery") // also if no guard stores: the store may have rows of one that did
	if err != nil {
		return err
	}
	c.service = app.(*delivery.Service)
	c.logger, c.warned = ctx.Logger(), new(sync.Once)
	c.mux = c.routes()
	protection := http.NewCrossOriginProtection() // browsers attach basic_auth credentials to cross-site requests
	protection.SetDenyHandler(http.HandlerFunc(c.crossOrigin))
	c.handler = protection.Handler(http.HandlerFunc(c.serve))
	c.stopping = context.Background()
	if server, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server); ok {
		// Streams would otherwise hold up the shutdown until the grace period ends, if there is
		// one. That of HTTP/3 begins at the same time.
		stopping, stop := context.WithCancel(context.Background())
		server.RegisterOnShutdown(stop)
		c.stopping = stopping
		c.front = lookInFront(server.Routes, c)
	}
	c.warn()
	return nil
}

// checkPrefix rejects prefixes that no request's path has, and those that would be patterns
// of a [http.ServeMux].
func checkPrefix(prefix string) error {
	trimmed := strings.TrimRight(prefix, "/")
	switch {
	case trimmed == "":
	case !strings.HasPrefix(prefix, "/"), strings.ContainsAny(prefix, "{}"):
		return fmt.Errorf("prefix %q: want a path that begins with / and contains no braces", prefix)
	case path.Clean(trimmed) != trimmed, strings.ContainsAny(prefix, "%?#* \t"):
		return fmt.Errorf("prefix %q: want a plain path, such as /console, without the matcher's *", prefix)
	}
	return nil
}

// warn warns of what makes the page more open, or the site more closed, than is likely meant.
func (c *Console) warn() {
	if !c.front.found {
		return
	}
	if c.Prefix == "" && !c.front.path && c.front.after {
		c.logger.Warn("tim_console without a prefix answers every request that reaches it, so the handlers after it are not used; " +
			"write tim_console /console, or put it in a handle block with a path")
	}
	if c.front.auth == noAuth {
		c.logger.Warn("tim_console has no authentication in front of it: whoever reaches the page can read stored payloads and change deliveries; " +
			"put basic_auth before it, in the same block")
	}
}

// ServeHTTP serves the page.
func (c *Console) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	rest, ok := strings.CutPrefix(r.URL.Path, c.Prefix)
	if !ok || rest != "" && rest[0] != '/' {
		return next.ServeHTTP(w, r)
	}
	header := w.Header()
	header.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; "+
		"form-action 'self'; frame-ancestors 'none'; base-uri 'none'")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("X-Frame-Options", "DENY")
	header.Set("Referrer-Policy", "same-origin")
	header.Set("Cross-Origin-Opener-Policy", "same-origin")
	header.Set("Cache-Control", "no-store")
	c.handler.ServeHTTP(w, behind(r, c.Prefix, rest))
	return nil
}

// routes returns the pages. Their paths are those behind the prefix.
func (c *Console) routes() *http.ServeMux {
	mux := http.NewServeMux()
	handle := func(method, path string, serve func(*reply)) {
		mux.HandleFunc(method+" "+path, func(w http.ResponseWriter, r *http.Request) { serve(c.newReply(w, r)) })
	}
	mux.HandleFunc("GET /assets/{file}", serveAsset)
	handle("GET", "/{$}", c.overview)
	handle("GET", "/live", c.live)
	handle("GET", "/live/calls", c.stream)
	handle("GET", "/deliveries", c.list)
	handle("GET", "/deliveries/{id}", c.one)
	handle("GET", "/deliveries/{id}/payload", c.payload)
	handle("GET", "/deliveries/{id}/download", c.download)
	for _, change := range []string{retry, discard} {
		handle("GET", "/deliveries/{id}/"+change, c.confirmOne(change))
		handle("POST", "/deliveries/{id}/"+change, c.change(c.changeOne(change)))
		handle("GET", "/deliveries/all/"+change, c.confirmMany(change))
		handle("POST", "/deliveries/all/"+change, c.change(c.changeMany(change)))
	}
	for _, change := range []string{pause, resume} {
		handle("POST", "/queues/"+change, c.change(c.changeQueue(change)))
	}
	return mux
}

// baseKey is the key of the path of the page, as the browser sees it, without a slash at the
// end.
type baseKey struct{}

// behind returns the request with the path behind the prefix.
func behind(r *http.Request, prefix, rest string) *http.Request {
	base := prefix
	// In handle_path, the browser sees more of the path.
	if o, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request); ok && o.URL != nil {
		if outer, ok := strings.CutSuffix(o.URL.Path, r.URL.Path); ok {
			base = strings.TrimRight(outer, "/") + prefix
		}
	}
	inner := r.WithContext(context.WithValue(r.Context(), baseKey{}, base))
	u := *r.URL
	u.Path, u.RawPath = "/"+strings.TrimPrefix(rest, "/"), ""
	inner.URL = &u
	return inner
}

// serve routes a request by the path behind the prefix.
func (c *Console) serve(w http.ResponseWriter, r *http.Request) {
	_, pattern := c.mux.Handler(r)
	if pattern == "" || path.Clean(r.URL.Path) != r.URL.Path {
		c.newReply(w, r).fail(http.StatusNotFound, "error.page")
		return
	}
	c.mux.ServeHTTP(w, r)
}

func (c *Console) crossOrigin(w http.ResponseWriter, r *http.Request) {
	c.newReply(w, r).fail(http.StatusForbidden, "error.origin")
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Console)(nil)
	_ caddyhttp.MiddlewareHandler = (*Console)(nil)
)
