// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"fmt"
	"slices"
	"strings"

	"go.uber.org/zap"

	"github.com/timguard/timguard/caddymodule/callback"
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

// consumers returns the names of the consumers.
func (h *Handler) consumers() []string {
	var names []string
	for _, c := range h.Consumers {
		names = append(names, c.Name)
	}
	return names
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

// warnOfRules warns of questionable rules: unknown commands, rules that never apply,
// commands whose answer is used, and before-callbacks without a rule.
func (h *Handler) warnOfRules() {
	h.warnOfUnnamed()
	for i := range h.Rules {
		h.warnOfRule(i)
	}
}

// warnOfUnnamed warns of before-callbacks that no rule names.
func (h *Handler) warnOfUnnamed() {
	unnamed := make(map[callback.Silence][]string)
	for _, command := range callback.Commands() {
		if command.Class == callback.Before && h.known[command.Name] == nil {
			unnamed[command.Silence] = append(unnamed[command.Silence], command.Name)
		}
	}
	switch {
	case len(unnamed) == 0:
	case h.Mode == modeReport:
		h.logger.Warn("before-callbacks without a rule are forwarded in report mode; add rules for those that are switched on in the console before you change the mode",
			zap.Strings("commands", slices.Concat(unnamed[callback.Allows], unnamed[callback.Blocks])))
	default:
		h.logger.Warn("before-callbacks without a rule are answered 403, upon which Tencent allows or blocks the action; add rules for those that are switched on in the console",
			zap.Strings("allowed", unnamed[callback.Allows]), zap.Strings("blocked", unnamed[callback.Blocks]))
	}
}

func (h *Handler) warnOfRule(i int) {
	rule := &h.Rules[i]
	for _, pattern := range rule.Commands {
		if !matchesKnown(pattern) {
			h.logger.Warn("rule matches no known command; check the spelling, unless it is for new commands, "+
				"whose payload is only checked as strict JSON", zap.String("command", pattern))
		}
	}
	if h.isShadowed(rule) {
		h.logger.Warn("rule never applies, because earlier rules name all its commands",
			zap.Int("rule", i+1), zap.Strings("commands", rule.Commands), zap.String("action", rule.Action))
	}
	if commands := h.answered(rule); len(commands) > 0 {
		h.logger.Warn("rule answers commands whose answer Tencent passes on to a client; name them in an earlier rule, on <command>... forward",
			zap.Strings("commands", commands), zap.String("action", rule.what()))
	}
	if rule.within >= tencentTimeout {
		h.logger.Warn("deadline is not before Tencent's timeout of 2s",
			zap.Strings("commands", rule.Commands), zap.Duration("deadline", rule.within))
	}
}

// answered returns the commands of the rule whose answer Tencent uses, if the rule answers
// without the backend.
func (h *Handler) answered(rule *Rule) []string {
	var commands []string
	for _, command := range callback.Commands() {
		if command.Answered && rule.answersAlone() && h.known[command.Name] == rule {
			commands = append(commands, command.Name)
		}
	}
	return commands
}

// warnOfSharedTokens warns of apps with the same token: a URL that was captured of one is
// good for the other.
func (h *Handler) warnOfSharedTokens() {
	owner := make(map[string]string)
	for _, app := range h.Apps {
		for _, token := range app.secrets {
			if other := owner[token]; other != "" && other != app.id {
				h.logger.Warn("two apps have the same token, so a callback of one can be sent again as one of the other; give each its own in the console",
					zap.Strings("sdk_app_ids", []string{other, app.id}))
			}
			owner[token] = app.id
		}
	}
}

// matchesKnown reports whether the pattern matches a known command.
func matchesKnown(pattern string) bool {
	rule := Rule{Commands: []string{pattern}}
	return slices.ContainsFunc(callback.Commands(), func(c callback.Command) bool { return rule.matches(c.Name) })
}

// isShadowed reports whether earlier rules apply to every command that the rule names
// exactly, and to every known command that it matches.
func (h *Handler) isShadowed(rule *Rule) bool {
	for _, known := range callback.Commands() {
		if h.known[known.Name] == rule {
			return false
		}
	}
	for _, pattern := range rule.Commands {
		if strings.HasSuffix(pattern, "*") || isClass(pattern) { // it may match new commands
			return false
		}
		if h.firstRule(pattern) == rule {
			return false
		}
	}
	return true
}
