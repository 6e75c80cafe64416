// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/timguard/timguard/caddymodule/callback"
	"github.com/timguard/timguard/caddymodule/outbox"
)

// storeWithin is how long a caller waits for the store, before the callback is
// forwarded at once while Tencent still waits.
const storeWithin = time.Second

// attemptHeader tells the backend that a callback was stored, and how often it
// has been offered.
const attemptHeader = "Tim-Delivery-Attempt"

// deliveryCtxKey is where the request of a delivery has its call.
const deliveryCtxKey caddy.CtxKey = "tim_callback_delivery"

// provisionDelivery joins the guard to the delivery app if it stores callbacks.
func (h *Handler) provisionDelivery(ctx caddy.Context) error {
	if !slices.ContainsFunc(h.Rules, Rule.stores) {
		return nil
	}
	app, err := ctx.App("tim_delivery")
	if err != nil {
		return err
	}
	h.delivery = app.(*Delivery)
	if h.server == nil {
		return errors.New("deliver works only in a site, whose server it delivers through")
	}
	return h.delivery.register(h)
}

// deliver stores the callback and answers OK. If it cannot be stored, it is
// forwarded at once, and if that fails too, refused: there is no OK that nothing
// stands behind.
func (h *Handler) deliver(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, c *call) error {
	err := h.store(r, c)
	if err == nil {
		writeAnswer(w, http.StatusOK, okAnswer)
		return nil
	}
	h.logger.Error("storing a callback failed: forwarding it at once",
		zap.String("guard", h.Name), zap.String("command", c.query.CallbackCommand), zap.Error(err))
	h.prepare(r, c)
	h.tryForward(w, r, next, c, (*heldAnswer).refusal, func(err error) { h.unavailable(w, c, err) })
	return nil
}

// store puts the callback on stable storage.
func (h *Handler) store(r *http.Request, c *call) error {
	// The caller may have gone; its callback must not go with it.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), storeWithin)
	defer cancel()
	return h.delivery.put(ctx, h.stored(r, c))
}

// unavailable refuses a callback that could neither be stored nor delivered, so
// that Tencent offers it again if retries are switched on.
func (h *Handler) unavailable(w http.ResponseWriter, c *call, err error) {
	h.logger.Error("a callback could neither be stored nor forwarded: it is lost unless Tencent repeats it",
		zap.String("guard", h.Name), zap.String("command", c.query.CallbackCommand), zap.Error(causeOf(err)))
	writeAnswer(w, http.StatusServiceUnavailable, callback.Fail("the callback could neither be stored nor delivered").JSON())
}

// stored returns what is kept of a request: all that is needed to make it again,
// but neither Sign nor RequestTime.
func (h *Handler) stored(r *http.Request, c *call) outbox.Callback {
	original := *r
	if o, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request); ok {
		original = o
	}
	target := *original.URL
	target.RawQuery = withoutAuth(target.RawQuery)
	header := c.header
	if header == nil {
		header = r.Header.Clone()
	}
	for _, name := range []string{attemptHeader, "Connection", "Content-Length", "Expect", "Keep-Alive", "Te", "Trailer", "Transfer-Encoding", "Upgrade"} {
		header.Del(name)
	}
	return outbox.Callback{
		Command: c.query.CallbackCommand, SDKAppID: c.app.id, GroupID: c.event.GroupID, MsgSeqs: c.event.MsgSeqs,
		Guard: h.Name, Key: c.event.ContentKey(), Signed: c.verified, Received: c.start.UTC(),
		Server: h.server.Name(), Method: r.Method, Host: r.Host, URI: target.RequestURI(), Proto: r.Proto, TLS: r.TLS != nil,
		RemoteAddr: r.RemoteAddr, Header: header, Body: string(c.body.bytes),
	}
}

// redeliver offers a stored callback to the backend, by sending it through the
// site once more.
func (h *Handler) redeliver(ctx context.Context, d outbox.Delivery) error {
	err := h.offer(ctx, d)
	outcome := "delivered"
	if err != nil {
		outcome = "failed"
	}
	deliveryAttemptsTotal.WithLabelValues(commandLabel(d.Command), outcome).Inc()
	return err
}

