// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/timguard/timguard/caddymodule/callback"
)

// call is the state of one request: the results of the checks, and the action.
type call struct {
	start     time.Time
	judged    time.Duration // the time it took to judge
	query     callback.Query
	app       *App // nil if SdkAppid is not configured
	verified  bool // Sign and RequestTime are valid
	token     int  // position of the token that made the Sign, from 1; 0 if none did
	skew      time.Duration
	rule      *Rule // nil if no rule allows the command
	body      body
	event     callback.Event
	rejection *callback.Rejection // nil if the callback is valid
	action    string

	id       string // of the event; see eventID
	randomID bool
	idOnce   sync.Once

	attempt *Attempt    // nil if the request is not a delivery of this guard
	verdict *Fallback   // the fallback that is answered, if any
	copied  bool        // the callback is stored for the rule's consumers
	header  http.Header // a copy of the original header for the store, if forwarding may modify it
	closes  bool        // close the connection after an answer instead of reading the rest of the body
}

// judge checks a request and chooses the action. It writes nothing, and reads the body
// only if all earlier checks have passed. The guard's own deliveries are not checked
// again.
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
	// Otherwise, the server would wait for the body before it sends the answer, while
	// the client may be waiting for a 100 Continue.
	c.closes = r.ProtoMajor == 1 && !c.body.whole && (c.body.touched() || r.Header.Get("Expect") != "")
	c.judged = time.Since(c.start)
	return c
}

// recognize sets the call for a delivery. It ignores errors, because the callback was
// accepted when it was received, possibly by another version.
func (h *Handler) recognize(rawQuery string, c *call) {
	c.action, c.verified = actionDeliver, c.attempt.Signed
	c.query, _ = callback.ParseQuery(rawQuery)
	c.app = h.apps[c.query.SdkAppID]
	c.event, _ = callback.Inspect(c.attempt.Body, c.attempt.Command)
}

// checkRequest makes the checks in their order, cheap ones first.
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
	if c.event, err = callback.Inspect(c.body.bytes, c.query.CallbackCommand); err != nil {
		return err
	}
	if in := c.event.SdkAppID; in != "" && in != c.query.SdkAppID {
		return &callback.Rejection{Reason: callback.ReasonMismatch, Path: "/SdkAppId", Detail: "is not the SdkAppid of the query"}
	}
	return nil
}

func foreignApp(q callback.Query) error {
	detail := "unknown SdkAppid"
	if q.SdkAppID == "" {
		detail = "the parameter is missing"
	}
	return &callback.Rejection{Reason: callback.ReasonApp, Path: "SdkAppid", Detail: detail}
}

// actionOfRejected returns the action for a rejected callback. To Tencent, a 4xx response
// to a before-callback means "allowed", so a verified one gets the verdict of its rule
// instead, if there is one.
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

// eventID returns the ID of the event of a valid callback, or else "". It is computed when
// it is first needed, because it is a hash of the body.
func (c *call) eventID() string {
	c.idOnce.Do(func() {
		if c.event.Command != "" {
			c.id, c.randomID = c.event.ID(c.query.SdkAppID, c.body.bytes)
		}
	})
	return c.id
}

// class returns the class of the command in the query, or "" if there is none.
func (c *call) class() callback.Class {
	if c.query.CallbackCommand == "" {
		return ""
	}
	return callback.ClassOf(c.query.CallbackCommand)
}
