// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"errors"
	"net/http"
	"time"

	"github.com/timguard/timguard/caddymodule/callback"
)

// call is what the guard knows of one request, and what it is going to do with it.
type call struct {
	start     time.Time
	judged    time.Duration // how long it took to judge it
	query     callback.Query
	app       *App // nil if SdkAppid is not one of ours
	verified  bool // Sign and RequestTime are good
	token     int  // position of the token that made the Sign, from 1; 0 if none did
	skew      time.Duration
	rule      *Rule // nil if no rule lets the command in
	body      body
	event     callback.Event
	rejection *callback.Rejection // nil if the callback is good
	action    string
	attempt   *Attempt    // nil if the request is no delivery of this guard's
	verdict   *Fallback   // of a rejected callback that gets one all the same
	header    http.Header // as it was, for storing while an attempt to forward may still change it
	closes    bool        // the connection, if the guard answers: the rest of the body is not wanted
}

// judge checks a request and decides what is done with it. It writes nothing, and
// reads the body only if everything before it is good. A delivery of the guard's own
// was judged when it came.
func (h *Handler) judge(r *http.Request) *call {
	c := &call{start: time.Now()}
	if c.attempt = h.attemptOf(r); c.attempt != nil {
		h.recognize(r.URL.RawQuery, c)
		return c
	}
	err := h.checkRequest(r, c)
	c.rejection, _ = errors.AsType[*callback.Rejection](err) // every error of package callback is one
	switch {
	case h.signsConsoleCheck(c) && c.body.isBlank(r):
		c.action, c.rejection = actionConsoleCheck, nil
	case c.rejection != nil:
		c.action, c.verdict = h.actionOfRejected(c)
	case h.Mode == modeReport:
		c.action = actionForward
	default:
		c.action = c.rule.Action
	}
	// Without closing, the server waits for the body before it answers, and the
	// client for a 100 Continue before it sends it.
	c.closes = r.ProtoMajor == 1 && !c.body.whole && (c.body.touched() || r.Header.Get("Expect") != "")
	c.judged = time.Since(c.start)
	return c
}

// recognize finds out what the guard knew of a delivery when it judged it. What a
// newer version would say of it does not matter any more.
func (h *Handler) recognize(rawQuery string, c *call) {
	c.action, c.verified = actionDeliver, c.attempt.Signed
	c.query, _ = callback.ParseQuery(rawQuery)
	c.app = h.apps[c.query.SdkAppID]
	c.event, _ = callback.Inspect(c.attempt.Body, c.attempt.Command)
}

// checkRequest makes the checks in their order, the cheap ones first.
func (h *Handler) checkRequest(r *http.Request, c *call) (err error) {
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
	if c.rule, err = h.ruleOf(c.query.CallbackCommand); err != nil {
		return err
	}
	if err = c.body.read(r, h.MaxBody); err != nil {
		return err
	}
	if h.Mode == modeReport || c.rule.forwards() {
		c.body.keep()
	}
	c.event, err = callback.Inspect(c.body.bytes, c.query.CallbackCommand)
	return err
}

func foreignApp(q callback.Query) error {
	detail := "is not an app of this guard"
	if q.SdkAppID == "" {
		detail = "the parameter is missing"
	}
	return &callback.Rejection{Reason: callback.ReasonApp, Path: "SdkAppid", Detail: detail}
}

// actionOfRejected is what is done with a callback that is rejected. A 4xx to a
// verified before-callback would mean "allowed" to Tencent, so that one gets its
// rule's verdict, if the rule has one.
func (h *Handler) actionOfRejected(c *call) (string, *Fallback) {
	switch {
	case h.Mode == modeReport:
		return actionForward, nil
	case !c.verified || c.rule == nil || c.class() != callback.Before:
		return actionReject, nil
	case c.rule.Action == actionForbid:
		return actionForbid, nil
	case c.rule.Fallback == nil:
		return actionReject, nil
	case c.rule.Fallback.Verdict == verdictAllow:
		return actionAck, c.rule.Fallback
	default:
		return actionForbid, c.rule.Fallback
	}
}

// class is that of the command in the query, empty without one.
func (c *call) class() callback.Class {
	if c.query.CallbackCommand == "" {
		return ""
	}
	return callback.ClassOf(c.query.CallbackCommand)
}
