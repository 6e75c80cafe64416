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

// storeTimeout limits storing a callback, so that there is time to forward it instead
// before Tencent times out.
const storeTimeout = time.Second

// Headers of deliveries, with the number of the attempt and the consumer.
const (
	attemptHeader  = "Tim-Delivery-Attempt"
	consumerHeader = "Tim-Delivery-Consumer"
)

// deliver stores the callback and answers OK. If storing fails, it forwards the callback
// immediately, and if that fails too, it refuses it: OK is only answered for callbacks
// that were stored or accepted by the backend. Deliveries, whichever action stored them,
// are passed on to the next handler.
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
	h.logger.Error("storing callback failed; forwarding it",
		zap.String("guard", h.Name), zap.String("command", c.value("command")),
		zap.Strings("consumers", c.rule.Copy), zap.Error(err))
	h.prepare(r, c)
	h.tryForward(w, r, next, c, (*HeldAnswer).CheckAccepted, func(err error) { h.unavailable(w, c, err) })
	return nil
}

// store stores the callback for the backend and, unless that has been done, for the
// rule's consumers.
func (h *Handler) store(r *http.Request, c *call) error {
	if c.copied {
		return h.storeFor(r, c, true, nil)
	}
	return h.storeFor(r, c, true, c.rule.Copy)
}

// storeFor stores the callback for the consumers and, if own is true, for the guard's own
// backend.
func (h *Handler) storeFor(r *http.Request, c *call, own bool, consumers []string) error {
	// The callback must not be lost if the caller disconnects.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), storeTimeout)
	defer cancel()
	header := c.header
	if header == nil {
		header = r.Header
	}
	id := c.eventID()
	return h.deliveries.Store(ctx, &StoredCallback{
		Guard: h.Name, Request: r, Header: header, Body: c.body.bytes,
		SdkAppID: c.app.id, Event: c.event, EventID: id, RandomID: c.randomID, Signed: c.verified, Received: c.start,
		Own: own, Consumers: consumers,
	})
}

// unavailable refuses a callback that could neither be stored nor forwarded, so that
// Tencent repeats it if retries are enabled in the console.
func (h *Handler) unavailable(w http.ResponseWriter, c *call, err error) {
	h.logger.Error("callback could neither be stored nor forwarded; lost unless Tencent repeats it",
		zap.String("guard", h.Name), zap.String("command", c.value("command")), zap.Error(causeOf(err)))
	c.answer(w, http.StatusServiceUnavailable, callback.Fail("the callback could neither be stored nor delivered").JSON())
}

// passOn invokes the next handler with a delivery, like forward with a callback, and
// records that and the error in the attempt.
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
