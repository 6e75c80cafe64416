// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"bytes"
	"errors"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/timguard/timguard/caddymodule/callback"
)

// judge checks a request and chooses the action. It writes nothing, and reads the body
// only if all earlier checks have passed.
func (h *Handler) judge(r *http.Request) *call {
	c := &call{judgment: judgment{start: time.Now(), rawQuery: r.URL.RawQuery, longURI: len(r.RequestURI) > maxSharedURI}}
	err := h.checkRequest(r, &c.judgment)
	c.rejection, _ = errors.AsType[*callback.Rejection](err) // every error of package callback is one
	switch {
	case h.isConsoleCheck(r, c):
		c.action, c.rejection = actionConsoleCheck, nil
	case h.Mode == modeReport:
		c.action = actionForward
	case c.rejection != nil:
		c.action, c.fallback = actionOfRejected(&c.judgment)
	default:
		c.action = c.rule.Action
	}
	if v := c.verdictOfRule(); v != "" {
		c.verdict.Store(&v)
	}
	// Otherwise, the server would wait for the body before it sends the answer, while
	// the client may be waiting for a 100 Continue.
	c.closes = r.ProtoMajor == 1 && !c.body.Whole() && (c.body.Touched() || r.Header.Get("Expect") != "")
	c.took = time.Since(c.start) - c.body.Took()
	return c
}

// checkRequest makes the checks in their order, cheap ones first.
func (h *Handler) checkRequest(r *http.Request, j *judgment) (err error) {
	if r.Method != http.MethodPost {
		return &callback.Rejection{Reason: callback.ReasonMethod, Detail: "want POST"}
	}
	if j.query, err = callback.ParseQuery(r.URL.RawQuery); err != nil {
		return err
	}
	if j.app = h.apps[j.query.SdkAppID]; j.app == nil {
		return foreignApp(j.query)
	}
	if j.app.verifier != nil {
		if j.token, j.skew, err = j.app.verifier.Verify(j.query); err != nil {
			return err
		}
		j.verified = true
	}
	if j.rule, err = h.ruleFor(j.query.CallbackCommand); err != nil {
		return err
	}
	if err = h.readBody(r, j); err != nil {
		return err
	}
	if j.event, err = callback.Inspect(j.body.Bytes(), j.query.CallbackCommand); err != nil {
		return err
	}
	if in := j.event.SdkAppID; in != "" && in != j.query.SdkAppID {
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

// readBody reads the complete body. It keeps a body that the next handlers may read for any
// time: a proxy may still be sending it after its backend has answered.
func (h *Handler) readBody(r *http.Request, j *judgment) error {
	if !isIdentity(r.Header["Content-Encoding"]) {
		return &callback.Rejection{Reason: callback.ReasonEncoding, Detail: "want a body without Content-Encoding"}
	}
	if r.ContentLength > h.MaxBody {
		return tooLarge(h.MaxBody)
	}
	j.body.Read(r, h.MaxBody)
	switch {
	case j.body.Err() != nil:
		return unreadable(j.body.Err())
	case !j.body.Whole():
		return tooLarge(h.MaxBody)
	case h.Mode == modeReport || j.rule.Action == actionForward:
		j.body.Keep()
	}
	return nil
}

func tooLarge(limit int64) error {
	return &callback.Rejection{
		Reason: callback.ReasonTooLarge, Detail: "want a body of at most " + strconv.FormatInt(limit, 10) + " bytes",
	}
}

// unreadable converts an error of reading to a Rejection. The size may have been limited
// by a request_body directive before this handler.
func unreadable(err error) error {
	if limit, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return tooLarge(limit.Limit)
	}
	detail := "the body is incomplete"
	if isTimeout(err) {
		detail = "the body did not arrive in time"
	}
	return &callback.Rejection{Reason: callback.ReasonBody, Detail: detail}
}

func isTimeout(err error) bool {
	timeout, ok := errors.AsType[net.Error](err)
	return ok && timeout.Timeout()
}

func isIdentity(encodings []string) bool {
	return !slices.ContainsFunc(encodings, func(e string) bool { return e != "" && !strings.EqualFold(e, "identity") })
}

// actionOfRejected returns the action for a rejected callback, and whether it is the rule's
// fallback. To Tencent, a 4xx response to most before-callbacks means "allowed", so a
// verified one gets the verdict of its rule instead, if there is one.
func actionOfRejected(j *judgment) (action string, fallback bool) {
	switch {
	case !j.verified || j.rule == nil || j.class() != callback.Before:
		return actionReject, false
	case j.rule.Action == actionForbid:
		return actionForbid, false
	case j.rule.Fallback == nil:
		return actionReject, false
	case j.rule.Fallback.Verdict == verdictAllow:
		return actionAck, true
	default:
		return actionForbid, true
	}
}

// verdictOfRule returns the verdict on a before-callback that is not forwarded.
func (j *judgment) verdictOfRule() string {
	switch {
	case j.action == actionForbid:
		return verdictForbid
	case j.action == actionAck && j.class() == callback.Before:
		return verdictAllow
	}
	return ""
}

// isConsoleCheck reports whether the call is the console's URL check, which is recognized
// by its Sign and its body. The check may lack the parameters of a callback, including
// SdkAppid, so the Sign may be by a token of any app.
func (h *Handler) isConsoleCheck(r *http.Request, c *call) bool {
	if h.anyToken == nil || c.rejection != nil && c.rejection.Reason == callback.ReasonMethod {
		return false
	}
	if !c.verified {
		if _, _, err := h.anyToken.Verify(c.query); err != nil {
			return false
		}
	}
	return c.hasBlankBody(r)
}

// maxBlank is the maximum length of the body of the console's URL check: two braces
// and some white space.
const maxBlank = 16

// hasBlankBody reports whether the body is empty or {}, apart from white space. If the body
// has not been read yet, it reads only as much as needed.
func (c *call) hasBlankBody(r *http.Request) bool {
	if !c.body.Touched() && r.ContentLength <= maxBlank && isIdentity(r.Header["Content-Encoding"]) {
		c.body.Read(r, maxBlank) // a body that cannot be read is not blank
	}
	text := bytes.TrimSpace(c.body.Bytes())
	inside, braces := bytes.CutPrefix(text, []byte("{"))
	return c.body.Whole() && (len(text) == 0 || braces && string(bytes.TrimSpace(inside)) == "}")
}
