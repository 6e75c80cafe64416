// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/timguard/timguard/caddymodule/callback"
	"github.com/timguard/timguard/caddymodule/internal/answer"
)

// forward passes the callback on to the backend, even if storing it for the rule's
// consumers fails. In report mode, the options of the rule have no effect.
func (h *Handler) forward(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, c *call) error {
	c.body.Restore(r)
	h.prepare(r, c)
	if h.Backend != nil {
		next = h.Backend.handler
	}
	if h.Mode == modeReport {
		return next.ServeHTTP(w, r)
	}
	if len(c.rule.Copy) > 0 {
		_ = h.copy(r, c)
	}
	if c.rule.Fallback == nil {
		return next.ServeHTTP(w, r)
	}
	h.forwardOrFallback(w, r, next, c)
	return nil
}

// forwardOrFallback forwards the callback, and uses the rule's fallback if there is no
// good answer.
func (h *Handler) forwardOrFallback(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, c *call) {
	if c.rule.Fallback.Verdict != verdictDeliver {
		h.tryForward(w, r, next, c, checkVerdict, func(err error) {
			h.recordFallback(r, c, err)
			if c.rule.Fallback.Verdict == verdictForbid {
				_ = c.answerForbid(w)
				return
			}
			_ = c.answerOK(w)
		})
		return
	}
	h.forwardOrDeliver(w, r, next, c)
}

// forwardOrDeliver forwards the callback, or stores it if the backend does not accept it.
func (h *Handler) forwardOrDeliver(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, c *call) {
	// Taken now, because the handlers may change the request, even after the deadline.
	request := newStoredRequest(r)
	request.Header = request.Header.Clone()
	if h.mustWait(r, c) && h.store(r.Context(), request, c, true, nil) == nil {
		h.recordFallback(r, c, errWaits)
		_ = c.answerOK(w)
		return
	}
	ctx := r.Context()
	h.tryForward(w, r, next, c, h.Backend.CheckAnswer, func(err error) {
		if failed := h.store(ctx, request, c, true, nil); failed != nil {
			h.unavailable(w, c, failed)
			return
		}
		h.recordFallback(r, c, err)
		_ = c.answerOK(w)
	})
}

// mustWait reports whether the callback must be delivered after others that are stored.
func (h *Handler) mustWait(r *http.Request, c *call) bool {
	return h.Backend.Ordered && c.event.Conversation != "" && h.deliveries.Waits(r.Context(), h.guard, c.event.Conversation)
}

var errWaits = errors.New("earlier callbacks of the conversation wait for the backend")

// tryForward forwards the callback. If an answer is in time and check returns nil for it,
// it is passed on, or replaced by OK if Tencent could not read it. Otherwise, tryForward
// calls answerInstead, soon after the rule's deadline at the latest, even if the handler
// is still running.
func (h *Handler) tryForward(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, c *call,
	check func(callback.BackendAnswer) error, answerInstead func(error),
) {
	deadline := c.start.Add(c.rule.within)
	ctx, cancel := context.WithDeadline(r.Context(), deadline)
	defer cancel()
	held := answer.Hold(w.Header().Clone())
	defer held.Free()
	// The answer can only be checked if it is not compressed.
	r.Header.Set("Accept-Encoding", "identity")

	// Whichever goroutine sets taken writes the answer; the other one must not use w.
	var taken atomic.Bool
	answered := make(chan struct{})
	timer := time.AfterFunc(time.Until(deadline), func() {
		time.Sleep(returnGrace)
		if taken.CompareAndSwap(false, true) {
			defer close(answered)
			_ = answer.Recover(h.logger, func() error { return answerOverdue(w, r, answerInstead) })
		}
	})
	err := answer.Recover(h.logger, func() error { return next.ServeHTTP(held, r.WithContext(ctx)) })
	timer.Stop()
	if !taken.CompareAndSwap(false, true) {
		<-answered
		return
	}
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded): // even if there is an answer
		err = ctx.Err()
	case err == nil:
		err = answer.Explain(r, check(held.Answer()))
	}
	switch {
	case err != nil:
		answerInstead(err)
	case checkVerdict(held.Answer()) != nil:
		_ = c.answerOK(w)
	default:
		held.Release(w)
	}
}

// returnGrace is how long a handler may take to return after the deadline. If it takes
// longer, the fallback is answered while the handler is running, and the connection is
// closed.
const returnGrace = 10 * time.Millisecond

// answerOverdue answers while the next handler is still running. Until it returns, the
// server cannot serve another request on an HTTP/1.1 connection.
func answerOverdue(w http.ResponseWriter, r *http.Request, answerInstead func(error)) error {
	if r.ProtoMajor == 1 {
		w.Header().Set("Connection", "close") // the next request must not wait for this one
	}
	answerInstead(context.DeadlineExceeded)
	return http.NewResponseController(w).Flush()
}

// checkVerdict returns an error unless Tencent would read the answer, which must be HTTP
// 200 with a JSON object.
func checkVerdict(a callback.BackendAnswer) error {
	value := jsontext.Value(a.Body)
	switch {
	case len(value) > callback.MaxAnswer:
		return errors.New("the answer is too long")
	case a.Status == 0:
		return errors.New("no handler answered")
	case a.Status != http.StatusOK:
		return fmt.Errorf("the answer has the status %d", a.Status)
	case value.Kind() != '{' || !value.IsValid(jsontext.AllowDuplicateNames(true)):
		return errors.New("the answer is not a JSON object")
	}
	return nil
}

// recordFallback counts a fallback, and logs whose callback is answered in the backend's
// place, so that an operator can look at what has passed unjudged.
func (h *Handler) recordFallback(r *http.Request, c *call, err error) {
	verdict := c.rule.Fallback.Verdict
	c.verdict.Store(&verdict)
	countFallback(c)
	if span := trace.SpanFromContext(r.Context()); span.IsRecording() {
		span.SetAttributes(attribute.String("tim_callback.verdict", verdict))
	}
	h.logger.Warn("no good answer from backend; using fallback",
		zap.String("guard", h.Name),
		zap.Inline(c),
		zap.Duration("after", time.Since(c.start)),
		zap.Error(causeOf(err)))
}

// causeOf returns the cause of a Caddy handler error, without its ID and trace.
func causeOf(err error) error {
	if he, ok := errors.AsType[caddyhttp.HandlerError](err); ok && he.Err != nil {
		return he.Err
	}
	return err
}
