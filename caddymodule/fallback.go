// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// Fallback is the answer if the backend does not give a valid one, which is HTTP 200 with
// a JSON object.
type Fallback struct {
	// The verdict: `allow` or `forbid` for before-callbacks; `deliver` for
	// after-callbacks, which stores the callback and delivers it in the background.
	Verdict string `json:"verdict,omitempty"`

	// The ErrorCode of `forbid`, as in a rule.
	Code int `json:"code,omitempty"`

	// The ErrorInfo of `forbid`, as in a rule.
	Info string `json:"info,omitempty"`
}

const (
	verdictNone   = "none"
	verdictAllow  = "allow"
	verdictForbid = "forbid"
	// verdictDeliver stores after-callbacks, which have no actual verdict.
	verdictDeliver = "deliver"
)

// verdicts are the valid verdicts, in the order of the documentation.
var verdicts = []string{verdictNone, verdictAllow, verdictForbid, verdictDeliver}

func (r *Rule) unmarshalFallback(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	switch {
	case len(args) == 0 || !slices.Contains(verdicts, args[0]):
		return d.Errf("fallback %q: want one of %v", strings.Join(args, " "), verdicts)
	case args[0] == verdictForbid:
		r.Fallback = &Fallback{Verdict: verdictForbid}
		return codeAndInfo(d, "fallback forbid", args[1:], &r.Fallback.Code, &r.Fallback.Info)
	case len(args) > 1:
		return d.Errf("fallback %s takes no arguments, but got %q", args[0], args[1])
	case args[0] == verdictNone:
		r.Fallback = nil
	default:
		r.Fallback = &Fallback{Verdict: args[0]}
	}
	return nil
}

// checkFallback rejects an invalid fallback or deadline.
func (r Rule) checkFallback(earlier []Rule) error {
	f := r.Fallback
	switch {
	case r.Deadline < 0:
		return errors.New("deadline must be positive")
	case r.Deadline != 0 && f == nil:
		return errors.New("deadline has no effect without a fallback: write fallback allow, forbid or deliver as well")
	case f == nil:
		return nil
	case f.Verdict == verdictForbid:
		return r.checkForbid(earlier, "fallback forbid", f.Code)
	case !slices.Contains(verdicts, f.Verdict):
		return fmt.Errorf("fallback is %q: want allow, forbid or deliver", f.Verdict)
	case f.Code != 0 || f.Info != "":
		return fmt.Errorf("fallback %s takes no code and no info", f.Verdict)
	case f.Verdict == verdictDeliver:
		return r.checkAfterOnly(earlier, "fallback deliver")
	case f.Verdict == verdictAllow:
		return r.checkBeforeOnly("fallback allow")
	}
	return nil
}

// returnGrace is how long a handler may take to return after the deadline. If it takes
// longer, the fallback is answered while the handler is running, and the connection is
// closed.
const returnGrace = 10 * time.Millisecond

// forwardOrFallback forwards the callback, and uses the rule's fallback if there is no
// valid answer.
func (h *Handler) forwardOrFallback(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, c *call) error {
	if c.rule.Fallback.Verdict == verdictDeliver {
		c.header = r.Header.Clone()
	}
	h.tryForward(w, r, next, c, (*HeldAnswer).checkValid, func(err error) {
		c.verdict = c.rule.Fallback
		h.logFallback(c, err)
		h.fallBack(w, r, c)
	})
	return nil
}

// tryForward forwards the callback. It passes on the answer if it is in time and check
// returns nil for it. Otherwise, it calls answerInstead, soon after the rule's deadline
// at the latest, even if the next handler is still running.
func (h *Handler) tryForward(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, c *call,
	check func(*HeldAnswer) error, answerInstead func(error),
) {
	deadline := c.start.Add(c.rule.deadline())
	ctx, cancel := context.WithDeadline(r.Context(), deadline)
	defer cancel()
	answer := holdAnswer(w)
	defer answer.forget()
	// The answer can only be checked if it is not compressed.
	r.Header.Set("Accept-Encoding", "identity")

	// Whichever goroutine sets taken writes the answer; the other one must not use w.
	var taken atomic.Bool
	answered := make(chan struct{})
	timer := time.AfterFunc(time.Until(deadline), func() {
		time.Sleep(returnGrace)
		if taken.CompareAndSwap(false, true) {
			defer close(answered)
			_ = Recover(h.logger, func() error { return answerOverdue(w, r, answerInstead) })
		}
	})
	err := Recover(h.logger, func() error { return next.ServeHTTP(answer, r.WithContext(ctx)) })
	timer.Stop()
	if !taken.CompareAndSwap(false, true) {
		<-answered
		return
	}
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded): // even if there is an answer
		err = ctx.Err()
	case err == nil:
		err = check(answer)
	}
	if err != nil {
		answerInstead(err)
		return
	}
	answer.release(w)
}

// answerOverdue answers while the next handler is still running. Until it returns, the
// server cannot serve another request on an HTTP/1.1 connection.
func answerOverdue(w http.ResponseWriter, r *http.Request, answerInstead func(error)) error {
	if r.ProtoMajor == 1 {
		w.Header().Set("Connection", "close") // the next request must not wait for this one
	}
	answerInstead(context.DeadlineExceeded)
	return http.NewResponseController(w).Flush()
}

// logFallback logs whose callback is answered in the backend's place, so that an operator
// can look at what has passed unjudged.
func (h *Handler) logFallback(c *call, err error) {
	h.logger.Warn("no valid answer from backend; using fallback",
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

// fallBack answers the rule's fallback, and counts it.
func (h *Handler) fallBack(w http.ResponseWriter, r *http.Request, c *call) {
	countFallback(c)
	if span := trace.SpanFromContext(r.Context()); span.IsRecording() {
		span.SetAttributes(attribute.String("tim_callback.verdict", c.verdictName()))
	}
	switch c.verdict.Verdict {
	case verdictForbid:
		_ = h.forbid(w, r, nil, c)
	case verdictDeliver:
		if err := h.store(r, c); err != nil {
			h.unavailable(w, c, err)
			return
		}
		fallthrough
	default:
		_ = h.ack(w, r, nil, c)
	}
}
