// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/timguard/timguard/caddymodule/callback"
)

const actionDeliver = "deliver"

func init() {
	registerAction(actionDeliver, action{
		options: []string{"copy"},
		check:   func(r Rule, earlier []Rule) error { return r.checkAfterOnly(earlier, "deliver") },
		serve:   (*Handler).deliver,
	})
}

// storeWithin is how long a caller waits for the store, before the callback is
// forwarded at once while Tencent still waits.
const storeWithin = time.Second

// The headers of a delivery tell the backend that the callback was stored, how
// often it has been offered, and to whom.
const (
	attemptHeader  = "Tim-Delivery-Attempt"
	consumerHeader = "Tim-Delivery-Consumer"
)

// deliver stores the callback and answers OK. If it cannot be stored, it is
// forwarded at once, and if that fails too, refused: there is no OK that nothing
// stands behind. What was stored and comes back as a delivery is passed on, whichever
// action stored it.
func (h *Handler) deliver(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, c *call) error {
	if c.attempt != nil {
		return h.passOn(w, r, next, c)
	}
	err := h.store(r, c)
	if err == nil {
		return h.ack(w, nil, nil, c)
	}
	if len(c.rule.Copy) > 0 {
		countCopyFailure(c)
	}
	h.logger.Error("storing a callback failed: forwarding it at once",
		zap.String("guard", h.Name), zap.String("command", c.value("command")),
		zap.Strings("consumers", c.rule.Copy), zap.Error(err))
	h.prepare(r, c)
	h.tryForward(w, r, next, c, (*HeldAnswer).CheckAccepted, func(err error) { h.unavailable(w, c, err) })
	return nil
}

// store puts the callback on stable storage for the backend and, unless they have
// it, for the rule's consumers.
func (h *Handler) store(r *http.Request, c *call) error {
	if c.copied {
		return h.storeFor(r, c, true, nil)
	}
	return h.storeFor(r, c, true, c.rule.Copy)
}

// storeFor puts the callback on stable storage for the guard's own backend, if it
// is asked to, and for the consumers.
func (h *Handler) storeFor(r *http.Request, c *call, own bool, consumers []string) error {
	// The caller may have gone; its callback must not go with it.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), storeWithin)
	defer cancel()
	header := c.header
	if header == nil {
		header = r.Header
	}
	return h.deliveries.Store(ctx, &StoredCallback{
		Guard: h.Name, Request: r, Header: header, Body: c.body.bytes,
		SdkAppID: c.app.id, Event: c.event, Signed: c.verified, Received: c.start,
		Own: own, Consumers: consumers,
	})
}

// unavailable refuses a callback that could neither be stored nor delivered, so
// that Tencent offers it again if retries are switched on.
func (h *Handler) unavailable(w http.ResponseWriter, c *call, err error) {
	h.logger.Error("a callback could neither be stored nor forwarded: it is lost unless Tencent repeats it",
		zap.String("guard", h.Name), zap.String("command", c.value("command")), zap.Error(causeOf(err)))
	c.answer(w, http.StatusServiceUnavailable, callback.Fail("the callback could neither be stored nor delivered").JSON())
}

// passOn hands a delivery to the next handler as the callback would have been, and
// notes that it did, and what came of it.
func (h *Handler) passOn(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, c *call) error {
	h.prepare(r, c)
	r.Header.Set(attemptHeader, strconv.Itoa(c.attempt.Number))
	if c.attempt.Consumer != "" {
		r.Header.Set(consumerHeader, c.attempt.Consumer)
	}
	c.attempt.Passed = true
	c.attempt.Err = next.ServeHTTP(w, r)
	return c.attempt.Err
}
