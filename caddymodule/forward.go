// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"net/http"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

const actionForward = "forward"

func init() {
	registerAction(actionForward, action{
		options:  []string{"copy", "deadline", "fallback"},
		check:    Rule.checkFallback,
		forwards: true,
		serve:    (*Handler).forward,
	})
	registerOption("deadline", option{
		given:     func(r *Rule) bool { return r.Deadline != 0 },
		unmarshal: func(r *Rule, d *caddyfile.Dispenser) error { return UnmarshalDuration(d, &r.Deadline) },
	})
	registerOption("fallback", option{
		given:     func(r *Rule) bool { return r.Fallback != nil },
		unmarshal: (*Rule).unmarshalFallback,
	})
}

// forward passes the callback on to the next handler, even if storing it for the rule's
// consumers fails. In report mode, the options of the rule have no effect.
func (h *Handler) forward(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, c *call) error {
	if h.Mode == modeEnforce {
		_ = h.copy(r, c)
	}
	h.prepare(r, c)
	if h.Mode == modeEnforce && c.rule.Fallback != nil {
		return h.forwardOrFallback(w, r, next, c)
	}
	return next.ServeHTTP(w, r)
}
