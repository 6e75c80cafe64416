// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/timguard/timguard/caddymodule/callback"
)

// Rule specifies the action for some commands.
type Rule struct {
	// The commands: an exact CallbackCommand, a prefix followed by `*`, or `before` or
	// `after` for all commands of a class. At least one is required.
	Commands []string `json:"commands,omitempty"`

	// The action:
	//
	// - `forward` passes the callback on to the next handler, unchanged.
	// - `ack` answers OK, without the backend. For before-callbacks, this is the
	//   verdict "allowed".
	// - `forbid` answers the verdict "forbidden"; only for before-callbacks.
	// - `deliver` stores the callback, answers OK, and delivers the callback in the
	//   background until the backend accepts it; only for after-callbacks.
	// - `reject` refuses the callback, as if no rule named its command.
	Action string `json:"action,omitempty"`

	// The ErrorCode of `forbid`, in the range of the command's family. Default: 1, or
	// 38000 for each target of a friend request.
	Code int `json:"code,omitempty"`

	// The ErrorInfo of `forbid`, which may be shown to the end user. Default: empty.
	Info string `json:"info,omitempty"`

	// How long `forward` waits for an answer before it uses the fallback, since the
	// callback was received. Tencent waits 2 seconds. Requires a fallback. Default:
	// `1500ms`.
	Deadline caddy.Duration `json:"deadline,omitempty"`

	// What `forward` answers if there is no valid answer in time. Default: whatever the
	// next handler answers is passed on.
	Fallback *Fallback `json:"fallback,omitempty"`

	// The consumers that get a copy of each callback, in addition to the action. The
	// copies are stored before the callback is answered. Each consumer has its own
	// queue, which is delivered through the site with the placeholder
	// `{http.tim_callback.consumer}` and the header `Tim-Delivery-Consumer`. Only for
	// after-callbacks, with `forward`, `ack` or `deliver`. The names of consumers have
	// the same syntax as those of guards. Default: none.
	//
	// If storing the copies fails, the failure is logged and counted; `forward` and
	// `deliver` still forward the callback, and `ack` answers 503.
	Copy []string `json:"copy,omitempty"`
}

const (
	classBefore = string(callback.Before)
	classAfter  = string(callback.After)

	// defaultDeadline leaves half a second of Tencent's timeout for the network.
	defaultDeadline = 1500 * time.Millisecond
	tencentTimeout  = 2 * time.Second
)

// check rejects an invalid rule. earlier are the rules before it.
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
	if err := r.checkAnswered(); err != nil {
		return err
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

// checkBeforeOnly rejects patterns that match after-callbacks, which have no verdict.
func (r Rule) checkBeforeOnly(what string) error {
	for _, pattern := range r.Commands {
		prefix, several := strings.CutSuffix(pattern, "*")
		if !several && !isClass(pattern) && callback.ClassOf(pattern) == callback.After {
			return fmt.Errorf("%s is only for before-callbacks, but %s is an after-callback: write ack, deliver or fallback deliver", what, pattern)
		}
		if pattern != classBefore && callback.ClassOf(prefix) != callback.Before {
			return fmt.Errorf("%s is only for before-callbacks, but %s also matches others: write on before …", what, pattern)
		}
	}
	return nil
}

// checkAfterOnly rejects patterns for before-callbacks, which need an immediate answer.
func (r Rule) checkAfterOnly(earlier []Rule, what string) error {
	for _, command := range r.commands(earlier) {
		if callback.ClassOf(command) == callback.Before {
			return fmt.Errorf("%s is only for after-callbacks, but %s is a before-callback: write on after …, or an earlier rule for it", what, command)
		}
	}
	return nil
}

// checkAnswered rejects an exact command whose answer Tencent uses if the rule answers
// without the backend.
func (r Rule) checkAnswered() error {
	for _, pattern := range r.Commands {
		if c, _ := callback.Lookup(pattern); c.Answered && r.answersAlone() {
			return fmt.Errorf("%s passes the backend's answer on to a client, which %s would not get: write on %s forward",
				pattern, r.what(), pattern)
		}
	}
	return nil
}

// answersAlone reports whether the rule may answer OK without the backend.
func (r Rule) answersAlone() bool {
	return r.Action == actionAck || r.Action == actionDeliver || r.Fallback != nil && r.Fallback.Verdict == verdictDeliver
}

// what names the action, or the fallback if there is one.
func (r Rule) what() string {
	if r.Fallback != nil {
		return "fallback " + r.Fallback.Verdict
	}
	return r.Action
}

// stores reports whether the rule may store callbacks.
func (r Rule) stores() bool {
	return r.Action == actionDeliver || len(r.Copy) > 0 || r.Fallback != nil && r.Fallback.Verdict == verdictDeliver
}

// commands returns the commands for which this is the first matching rule: known ones,
// and unknown ones that it names exactly.
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
		return !r.matches(command) || slices.ContainsFunc(earlier, func(e Rule) bool { return e.names(command) })
	})
}

