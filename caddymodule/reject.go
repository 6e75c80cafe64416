// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"net/http"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/timguard/timguard/caddymodule/callback"
)

const actionReject = "reject"

func init() {
	registerAction(actionReject, action{serve: (*Handler).reject})
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
		c.body.restore(r)
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
	if c.rejection.Reason == callback.ReasonBody && isTimeout(c.body.err) {
		return http.StatusRequestTimeout
	}
	return statuses[c.rejection.Reason]
}
