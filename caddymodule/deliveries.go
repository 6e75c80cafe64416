// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"context"
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

// Deliveries is what a guard needs of the app tim_delivery. Another package
// provides it, so that a Caddy with nothing but this one links no database.
type Deliveries interface {
	// Register announces a guard that may store callbacks, when it is provisioned. It
	// returns an error if the guard cannot be told from one that was registered.
	Register(g *Guard) error

	// Store returns once the callback is on stable storage: in one commit for the
	// guard's own backend, if it is asked to, and for each of the consumers.
	Store(ctx context.Context, c *StoredCallback) error

	// StoreName returns the name of the store's module.
	StoreName() string
}

// Guard is a tim_callback handler that may store callbacks.
type Guard struct {
	// Name identifies it in what is stored.
	Name string

	// Config is its whole configuration as JSON. One directive of a site with several
	// listeners is several handlers, which are alike.
	Config string

	// Server is the one that it is part of. Deliveries enter it again.
	Server *caddyhttp.Server

	// Consumers are those that it copies callbacks to.
	Consumers []string

	handler *Handler
}

// Sign returns the parameters of a query, in their raw form, that sign a callback
// of the app now; empty if the app has no token. It returns an error if the guard
// does not have the app.
func (g *Guard) Sign(sdkAppID string, signed bool) (auth string, err error) {
	app := g.handler.apps[sdkAppID]
	if app == nil {
		return "", fmt.Errorf("app %s is not in this guard's configuration any more", sdkAppID)
	}
	if !signed || len(app.secrets) == 0 {
		return "", nil
	}
	requestTime := strconv.FormatInt(time.Now().Unix(), 10)
	return url.Values{"RequestTime": {requestTime}, "Sign": {callback.Sign(app.secrets[0], requestTime)}}.Encode(), nil
}

// StoredCallback is a judged callback that is to be stored.
type StoredCallback struct {
	Guard    string
	Request  *http.Request
	Header   http.Header // of the request, as it came
	Body     []byte      // not to be kept: Store copies it
	SdkAppID string
	Event    callback.Event
	Signed   bool
	Received time.Time

	// Own is whether it is for the guard's own backend, besides the consumers.
	Own       bool
	Consumers []string
}

// Attempt is one attempt at delivering a stored callback. The request of the
// attempt has it in its context: only the guard that stored the callback lets it
// through without judging it again.
type Attempt struct {
	Guard    string
	Consumer string
	Number   int // from 1
	Command  string
	Body     []byte
	Signed   bool

	// Passed is set by the guard when it lets the attempt through. One that ends
	// without it did not reach the backend that it is for.
	Passed bool

	// Err is what the handlers after the guard returned.
	Err error
}

const attemptCtxKey caddy.CtxKey = "tim_callback_attempt"

// WithAttempt returns a context for the request of an attempt.
func WithAttempt(ctx context.Context, a *Attempt) context.Context {
	return context.WithValue(ctx, attemptCtxKey, a)
}

// attemptOf returns the attempt that the request makes through this guard, nil if
// it makes none.
func (h *Handler) attemptOf(r *http.Request) *Attempt {
	// A whole context takes long to look through for what is not there.
	if h.deliveries == nil {
		return nil
	}
	a, _ := r.Context().Value(attemptCtxKey).(*Attempt)
	if a == nil || a.Guard != h.Name {
		return nil
	}
	return a
}

// provisionDeliveries joins the guard to the app tim_delivery if it stores callbacks.
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
		return fmt.Errorf("the app tim_delivery is a %T, which stores no callbacks", app)
	}
	if h.server == nil {
		return errors.New("deliver, fallback deliver and copy work only in a site, whose server they deliver through")
	}
	config, err := json.Marshal(h)
	if err != nil {
		return err
	}
	h.deliveries = deliveries
	return deliveries.Register(&Guard{
		Name: h.Name, Config: string(config), Server: h.server, Consumers: h.consumers(), handler: h,
	})
}