func isClass(pattern string) bool { return pattern == classBefore || pattern == classAfter }

// checkPattern rejects invalid and misspelled patterns.
func checkPattern(pattern string) error {
	prefix, several := strings.CutSuffix(pattern, "*")
	suggestion := callback.Suggest(pattern)
	switch {
	case strings.Contains(prefix, "*"):
		return fmt.Errorf("command %q: * is only allowed as the last character", pattern)
	case pattern == "":
		return errors.New("a command is empty: write a CallbackCommand, a prefix and *, or before or after")
	case several:
		suggestion = exactPrefix(prefix)
	case isClass(pattern):
		return nil
	case isClass(strings.ToLower(pattern)):
		suggestion = strings.ToLower(pattern)
	}
	if suggestion != "" {
		return fmt.Errorf("unknown command %q: did you mean %s?", pattern, suggestion)
	}
	return nil
}

// exactPrefix returns the correct form, with a *, of a prefix that matches known commands
// only if letter case is ignored, or else "".
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

// names reports whether the rule applies to the command. A rule that stores callbacks
// does not apply to before-callbacks, even if its pattern matches an unknown one.
func (r Rule) names(command string) bool {
	return r.matches(command) && (!r.stores() || callback.ClassOf(command) == callback.After)
}

func (r Rule) matches(command string) bool {
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

// deadline returns how long to wait for an answer.
func (r *Rule) deadline() time.Duration {
	if r.Deadline > 0 {
		return time.Duration(r.Deadline)
	}
	return defaultDeadline
}

// ruleNaming returns the first rule that applies to the command, or nil.
func (h *Handler) ruleNaming(command string) *Rule {
	for i := range h.Rules {
		if h.Rules[i].names(command) {
			return &h.Rules[i]
		}
	}
	return nil
}

// ruleOf returns the rule for the command, or a rejection if none allows it. A look-alike
// of a known command is always rejected: a rule with a pattern may apply to it, but the
// backend may take it for the known one.
func (h *Handler) ruleOf(command string) (*Rule, error) {
	detail := "no rule of this guard allows the command"
	rule, ok := h.known[command]
	if !ok {
		switch known := callback.LookAlike(command); {
		case command == "":
			detail = "the parameter is missing"
		case known != "":
			detail = "the command looks like " + known
		default:
			rule = h.ruleNaming(command)
		}
	}
	if rule == nil || rule.Action == actionReject {
		return nil, &callback.Rejection{Reason: callback.ReasonCommand, Path: "CallbackCommand", Detail: detail}
	}
	return rule, nil
}

// provisionRules finds the rules for the known commands.
func (h *Handler) provisionRules() {
	h.known = make(map[string]*Rule)
	for _, command := range callback.Commands() {
		h.known[command.Name] = h.ruleNaming(command.Name)
	}
}
