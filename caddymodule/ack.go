// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"net/http"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/timguard/timguard/caddymodule/callback"
)

const actionAck = "ack"

func init() {
	registerAction(actionAck, action{options: []string{"copy"}, serve: (*Handler).copyAndAck})
}

var okAnswer = callback.OK().JSON()

// copyAndAck stores the callback for the rule's consumers and answers OK. If storing
// fails, it refuses the callback instead, so that Tencent repeats it if retries are
// enabled in the console.
func (h *Handler) copyAndAck(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, c *call) error {
	if h.copy(r, c) == nil {
		return h.ack(w, r, next, c)
	}
	c.answer(w, http.StatusServiceUnavailable, callback.Fail("the callback could not be stored").JSON())
	return nil
}

// ack answers OK.
func (*Handler) ack(w http.ResponseWriter, _ *http.Request, _ caddyhttp.Handler, c *call) error {
	c.answer(w, http.StatusOK, okAnswer)
	return nil
}
