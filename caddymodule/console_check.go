// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"time"

	"github.com/timguard/timguard/caddymodule/callback"
)

// actionConsoleCheck answers the console's URL check. Rules cannot use it.
const actionConsoleCheck = "console_check"

func init() {
	registerAction(actionConsoleCheck, action{internal: true, serve: (*Handler).ack})
}

// provisionConsoleCheck sets up the verifier with the tokens of all apps if the console
// check is on.
func (h *Handler) provisionConsoleCheck(tokens []string) (err error) {
	if len(tokens) > 0 && (h.ConsoleCheck == nil || *h.ConsoleCheck) {
		h.anyToken, err = callback.NewVerifier(tokens, time.Duration(h.Window), time.Now)
	}
	return err
}

// signsConsoleCheck reports whether the call may be the console's URL check, which is
// recognized by its Sign and its body. The check may lack the parameters of a callback,
// including SdkAppid, so the Sign may be by a token of any app.
func (h *Handler) signsConsoleCheck(c *call) bool {
	if h.anyToken == nil || c.rejection != nil && c.rejection.Reason == callback.ReasonMethod {
		return false
	}
	if c.verified {
		return true
	}
	_, _, err := h.anyToken.Verify(c.query)
	return err == nil
}
