// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"bytes"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/timguard/timguard/caddymodule/callback"
)

// call is what the guard knows of one request.
type call struct {
	start     time.Time
	inspected time.Duration // how long it took to judge it
	query     callback.Query
	app       *app // nil if SdkAppid is not one of ours
	verified  bool // Sign and RequestTime are good
	token     int  // position of the token that made the Sign, from 1; 0 if none did
	skew      time.Duration
	rule      *Rule // nil if no rule lets the command in
	body      body
	event     callback.Event
	action    string
	rejection *callback.Rejection // nil if the callback is good
	header    http.Header         // as it was, for storing while an attempt to forward may still change it
}

// inspect judges a request and finds its rule. It writes nothing, and reads the
// body only if everything before it is good.
func (h *Handler) inspect(r *http.Request) *call {
	c := &call{start: time.Now()}
	err := h.judge(r, c)
	switch {
	case h.isConsoleCheck(r, c):
		c.action = actionConsoleCheck
	case h.Mode == modeReport:
		c.refuse(err)
		c.action = actionForward
	case err != nil:
		c.refuse(err)
		c.action = c.actionOfRefused()
	default:
		c.action = c.rule.Action
	}
	c.inspected = time.Since(c.start)
	return c
}

// judge makes the checks in their order, the cheap ones first.
func (h *Handler) judge(r *http.Request, c *call) (err error) {
	if r.Method != http.MethodPost {
		return &callback.Rejection{Reason: callback.ReasonMethod, Detail: "want POST"}
	}
	if c.query, err = callback.ParseQuery(r.URL.RawQuery); err != nil {
		return err
	}
	if c.app = h.apps[c.query.SdkAppID]; c.app == nil {
		return foreignApp(c.query)
	}
	if c.app.verifier != nil {
		if c.token, c.skew, err = c.app.verifier.Verify(c.query); err != nil {
			return err
		}
		c.verified = true
	}
	if c.rule, err = h.rules.find(c.query.CallbackCommand); err != nil {
		return err
	}
	if err = c.body.read(r, h.MaxBody); err != nil {
		return err
	}
	c.event, err = callback.Inspect(c.body.bytes, c.query.CallbackCommand)
	return err
}

// actionOfRefused is what is done with a callback that is refused. A 4xx to a
// verified before-callback would mean "allowed" to Tencent, so that one gets its
// rule's verdict, if the rule has one.
func (c *call) actionOfRefused() string {
	switch {
	case !c.verified || c.rule == nil || c.class() != callback.Before:
		return actionReject
	case c.rule.Action == actionForbid:
		return actionForbid
	case c.rule.Fallback == nil:
		return actionReject
	case c.rule.Fallback.Verdict == verdictAllow:
		return actionAck
	default:
		return actionForbid
	}
}

// fellBack reports whether the callback is refused and gets its rule's fallback.
func (c *call) fellBack() bool {
	return c.rejection != nil && c.rule != nil && c.rule.Fallback != nil && c.action != actionReject
}

func foreignApp(q callback.Query) error {
	detail := "is not an app of this guard"
	if q.SdkAppID == "" {
		detail = "the parameter is missing"
	}
	return &callback.Rejection{Reason: callback.ReasonApp, Path: "SdkAppid", Detail: detail}
}

// isConsoleCheck reports whether the request, which judge has seen, is the
// console's check of the URL. The console may leave out the parameters of a
// callback, so that only the Sign tells, of any of the apps.
func (h *Handler) isConsoleCheck(r *http.Request, c *call) bool {
	if !h.consoleCheck || r.Method != http.MethodPost {
		return false
	}
	if !c.verified {
		if _, _, err := h.anyToken.Verify(c.query); err != nil {
			return false
		}
	}
	if !c.body.peek(r) {
		return false
	}
	return isBlank(c.body.bytes)
}

// isBlank reports whether the body is empty or {}.
func isBlank(body []byte) bool {
	inside, ok := bytes.CutPrefix(bytes.TrimSpace(body), []byte("{"))
	if !ok {
		return len(bytes.TrimSpace(body)) == 0
	}
	inside, ok = bytes.CutSuffix(inside, []byte("}"))
	return ok && len(bytes.TrimSpace(inside)) == 0
}

// refuse keeps why the callback is refused, if it is.
func (c *call) refuse(err error) {
	c.rejection, _ = errors.AsType[*callback.Rejection](err) // every error of package callback is one
}

// class is that of the command in the query, empty without one.
func (c *call) class() callback.Class {
	if c.query.CallbackCommand == "" {
		return ""
	}
	return callback.ClassOf(c.query.CallbackCommand)
}

func isIdentity(encodings []string) bool {
	for _, e := range encodings {
		if e != "" && !strings.EqualFold(e, "identity") {
			return false
		}
	}
	return true
}
