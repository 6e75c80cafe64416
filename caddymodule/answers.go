// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/timguard/timguard/caddymodule/callback"
	"github.com/timguard/timguard/caddymodule/internal/answer"
)

// answer writes an answer of the guard itself.
func (c *call) answer(w http.ResponseWriter, status int, text []byte) {
	if c.closes {
		w.Header().Set("Connection", "close")
	}
	answer.Write(w, status, text)
}

var okAnswer = callback.OK().JSON()

// answerOK acknowledges an after-callback and allows a before-callback.
func (c *call) answerOK(w http.ResponseWriter) error {
	c.answer(w, http.StatusOK, okAnswer)
	return nil
}

// ack stores the callback for the rule's consumers and answers OK. If storing fails, it
// refuses the callback instead, so that Tencent repeats it if retries are enabled in the
// console.
func (h *Handler) ack(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler, c *call) error {
	if len(c.rule.Copy) == 0 {
		return c.answerOK(w)
	}
	h.prepare(r, c)
	if h.copy(r, c) == nil {
		return c.answerOK(w)
	}
	c.answer(w, http.StatusServiceUnavailable, callback.Fail("the callback could not be stored").JSON())
	return nil
}

// forbid answers a verdict that forbids the action of a before-callback.
func (*Handler) forbid(w http.ResponseWriter, _ *http.Request, _ caddyhttp.Handler, c *call) error {
	return c.answerForbid(w)
}

func (c *call) answerForbid(w http.ResponseWriter) error {
	code, info := c.rule.Code, c.rule.Info
	if c.rule.Fallback != nil {
		code, info = c.rule.Fallback.Code, c.rule.Fallback.Info
	}
	c.answer(w, http.StatusOK, callback.Forbid(c.query.CallbackCommand, c.body.Bytes(), code, info).JSON())
	return nil
}

// reject refuses the callback with the HTTP status of the reason, by a FAIL answer or by
// an error for the error routes of the site.
func (h *Handler) reject(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler, c *call) error {
	switch c.rejection.Reason {
	case callback.ReasonMethod:
		w.Header().Set("Allow", http.MethodPost)
	case callback.ReasonEncoding:
		w.Header().Set("Accept-Encoding", "identity")
	}
	if h.Rejections == rejectionsHandleErrors {
		c.body.Restore(r)
		if c.closes {
			w.Header().Set("Connection", "close")
		}
		return caddyhttp.Error(c.statusCode(), c.rejection)
	}
	c.answer(w, c.statusCode(), callback.Fail(c.rejection.Error()).JSON())
	return nil
}

// statuses maps reasons to HTTP statuses.
var statuses = map[callback.Reason]int{
	callback.ReasonMethod:   http.StatusMethodNotAllowed,
	callback.ReasonQuery:    http.StatusBadRequest,
	callback.ReasonApp:      http.StatusForbidden,
	callback.ReasonCommand:  http.StatusForbidden,
	callback.ReasonUnsigned: http.StatusUnauthorized,
	callback.ReasonStale:    http.StatusUnauthorized,
	callback.ReasonSign:     http.StatusUnauthorized,
	callback.ReasonEncoding: http.StatusUnsupportedMediaType,
	callback.ReasonTooLarge: http.StatusRequestEntityTooLarge,
	callback.ReasonBody:     http.StatusBadRequest,
	callback.ReasonJSON:     http.StatusBadRequest,
	callback.ReasonPayload:  http.StatusBadRequest,
	callback.ReasonMismatch: http.StatusBadRequest,
}

// statusCode returns the HTTP status of the call's rejection.
func (c *call) statusCode() int {
	if c.rejection.Reason == callback.ReasonBody && isTimeout(c.body.Err()) {
		return http.StatusRequestTimeout
	}
	return statuses[c.rejection.Reason]
}

// provisionConsoleCheck sets up the verifier with the tokens of all apps if the console
// check is on.
func (h *Handler) provisionConsoleCheck(tokens []string) (err error) {
	if len(tokens) > 0 && (h.ConsoleCheck == nil || *h.ConsoleCheck) {
		h.anyToken, err = callback.NewVerifier(tokens, time.Duration(h.Window), time.Now)
	}
	return err
}
