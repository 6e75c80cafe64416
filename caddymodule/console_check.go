// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"time"

	"github.com/timguard/timguard/caddymodule/callback"
)

// actionConsoleCheck is no rule's action: the guard answered the console's check
// of the URL.
const actionConsoleCheck = "console_check"

func init() {
	registerAction(actionConsoleCheck, action{internal: true, serve: (*Handler).ack})
}

// provisionConsoleCheck prepares the verifier of every app's tokens if the check is
// answered.
func (h *Handler) provisionConsoleCheck(tokens []string) (err error) {
	if len(tokens) > 0 && (h.ConsoleCheck == nil || *h.ConsoleCheck) {
		h.anyToken, err = callback.NewVerifier(tokens, time.Duration(h.Window), time.Now)
	}
	return err
}

// signsConsoleCheck reports whether a judged call may be the console's check of the
// URL. The console may leave out the parameters of a callback, so that only the Sign
// tells, of any of the apps.
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
