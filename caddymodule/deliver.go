// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"context"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/timguard/timguard/caddymodule/callback"
)

// storeTimeout limits storing a callback, so that there is time to forward it instead
// before Tencent times out.
const storeTimeout = time.Second

// deliver stores the callback for the backend and the rule's consumers, and answers OK. If
// storing fails, it forwards the callback immediately, and if that fails too, it refuses
// it: OK is only answered for callbacks that were stored or accepted by the backend.
func (h *Handler) deliver(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler, c *call) error {
	h.prepare(r, c)
	err := h.store(r.Context(), newStoredRequest(r), c, true, c.rule.Copy)
	if err == nil {
		return c.answerOK(w)
	}
	if len(c.rule.Copy) > 0 {
		countCopyFailure(c)
	}
	h.logger.Error("storing callback failed; forwarding it",
		zap.String("guard", h.Name), zap.String("command", c.shown("command")),
		zap.Strings("consumers", c.rule.Copy), zap.Error(err))
	c.body.Restore(r)
	h.tryForward(w, r, h.Backend.handler, c, h.Backend.CheckAnswer, func(err error) { h.unavailable(w, c, err) })
	return nil
}

// copy stores the callback for the rule's consumers. It logs and counts errors.
func (h *Handler) copy(r *http.Request, c *call) error {
	err := h.store(r.Context(), newStoredRequest(r), c, false, c.rule.Copy)
	if err != nil {
		countCopyFailure(c)
		h.logger.Error("storing callback for consumers failed",
			zap.String("guard", h.Name), zap.String("command", c.shown("command")),
			zap.Strings("consumers", c.rule.Copy), zap.Error(err))
	}
	return err
}

// store stores the callback for the consumers and, if own is true, for the backend.
func (h *Handler) store(ctx context.Context, r StoredRequest, c *call, own bool, consumers []string) error {
	// The callback must not be lost if the caller disconnects.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	id := c.eventID()
	return h.deliveries.Store(ctx, &StoredCallback{
		Guard: h.guard, Request: r, Body: c.body.Bytes(),
		SdkAppID: c.app.id, Event: c.event, EventID: id, RandomID: c.randomID, Signed: c.verified, Received: c.start,
		Own: own, Consumers: consumers,
	})
}

// unavailable refuses a callback that could neither be stored nor forwarded, so that
// Tencent repeats it if retries are enabled in the console.
func (h *Handler) unavailable(w http.ResponseWriter, c *call, err error) {
	h.logger.Error("callback could neither be stored nor forwarded; lost unless Tencent repeats it",
		zap.String("guard", h.Name), zap.String("command", c.shown("command")), zap.Error(causeOf(err)))
	c.answer(w, http.StatusServiceUnavailable, callback.Fail("the callback could neither be stored nor delivered").JSON())
}
