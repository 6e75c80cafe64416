// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/timguard/timguard/caddymodule/callback"
)

// goodbye is how long a handler has to return once its time is up, before the
// connection is given up with it.
const goodbye = 10 * time.Millisecond

// forwardOrFallback forwards the callback, and answers what the rule's fallback
// says if the backend does not.
func (h *Handler) forwardOrFallback(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, c *call) error {
	if c.rule.Fallback.Verdict == verdictDeliver {
		c.header = r.Header.Clone()
	}
	h.tryForward(w, r, next, c, (*heldAnswer).invalid, func(err error) {
		h.logFallback(c, err)
		h.verdict(w, r, c)
	})
	return nil
}

// tryForward forwards the callback and passes the answer on if it is in time and
// fault finds none in it. Else it calls answerInstead, at the rule's deadline at
// the latest, whatever the next handler is doing then.
func (h *Handler) tryForward(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, c *call,
	fault func(*heldAnswer) error, answerInstead func(error),
) {
	ctx, cancel := context.WithDeadline(r.Context(), c.start.Add(c.rule.deadline()))
	defer cancel()
	answer := &heldAnswer{header: w.Header().Clone()}
	done := make(chan struct{})
	var failed error // of the attempt, once it is done
	// An answer that is to be looked into must not be compressed.
	r.Header.Set("Accept-Encoding", "identity")
	go func() {
		defer close(done)
		failed = h.attempt(func() error { return next.ServeHTTP(answer, r.WithContext(ctx)) })
	}()

	var err error
	returned := false
	select {
	case <-done:
		returned = true
		if err = failed; err == nil {
			err = fault(answer)
		}
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if err == nil {
		answer.release(w)
		return
	}
	if !returned {
		returned = waitBriefly(done)
	}
	if !returned && r.ProtoMajor == 1 {
		w.Header().Set("Connection", "close") // the next call must not wait behind this one
	}
	answerInstead(err)
	if !returned {
		_ = http.NewResponseController(w).Flush()
		<-done // it uses the request, which is the server's again when we return
	}
}

func waitBriefly(done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	case <-time.After(goodbye):
		return false
	}
}

// attempt calls handlers. A panic in one, which the server would end the
// connection for, counts as no answer.
func (h *Handler) attempt(serve func() error) (err error) {
	defer func() {
		switch v := recover(); v {
		case nil:
		case http.ErrAbortHandler:
			err = errors.New("the answer broke off")
		default: // the value may hold something of the payload
			h.logger.Error("a handler panicked", zap.String("type", fmt.Sprintf("%T", v)), zap.Stack("stack"))
			err = errors.New("a handler panicked")
		}
	}()
	return serve()
}

func (h *Handler) logFallback(c *call, err error) {
	h.logger.Warn("no valid answer of the backend: fell back",
		zap.String("guard", h.Name),
		zap.String("command", c.query.CallbackCommand),
		zap.String("verdict", c.rule.Fallback.Verdict),
		zap.Duration("after", time.Since(c.start)),
		zap.Error(causeOf(err)))
}

// causeOf leaves out where in Caddy an error was made.
func causeOf(err error) error {
	if he, ok := errors.AsType[caddyhttp.HandlerError](err); ok && he.Err != nil {
		return he.Err
	}
	return err
}

// verdict answers what the rule's fallback says, and counts it.
func (h *Handler) verdict(w http.ResponseWriter, r *http.Request, c *call) {
	f := c.rule.Fallback
	countFallback(c.query.CallbackCommand, f.Verdict)
	switch f.Verdict {
	case verdictForbid:
		h.forbid(w, c, f.Code, f.Info)
		return
	case verdictDeliver:
		if err := h.store(r, c); err != nil {
			h.unavailable(w, c, err)
			return
		}
	}
	writeAnswer(w, http.StatusOK, okAnswer)
}

// forbid answers the verdict "forbidden".
func (h *Handler) forbid(w http.ResponseWriter, c *call, code int, info string) {
	writeAnswer(w, http.StatusOK, callback.Forbid(c.query.CallbackCommand, c.body.bytes, code, info).JSON())
}
