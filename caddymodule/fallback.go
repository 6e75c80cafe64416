// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"time"

	"github.com/go-json-experiment/json/jsontext"
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
	return h.tryForward(w, r, next, c, func(err error) {
		h.logFallback(c, err)
		h.verdict(w, r, c)
	})
}

// tryForward forwards the callback and passes the answer on if it is valid and in
// time. Otherwise it calls otherwise, which answers, at the rule's deadline at the
// latest, whatever the next handler is doing then.
func (h *Handler) tryForward(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, c *call, otherwise func(error)) error {
	ctx, cancel := context.WithDeadline(r.Context(), c.start.Add(c.rule.deadline()))
	defer cancel()
	if c.rule.stores() {
		c.header = r.Header.Clone()
	}
	answer := &heldAnswer{header: w.Header().Clone()}
	done := make(chan struct{})
	var failed error // of the attempt, once it is done
	// An answer that is to be looked into must not be compressed.
	r.Header.Set("Accept-Encoding", "identity")
	go func() {
		defer close(done)
		failed = h.attempt(answer, r.WithContext(ctx), next)
	}()

	var err error
	returned := false
	select {
	case <-done:
		returned = true
		if err = failed; err == nil {
			err = answer.fault()
		}
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if err == nil {
		answer.release(w)
		return nil
	}
	if !returned {
		returned = waitBriefly(done)
	}
	if !returned && r.ProtoMajor == 1 {
		w.Header().Set("Connection", "close") // the next call must not wait behind this one
	}
	otherwise(err)
	if !returned {
		_ = http.NewResponseController(w).Flush()
		<-done // it uses the request, which is the server's again when we return
	}
	return nil
}

func waitBriefly(done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	case <-time.After(goodbye):
		return false
	}
}

// attempt calls the next handler. A panic in it, which the server would end the
// connection for, counts as no answer.
func (h *Handler) attempt(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) (err error) {
	defer func() {
		switch v := recover(); v {
		case nil:
		case http.ErrAbortHandler:
			err = errors.New("the answer broke off")
		default: // the value may hold something of the payload
			h.logger.Error("the next handler panicked", zap.String("type", fmt.Sprintf("%T", v)), zap.Stack("stack"))
			err = errors.New("the next handler panicked")
		}
	}()
	return next.ServeHTTP(w, r)
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

// maxAnswer bounds what is held of an answer. Tencent's largest replaces a
// message's body, which is at most 12 kB.
const maxAnswer = 1 << 20

// heldAnswer is an answer that is kept until it is known to be valid.
type heldAnswer struct {
	header http.Header
	status int
	body   bytes.Buffer
	err    error // of a Write, which the handler may not have looked at
}

func (a *heldAnswer) Header() http.Header { return a.header }

func (a *heldAnswer) WriteHeader(status int) {
	if a.status == 0 && status >= http.StatusOK { // the first one that is final
		a.status = status
	}
}

func (a *heldAnswer) Write(p []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	if a.body.Len()+len(p) > maxAnswer {
		a.err = errors.New("the answer is too long for one in Tencent's form")
	}
	if a.err != nil {
		return 0, a.err
	}
	return a.body.Write(p)
}

// Flush does nothing: the answer is held. Proxies call it.
func (*heldAnswer) Flush() {}

// fault says why the answer is not valid.
func (a *heldAnswer) fault() error {
	value := jsontext.Value(a.body.Bytes())
	switch {
	case a.err != nil:
		return a.err
	case a.status == 0:
		return errors.New("no handler answered")
	case a.status != http.StatusOK:
		return fmt.Errorf("the answer has the status %d", a.status)
	case value.Kind() != '{' || !value.IsValid(jsontext.AllowDuplicateNames(true)):
		return errors.New("the answer is not a JSON object")
	}
	return nil
}

// release passes the answer on.
func (a *heldAnswer) release(w http.ResponseWriter) {
	clear(w.Header())
	maps.Copy(w.Header(), a.header)
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body.Bytes()) // a caller that has gone needs no answer
}
