// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2"

	"github.com/timguard/timguard/caddymodule/callback"
)

// Rule says what is done with some commands.
type Rule struct {
	// Which commands: the exact CallbackCommand, its beginning followed by `*`,
	// or `before` or `after` for a whole class. At least one.
	Commands []string `json:"commands,omitempty"`

	// What is done with them:
	//
	// - `forward` hands the callback on to the next handler, unchanged.
	// - `ack` answers OK; the backend never sees the callback. For a
	//   before-callback that is the verdict "allowed".
	// - `forbid` answers the verdict "forbidden"; for before-callbacks only.
	// - `deliver` stores it, answers OK, and delivers it in the background until the
	//   backend accepts; for after-callbacks only.
	// - `reject` rejects it, as if no rule named its command.
	Action string `json:"action,omitempty"`

	// The ErrorCode of `forbid`, from the range of the command's family. Default:
	// 1, and 38000 for each target of a friend request.
	Code int `json:"code,omitempty"`

	// The ErrorInfo of `forbid`, which the end user may be shown. Default: empty.
	Info string `json:"info,omitempty"`

	// How long `forward` waits for an answer before Fallback, from the arrival of
	// the callback. Tencent waits 2 seconds. Only with Fallback. Default: `1500ms`.
	Deadline caddy.Duration `json:"deadline,omitempty"`

	// What `forward` does when no valid answer came in time. Default: nothing;
	// whatever the next handler does is passed on.
	Fallback *Fallback `json:"fallback,omitempty"`

	// The consumers that get a copy of each callback, besides what Action does. It is
	// stored for each of them before the answer, and delivered through the site with
	// the placeholder `{http.tim_callback.consumer}` and the header
	// `Tim-Delivery-Consumer`, from a queue of the consumer's own. For after-callbacks
	// only, with `forward`, `ack` or `deliver`. A consumer's name is like a guard's.
	// Default: none.
	//
	// If the copies cannot be stored, the failure is logged and counted; `forward` and
	// `deliver` forward the callback all the same, and `ack` answers 503, because
	// nothing would stand behind an OK.
	Copy []string `json:"copy,omitempty"`
}

const (
	classBefore = string(callback.Before)
	classAfter  = string(callback.After)

	// defaultDeadline leaves half a second of Tencent's two for the way there and
	// back.
	defaultDeadline = 1500 * time.Millisecond
	tencentWaits    = 2 * time.Second
)

