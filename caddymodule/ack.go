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
	registerAction(actionAck, action{serve: (*Handler).ack})
}

var okAnswer = callback.OK().JSON()

// ack answers OK.
func (*Handler) ack(w http.ResponseWriter, _ *http.Request, _ caddyhttp.Handler, c *call) error {
	c.answer(w, http.StatusOK, okAnswer)
	return nil
}