func (h *Handler) offer(ctx context.Context, d outbox.Delivery) error {
	r, err := h.request(ctx, d)
	if err != nil {
		return err
	}
	answer := &heldAnswer{header: make(http.Header)}
	err = h.attempt(func() error {
		h.server.ServeHTTP(answer, r)
		return answer.refusal()
	})
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("no answer in time: %w", ctx.Err())
	}
	return err
}

// request makes the request of a stored callback again, with a fresh Sign if it
// had one.
func (h *Handler) request(ctx context.Context, d outbox.Delivery) (*http.Request, error) {
	a := h.apps[d.SDKAppID]
	if a == nil {
		return nil, fmt.Errorf("app %s is not in this guard's configuration any more", d.SDKAppID)
	}
	uri := d.URI
	if d.Signed && a.verifier != nil {
		requestTime := strconv.FormatInt(time.Now().Unix(), 10)
		auth := url.Values{"RequestTime": {requestTime}, "Sign": {callback.Sign(a.token, requestTime)}}
		uri += separator(uri) + auth.Encode()
	}
	target, err := url.ParseRequestURI(uri) // as the server did
	if err != nil {
		return nil, errors.New("the stored URI is not one") // the error would show the Sign
	}
	ctx = context.WithValue(ctx, deliveryCtxKey, h.callOf(target, a, d))
	r, err := http.NewRequestWithContext(ctx, d.Method, "/", strings.NewReader(d.Body)) // sets GetBody, which deliveryOf relies on
	if err != nil {
		return nil, errors.New("the stored request is not one")
	}
	if d.Header != nil {
		r.Header = http.Header(d.Header).Clone()
	}
	r.Header.Set("Content-Length", strconv.Itoa(len(d.Body)))
	r.Header.Set(attemptHeader, strconv.Itoa(d.Attempt))
	// An answer that is to be looked into must not be compressed.
	r.Header.Set("Accept-Encoding", "identity")
	r.URL, r.RequestURI, r.Host, r.RemoteAddr = target, uri, d.Host, d.RemoteAddr
	if major, minor, ok := http.ParseHTTPVersion(d.Proto); ok {
		r.Proto, r.ProtoMajor, r.ProtoMinor = d.Proto, major, minor
	}
	if d.TLS {
		r.TLS = &tls.ConnectionState{HandshakeComplete: true, ServerName: hostOf(d.Host)}
	}
	return r, nil
}

// callOf returns what the guard knew of the callback when it judged it, for the
// placeholders and logs of its delivery.
func (h *Handler) callOf(target *url.URL, a *app, d outbox.Delivery) *call {
	c := &call{start: time.Now(), app: a, verified: d.Signed, action: actionDeliver}
	// It was good when it was stored; what a newer version would say of it does not
	// matter any more.
	c.query, _ = callback.ParseQuery(target.RawQuery)
	c.event, _ = callback.Inspect([]byte(d.Body), d.Command)
	return c
}

func hostOf(hostport string) string {
	if host, _, err := net.SplitHostPort(hostport); err == nil {
		return host
	}
	return hostport
}

func separator(uri string) string {
	if strings.Contains(uri, "?") {
		return "&"
	}
	return "?"
}

// deliveryOf returns the call that a request delivers, nil if it is no delivery.
// It was judged when it came.
func (h *Handler) deliveryOf(r *http.Request) *call {
	// A whole context takes long to look through for what is not there. A guard that
	// stores nothing gets deliveries only of another one in the same route, and those
	// have a GetBody (see request), as no request has that a server read.
	if h.delivery == nil && r.GetBody == nil {
		return nil
	}
	c, _ := r.Context().Value(deliveryCtxKey).(*call)
	return c
}

// passOn hands a delivery to the next handler as the callback would have been.
func (h *Handler) passOn(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, c *call) error {
	h.show(r, c)
	if h.StripAuth {
		stripAuth(r)
	}
	return next.ServeHTTP(w, r)
}