// check rejects a rule that makes no sense, given the rules before it.
func (r Rule) check(earlier []Rule) error {
	if len(r.Commands) == 0 {
		return errors.New("names no command: write on <command>... <action>")
	}
	for _, pattern := range r.Commands {
		if err := checkPattern(pattern); err != nil {
			return err
		}
	}
	a, ok := actions[r.Action]
	if !ok || a.internal {
		return fmt.Errorf("action is %q: want one of %s", r.Action, strings.Join(actionNames(), ", "))
	}
	for _, option := range r.options() {
		if !slices.Contains(a.options, option) {
			return fmt.Errorf("%s takes no %s; %s does", r.Action, option, or(actionsTaking(option)))
		}
	}
	if a.check != nil {
		if err := a.check(r, earlier); err != nil {
			return err
		}
	}
	for _, given := range r.options() {
		if check := options[given].check; check != nil {
			if err := check(r, earlier); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkBeforeOnly rejects patterns that also name after-callbacks, which have no
// verdict.
func (r Rule) checkBeforeOnly(what string) error {
	for _, pattern := range r.Commands {
		prefix, several := strings.CutSuffix(pattern, "*")
		if !several && !isClass(pattern) && callback.ClassOf(pattern) == callback.After {
			return fmt.Errorf("%s is a verdict, which only before-callbacks have; %s is none: write ack, deliver or fallback deliver", what, pattern)
		}
		if pattern != classBefore && callback.ClassOf(prefix) != callback.Before {
			return fmt.Errorf("%s is a verdict, which only before-callbacks have, but %s also names others: write on before …", what, pattern)
		}
	}
	return nil
}

// checkAfterOnly rejects before-callbacks, whose answer cannot wait.
func (r Rule) checkAfterOnly(earlier []Rule, what string) error {
	for _, command := range r.commands(earlier) {
		if callback.ClassOf(command) == callback.Before {
			return fmt.Errorf("%s stores callbacks, but %s asks for an answer now: write on after …, or a rule for it above", what, command)
		}
	}
	return nil
}

// stores reports whether the rule may store callbacks.
func (r Rule) stores() bool {
	return r.Action == actionDeliver || len(r.Copy) > 0 || r.Fallback != nil && r.Fallback.Verdict == verdictDeliver
}

// commands are the commands that the rule is the first to name: the known ones,
// and those it spells out.
func (r Rule) commands(earlier []Rule) []string {
	var all []string
	for _, known := range callback.Commands() {
		all = append(all, known.Name)
	}
	for _, pattern := range r.Commands {
		if _, known := callback.Lookup(pattern); !known && !strings.HasSuffix(pattern, "*") && !isClass(pattern) {
			all = append(all, pattern)
		}
	}
	return slices.DeleteFunc(all, func(command string) bool {
		return !r.fits(command) || slices.ContainsFunc(earlier, func(e Rule) bool { return e.names(command) })
	})
}

func isClass(pattern string) bool { return pattern == classBefore || pattern == classAfter }

// checkPattern rejects what can name no command of Tencent's.
func checkPattern(pattern string) error {
	prefix, several := strings.CutSuffix(pattern, "*")
	meant := callback.Slip(pattern)
	switch {
	case strings.Contains(prefix, "*"):
		return fmt.Errorf("command %q: a * can only be its last character", pattern)
	case pattern == "":
		return errors.New("a command is empty: write a CallbackCommand, its beginning and *, or before or after")
	case several:
		meant = exactPrefix(prefix)
	case isClass(pattern):
		return nil
	case isClass(strings.ToLower(pattern)):
		meant = strings.ToLower(pattern)
	}
	if meant != "" {
		return fmt.Errorf("command %q is none of Tencent's: write %s", pattern, meant)
	}
	return nil
}

// exactPrefix returns how a prefix is written that fits known commands in another
// case only, and a *; empty if it is right or fits none.
func exactPrefix(prefix string) (exact string) {
	for _, known := range callback.Commands() {
		begin := known.Name[:min(len(prefix), len(known.Name))]
		if begin == prefix {
			return ""
		}
		if strings.EqualFold(begin, prefix) {
			exact = begin + "*"
		}
	}
	return exact
}

// names reports whether the rule is about the command. A rule that stores is
// about no before-callback, also not about a new one that its pattern fits.
func (r Rule) names(command string) bool {
	return r.fits(command) && (!r.stores() || callback.ClassOf(command) == callback.After)
}

func (r Rule) fits(command string) bool {
	for _, pattern := range r.Commands {
		if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
			if strings.HasPrefix(command, prefix) {
				return true
			}
		} else if pattern == command || pattern == string(callback.ClassOf(command)) {
			return true
		}
	}
	return false
}

// deadline is when the rule's fallback is answered, after the callback's arrival.
func (r *Rule) deadline() time.Duration {
	if r.Deadline > 0 {
		return time.Duration(r.Deadline)
	}
	return defaultDeadline
}

// ruleNaming returns the first rule that names the command, nil if none does.
func (h *Handler) ruleNaming(command string) *Rule {
	for i := range h.Rules {
		if h.Rules[i].names(command) {
			return &h.Rules[i]
		}
	}
	return nil
}

// ruleOf returns the rule of the command, or the rejection where none lets it in. A
// command that would pass for a known one has none, because a rule for all others
// would be about it, and the backend may take it for the known one.
func (h *Handler) ruleOf(command string) (*Rule, error) {
	detail := "no rule of this guard lets the command in"
	rule, ok := h.known[command]
	if !ok {
		switch known := callback.LookAlike(command); {
		case command == "":
			detail = "the parameter is missing"
		case known != "":
			detail = "the command looks like " + known + " but is not"
		default:
			rule = h.ruleNaming(command)
		}
	}
	if rule == nil || rule.Action == actionReject {
		return nil, &callback.Rejection{Reason: callback.ReasonCommand, Path: "CallbackCommand", Detail: detail}
	}
	return rule, nil
}

// provisionRules finds the rules of the known commands, and logs what loads but is
// hardly meant: commands that timguard does not know, rules that come too late, and
// before-callbacks that no rule names.
func (h *Handler) provisionRules() {
	h.known = make(map[string]*Rule)
	var open []string
	for _, command := range callback.Commands() {
		rule := h.ruleNaming(command.Name)
		h.known[command.Name] = rule
		if rule == nil && command.Class == callback.Before {
			open = append(open, command.Name)
		}
	}
	if len(open) > 0 {
		h.logger.Warn("no rule names some before-callbacks: if they are switched on in the console, they are answered 403, "+
			"which to Tencent means allowed; write rules for them, or switch them off", zap.Strings("commands", open))
	}
	for i := range h.Rules {
		h.warnOfRule(i)
	}
}

func (h *Handler) warnOfRule(i int) {
	rule := &h.Rules[i]
	for _, pattern := range rule.Commands {
		if !fitsKnown(pattern) {
			h.logger.Warn("no known command fits a rule: if it is not for new ones, whose payload is checked as strict JSON only, "+
				"check the spelling; tim-callback commands lists the known ones", zap.String("command", pattern))
		}
	}
	if h.comesTooLate(rule) {
		h.logger.Warn("a rule never applies: earlier ones name all its commands, and the first that names a command counts",
			zap.Int("rule", i+1), zap.Strings("commands", rule.Commands), zap.String("action", rule.Action))
	}
	if rule.deadline() >= tencentWaits {
		h.logger.Warn("a deadline is after Tencent has given up, which is after 2s",
			zap.Strings("commands", rule.Commands), zap.Duration("deadline", rule.deadline()))
	}
}

// fitsKnown reports whether the pattern fits a known command.
func fitsKnown(pattern string) bool {
	rule := Rule{Commands: []string{pattern}}
	return slices.ContainsFunc(callback.Commands(), func(c callback.Command) bool { return rule.fits(c.Name) })
}

// comesTooLate reports whether earlier rules name every command that this one
// spells out, and every known one that it fits.
func (h *Handler) comesTooLate(rule *Rule) bool {
	for _, known := range callback.Commands() {
		if h.known[known.Name] == rule {
			return false
		}
	}
	for _, pattern := range rule.Commands {
		if strings.HasSuffix(pattern, "*") || isClass(pattern) { // it may be for new ones
			return false
		}
		if h.ruleNaming(pattern) == rule {
			return false
		}
	}
	return true
}
