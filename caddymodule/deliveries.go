// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/timguard/timguard/caddymodule/callback"
)

// Deliveries is the interface of the app tim_delivery. The app is in another package, so
// that a Caddy with only this package does not link a database.
type Deliveries interface {
	// Register registers a guard with a backend or consumers, whose stored callbacks the
	// app delivers. It is called by Provision. It returns an error if another guard that
	// stores callbacks has the same name.
	Register(g *Guard) error

	// Store stores the callback durably before it returns, in one commit for all of
	// the guard's backend, if requested, and the consumers.
	Store(ctx context.Context, c *StoredCallback) error

	// Waits reports whether earlier callbacks of the conversation wait for the guard's
	// backend.
	Waits(ctx context.Context, g *Guard, conversation string) bool

	// Attempts reports whether a callback of the event is being attempted for the guard's
	// consumer or, with the name "", its backend.
	Attempts(ctx context.Context, g *Guard, consumer, eventID string) bool

	// StoreName returns the name of the store's module.
	StoreName() string
}

// Guard is a tim_callback handler with routes of its own.
type Guard struct {
	// Name is the name of the guard in stored callbacks.
	Name string

	// Stores is whether any of its rules stores callbacks. Otherwise, the guard only
	// delivers those that are stored already.
	Stores bool

	// ConfigHash is the SHA-256 of its configuration in JSON. One directive of a site
	// with several listeners is several handlers, whose configurations are equal.
	ConfigHash [sha256.Size]byte

	// Server is the HTTP server of the guard.
	Server *caddyhttp.Server

	// Routes are the routes to the consumers and, with the name "", to the backend.
	Routes map[string]*Backend

	handler    *Handler
	inProgress atomic.Int64
}

// InProgress reports whether the guard's handler is serving calls, of which it may store some.
func (g *Guard) InProgress() bool { return g.inProgress.Load() > 0 }

// Sign returns raw query parameters with a new RequestTime and Sign for a callback of the
// app, or "" if the callback was not signed, the app has no token, or the guard removes
// them from what it forwards. It returns an error if the guard does not have the app.
func (g *Guard) Sign(sdkAppID string, signed bool) (auth string, err error) {
	app := g.handler.apps[sdkAppID]
	if app == nil {
		return "", fmt.Errorf("app %s is no longer configured in this guard", sdkAppID)
	}
	if !signed || len(app.secrets) == 0 || g.handler.StripAuth {
		return "", nil
	}
	requestTime := strconv.FormatInt(time.Now().Unix(), 10)
	return url.Values{"RequestTime": {requestTime}, "Sign": {callback.Sign(app.secrets[0], requestTime)}}.Encode(), nil
}

// Delivery is an attempt to deliver a stored callback.
type Delivery struct {
	Consumer string // "" for the backend
	Command  string
	EventID  string
	Body     []byte
}

// Deliver runs the handlers of a route with the request of a delivery, for which it sets
// the placeholders. It ignores faults of the callback, which was accepted when it was
// received, possibly by another version.
func (g *Guard) Deliver(w http.ResponseWriter, r *http.Request, d Delivery) error {
	c := &call{judgment: judgment{action: actionDeliver}, consumer: d.Consumer, id: d.EventID}
	c.query, _ = callback.ParseQuery(r.URL.RawQuery)
	c.event, _ = callback.Inspect(d.Body, d.Command)
	setLastCall(r, c)
	return g.Routes[d.Consumer].handler.ServeHTTP(w, r)
}

// StoredCallback is a verified callback to be stored.
type StoredCallback struct {
	Guard    *Guard
	Request  StoredRequest
	Body     []byte // Store must copy it
	SdkAppID string
	Event    callback.Event
	EventID  string
	RandomID bool // EventID does not identify a repetition of the event
	Signed   bool
	Received time.Time

	// Own is whether to store the callback for the guard's own backend.
	Own bool

	// Consumers are the consumers to store the callback for.
	Consumers []string
}

// StoredRequest is what is stored of a request.
type StoredRequest struct {
	Method, Host, Proto, RemoteAddr string
	TLS                             bool

	URL      url.URL     // as the guard forwards it
	Original *url.URL    // as the server received it
	Header   http.Header // as the guard forwards it; Store must copy it

	// Variables that the server, or handlers before the guard, have set.
	ClientIP     string
	TrustedProxy bool
	Root         string // of files, which php_fastcgi needs
}

// newStoredRequest returns what is stored of a request that is as the guard forwards it.
func newStoredRequest(r *http.Request) StoredRequest {
	s := StoredRequest{
		Method: r.Method, Host: r.Host, Proto: r.Proto, RemoteAddr: r.RemoteAddr, TLS: r.TLS != nil, URL: *r.URL, Original: r.URL, Header: r.Header,
	}
	ctx := r.Context()
	if original, ok := ctx.Value(caddyhttp.OriginalRequestCtxKey).(http.Request); ok {
		s.Original = original.URL
	}
	s.ClientIP, _ = caddyhttp.GetVar(ctx, caddyhttp.ClientIPVarKey).(string)
	s.TrustedProxy, _ = caddyhttp.GetVar(ctx, caddyhttp.TrustedProxyVarKey).(bool)
	s.Root, _ = caddyhttp.GetVar(ctx, "root").(string)
	return s
}

// provisionDeliveries loads the app tim_delivery, and registers the guard with it if it has
// routes of its own. Without any, the app may still find callbacks that were stored when it
// had some. A Caddy without the app can do everything but store.
func (h *Handler) provisionDeliveries(ctx caddy.Context, config [sha256.Size]byte) error {
	h.guard = &Guard{
		Name: h.Name, Stores: slices.ContainsFunc(h.Rules, Rule.stores), ConfigHash: config, Server: h.server, Routes: h.routes(), handler: h,
	}
	_, err := caddy.GetModule("tim_delivery")
	hasDeliveries := err == nil
	switch {
	case !hasDeliveries && h.guard.Stores:
		return errors.New("storing callbacks (deliver, fallback deliver, copy) needs a Caddy with deliveries: " +
			"build it with github.com/timguard/timguard, not with its caddymodule alone")
	case !hasDeliveries, h.server == nil && len(h.guard.Routes) == 0:
		return nil
	case h.server == nil:
		return errors.New("backend and consumer require an HTTP server")
	}
	app, err := ctx.App("tim_delivery")
	if err != nil || len(h.guard.Routes) == 0 {
		return err
	}
	deliveries, ok := app.(Deliveries)
	if !ok {
		return fmt.Errorf("the app tim_delivery is a %T, which does not implement caddymodule.Deliveries", app)
	}
	h.deliveries = deliveries
	return deliveries.Register(h.guard)
}

// hash returns the SHA-256 of the configuration. It must be called before the handlers of
// routes are provisioned, because that discards their configuration.
func (h *Handler) hash() ([sha256.Size]byte, error) {
	config, err := json.Marshal(h)
	return sha256.Sum256(config), err
}
