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
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/timguard/timguard/caddymodule/callback"
)

// Deliveries is the interface of the app tim_delivery. The app is in another package, so
// that a Caddy with only this package does not link a database.
type Deliveries interface {
	// Register registers a guard that may store callbacks. It is called by Provision.
	// It returns an error if another guard has the same name.
	Register(g *Guard) error

	// Store stores the callback durably before it returns, in one commit for all of
	// the guard's own backend, if requested, and the consumers.
	Store(ctx context.Context, c *StoredCallback) error

	// StoreName returns the name of the store's module.
	StoreName() string
}

// Guard is a tim_callback handler that may store callbacks.
type Guard struct {
	// Name is the name of the guard in stored callbacks.
	Name string

	// ConfigHash is the SHA-256 of its configuration in JSON. One directive of a site
	// with several listeners is several handlers, whose configurations are equal.
	ConfigHash [sha256.Size]byte

	// Server is the HTTP server of the guard, through which deliveries are replayed.
	Server *caddyhttp.Server

	// Consumers are the names of the consumers that get copies of callbacks.
	Consumers []string

	handler *Handler
}

// Sign returns raw query parameters with a new RequestTime and Sign for a callback of the
// app, or "" if the callback was not signed or the app has no token. It returns an error
// if the guard does not have the app.
func (g *Guard) Sign(sdkAppID string, signed bool) (auth string, err error) {
	app := g.handler.apps[sdkAppID]
	if app == nil {
		return "", fmt.Errorf("app %s is no longer configured in this guard", sdkAppID)
	}
	if !signed || len(app.secrets) == 0 {
		return "", nil
	}
	requestTime := strconv.FormatInt(time.Now().Unix(), 10)
	return url.Values{"RequestTime": {requestTime}, "Sign": {callback.Sign(app.secrets[0], requestTime)}}.Encode(), nil
}

// StoredCallback is a verified callback to be stored.
type StoredCallback struct {
	Guard    string
	Request  *http.Request
	Header   http.Header // the original header of the request
	Body     []byte      // Store must copy it
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

// Attempt is an attempt to deliver a stored callback. It is in the context of the
// attempt's request. Only the guard that stored the callback lets the request through
// without verifying it again.
type Attempt struct {
	Guard    string
	Consumer string
	Number   int // from 1
	Command  string
	Body     []byte
	Signed   bool

	// Passed is set by the guard when it invokes the next handler. If it is not set
	// after the attempt, the request has not reached the right backend.
	Passed bool

	// Err is the error of the next handler.
	Err error
}

const attemptCtxKey caddy.CtxKey = "tim_callback_attempt"

// WithAttempt returns a context with the attempt, for its request.
func WithAttempt(ctx context.Context, a *Attempt) context.Context {
	return context.WithValue(ctx, attemptCtxKey, a)
}

// attemptOf returns the attempt if the request is a delivery of this guard, or else nil.
func (h *Handler) attemptOf(r *http.Request) *Attempt {
	if h.deliveries == nil { // avoids searching the context
		return nil
	}
	a, _ := r.Context().Value(attemptCtxKey).(*Attempt)
	if a == nil || a.Guard != h.Name {
		return nil
	}
	return a
}

// provisionDeliveries registers the guard with the app tim_delivery if it stores
// callbacks.
func (h *Handler) provisionDeliveries(ctx caddy.Context) error {
	if !slices.ContainsFunc(h.Rules, Rule.stores) {
		return nil
	}
	app, err := ctx.App("tim_delivery")
	if err != nil {
		if _, unknown := caddy.GetModule("tim_delivery"); unknown != nil {
			return errors.New("storing callbacks (deliver, fallback deliver, copy) needs a Caddy with deliveries: " +
				"build it with github.com/timguard/timguard, not with its caddymodule alone")
		}
		return err
	}
	deliveries, ok := app.(Deliveries)
	if !ok {
		return fmt.Errorf("the app tim_delivery is a %T, which does not implement caddymodule.Deliveries", app)
	}
	if h.server == nil {
		return errors.New("deliver, fallback deliver and copy require an HTTP server, through which callbacks are delivered")
	}
	config, err := json.Marshal(h)
	if err != nil {
		return err
	}
	h.deliveries = deliveries
	return deliveries.Register(&Guard{
		Name: h.Name, ConfigHash: sha256.Sum256(config), Server: h.server, Consumers: h.consumers(), handler: h,
	})
}
