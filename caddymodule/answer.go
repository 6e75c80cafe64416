// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"net/http"
	"strconv"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/timguard/timguard/caddymodule/callback"
)

var okAnswer = callback.OK().JSON()

// statuses are the HTTP statuses of the reasons.
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
	if c.rejection.Reason == callback.ReasonBody && isTimeout(c.body.err) {
		return http.StatusRequestTimeout
	}
	return statuses[c.rejection.Reason]
}

// reject refuses the callback.
func (h *Handler) reject(w http.ResponseWriter, c *call) error {
	switch c.rejection.Reason {
	case callback.ReasonMethod:
		w.Header().Set("Allow", http.MethodPost)
	case callback.ReasonEncoding:
		w.Header().Set("Accept-Encoding", "identity")
	}
	if h.Rejections == rejectionsHandleErrors {
		return caddyhttp.Error(c.statusCode(), c.rejection)
	}
	writeAnswer(w, c.statusCode(), callback.Fail(c.rejection.Error()).JSON())
	return nil
}

// closeUnread gives the connection up if the rest of a body is not wanted.
// Without this the server waits for it before it answers, and the client for a
// 100 Continue before it sends it.
func (c *call) closeUnread(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor == 1 && !c.body.whole && (c.body.touched() || r.Header.Get("Expect") != "") {
		w.Header().Set("Connection", "close")
	}
}

func writeAnswer(w http.ResponseWriter, status int, answer []byte) {
	// Of this answer only, because the header directive changes values in place.
	values := []string{"application/json", strconv.Itoa(len(answer))}
	header := w.Header()
	header["Content-Type"] = values[:1:1]
	header["Content-Length"] = values[1:]
	w.WriteHeader(status)
	_, _ = w.Write(answer) // a caller that has gone needs no answer
}
