// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"fmt"
	"strings"

	"go.uber.org/zap"
)

// logStartup writes one line that shows who is let in and what is done with which
// commands, so that a glance at the log tells whether the guard is closed.
func (h *Handler) logStartup() {
	fields := []zap.Field{zap.String("guard", h.Name), zap.String("mode", h.Mode)}
	var apps, rules []string
	for _, app := range h.Apps {
		apps = append(apps, app.summary())
	}
	for _, rule := range h.Rules {
		rules = append(rules, rule.summary())
	}
	fields = append(fields, zap.Strings("apps", apps), zap.Strings("rules", append(rules, "others "+actionReject)))
	if h.deliveries != nil {
		fields = append(fields, zap.String("store", h.deliveries.StoreName()), zap.Strings("consumers", h.consumers()))
	}
	h.logger.Info("guarding callbacks", fields...)
}

// summary returns the app with the number of its tokens.
func (a *App) summary() string {
	switch len(a.secrets) {
	case 0:
		return a.id + " " + unsigned
	case 1:
		return a.id + " 1 token"
	default:
		return fmt.Sprint(a.id, " ", len(a.secrets), " tokens")
	}
}

// summary returns the rule as a Caddyfile has it, on one line and without texts.
func (r Rule) summary() string {
	text := strings.Join(r.Commands, " ") + " " + r.Action
	if r.Fallback != nil {
		text += ", fallback " + r.Fallback.Verdict
	}
	if len(r.Copy) > 0 {
		text += ", copy " + strings.Join(r.Copy, " ")
	}
	return text
}
