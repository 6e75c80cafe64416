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
	// - `reject` refuses it, as if no rule named its command.
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
}

// Fallback is what is answered in place of a backend that did not give a valid
// answer, which is HTTP 200 with a JSON object.
type Fallback struct {
	// For before-callbacks `allow` or `forbid`; for after-callbacks `deliver`, which
	// stores the callback and delivers it in the background.
	Verdict string `json:"verdict,omitempty"`

	// The ErrorCode of `forbid`, as in a rule.
	Code int `json:"code,omitempty"`

	// The ErrorInfo of `forbid`, as in a rule.
	Info string `json:"info,omitempty"`
}

const (
	actionForward = "forward"
	actionAck     = "ack"
	actionForbid  = "forbid"
	actionDeliver = "deliver"
	actionReject  = "reject"

	// actionConsoleCheck is no rule's action: the guard answered the console's
	// check of the URL.
	actionConsoleCheck = "console_check"

	verdictNone   = "none"
	verdictAllow  = "allow"
	verdictForbid = "forbid"
	// verdictDeliver is for after-callbacks, which have no verdict: it is stored.
	verdictDeliver = "deliver"

	classBefore = string(callback.Before)
	classAfter  = string(callback.After)

	// defaultDeadline leaves half a second of Tencent's two for the way there and
	// back.
	defaultDeadline = 1500 * time.Millisecond
	tencentWaits    = 2 * time.Second
)

// What can be written, in the order of the documentation.
var (
	actions  = []string{actionForward, actionAck, actionForbid, actionDeliver, actionReject}
	verdicts = []string{verdictNone, verdictAllow, verdictForbid, verdictDeliver}
)

// check reports what cannot be meant, given the rules before it.
func (r Rule) check(earlier []Rule) error {
	if len(r.Commands) == 0 {
		return errors.New("names no command: write on <command>... <action>")
	}
	for _, pattern := range r.Commands {
		if err := checkPattern(pattern); err != nil {
			return err
		}
	}
	switch {
	case !slices.Contains(actions, r.Action):
		return fmt.Errorf("action is %q: want one of %s", r.Action, strings.Join(actions, ", "))
	case r.Action != actionForbid && (r.Code != 0 || r.Info != ""):
		return fmt.Errorf("%s takes no code and no info; forbid does", r.Action)
	case r.Action != actionForward && (r.Deadline != 0 || r.Fallback != nil):
		return fmt.Errorf("%s takes no deadline and no fallback; forward does", r.Action)
	case r.Deadline < 0:
		return errors.New("deadline must be positive")
	case r.Deadline != 0 && r.Fallback == nil:
		return errors.New("deadline says when the fallback is answered: write fallback allow, forbid or deliver as well")
	case r.Action == actionForbid:
		return r.checkForbid(earlier, "forbid", r.Code)
	case r.Action == actionDeliver:
		return r.checkAfterOnly(earlier, "deliver")
	case r.Fallback != nil:
		return r.checkFallback(earlier)
	}
	return nil
}

func (r Rule) checkFallback(earlier []Rule) error {
	f := r.Fallback
	switch {
	case f.Verdict == verdictForbid:
		return r.checkForbid(earlier, "fallback forbid", f.Code)
	case f.Verdict != verdictAllow && f.Verdict != verdictDeliver: // none is no fallback
		return fmt.Errorf("fallback is %q: want allow, forbid or deliver", f.Verdict)
	case f.Code != 0 || f.Info != "":
		return fmt.Errorf("fallback %s takes no code and no info", f.Verdict)
	case f.Verdict == verdictDeliver:
		return r.checkAfterOnly(earlier, "fallback deliver")
	}
	return r.checkBeforeOnly("fallback allow")
}

// checkForbid reports commands that cannot be forbidden, or not with the code.
func (r Rule) checkForbid(earlier []Rule, what string, code int) error {
	if err := r.checkBeforeOnly(what); err != nil {
		return err
	}
	if code < 0 {
		return fmt.Errorf("%s: a code is positive", what)
	}
	for _, command := range r.commands(earlier) {
		if err := callback.CheckForbid(command, code); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	return nil
}

// checkBeforeOnly reports patterns that also name after-callbacks, which have no
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

// checkAfterOnly reports before-callbacks, whose answer cannot wait.
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
	return r.Action == actionDeliver || r.Fallback != nil && r.Fallback.Verdict == verdictDeliver
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

func checkPattern(pattern string) error {
	prefix, _ := strings.CutSuffix(pattern, "*")
	if strings.Contains(prefix, "*") {
		return fmt.Errorf("command %q: a * can only be its last character", pattern)
	}
	if pattern == "" {
		return errors.New("a command is empty: write a CallbackCommand, its beginning and *, or before or after")
	}
	if exact := exactCase(pattern, prefix); exact != "" {
		return fmt.Errorf("command %q: write it in the exact case, %s", pattern, exact)
	}
	return nil
}

// exactCase returns how the pattern is written that fits a known command, or is
// a class, in another case only; empty if it is right or fits none.
func exactCase(pattern, prefix string) string {
	for _, word := range []string{classBefore, classAfter} {
		if pattern != word && strings.EqualFold(pattern, word) {
			return word
		}
	}
	exact := ""
	for _, known := range callback.Commands() {
		begin := known.Name[:min(len(prefix), len(known.Name))]
		if pattern == known.Name || pattern != prefix && begin == prefix {
			return ""
		}
		if strings.EqualFold(begin, prefix) && (pattern != prefix || len(prefix) == len(known.Name)) {
			exact = begin + strings.TrimPrefix(pattern, prefix)
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

// ruleSet finds the rule of a command.
type ruleSet struct {
	rules []Rule
	known map[string]*Rule // the rule of every known command that has one
}

func newRuleSet(rules []Rule) ruleSet {
	s := ruleSet{rules: rules, known: make(map[string]*Rule)}
	for _, command := range callback.Commands() {
		if rule := s.search(command.Name); rule != nil {
			s.known[command.Name] = rule
		}
	}
	return s
}

func (s ruleSet) search(command string) *Rule {
	for i := range s.rules {
		if s.rules[i].names(command) {
			return &s.rules[i]
		}
	}
	return nil
}

// find returns the rule of the command, or the rejection where none lets it in.
func (s ruleSet) find(command string) (*Rule, error) {
	if command == "" {
		return nil, &callback.Rejection{Reason: callback.ReasonCommand, Path: "CallbackCommand", Detail: "the parameter is missing"}
	}
	rule := s.known[command]
	if rule == nil {
		rule = s.search(command)
	}
	if rule == nil || rule.Action == actionReject {
		return nil, &callback.Rejection{Reason: callback.ReasonCommand, Path: "CallbackCommand", Detail: "no rule of this guard lets the command in"}
	}
	return rule, nil
}

// warn logs what loads but is hardly meant: commands that timguard does not know,
// which may be new or misspelt, and rules that come too late.
func (s ruleSet) warn(logger *zap.Logger) {
	for i := range s.rules {
		rule := &s.rules[i]
		for _, pattern := range rule.Commands {
			if !fitsKnown(pattern) {
				logger.Warn("no known command fits a rule: if it is not for new ones, whose payload is checked as strict JSON only, "+
					"check the spelling; tim-callback commands lists the known ones", zap.String("command", pattern))
			}
		}
		if s.comesTooLate(rule) {
			logger.Warn("a rule never applies: earlier ones name all its commands, and the first that names a command counts",
				zap.Int("rule", i+1), zap.Strings("commands", rule.Commands), zap.String("action", rule.Action))
		}
		if rule.deadline() >= tencentWaits {
			logger.Warn("a deadline is after Tencent has given up, which is after 2s",
				zap.Strings("commands", rule.Commands), zap.Duration("deadline", rule.deadline()))
		}
	}
}

// fitsKnown reports whether the pattern fits a known command.
func fitsKnown(pattern string) bool {
	rule := Rule{Commands: []string{pattern}}
	return slices.ContainsFunc(callback.Commands(), func(c callback.Command) bool { return rule.fits(c.Name) })
}

// comesTooLate reports whether earlier rules name every command that this one
// spells out, and every known one that it fits.
func (s ruleSet) comesTooLate(rule *Rule) bool {
	first := func(command string) bool { return s.search(command) == rule }
	for _, known := range callback.Commands() {
		if first(known.Name) {
			return false
		}
	}
	for _, pattern := range rule.Commands {
		if strings.HasSuffix(pattern, "*") || isClass(pattern) { // it may be for new ones
			return false
		}
		if first(pattern) {
			return false
		}
	}
	return true
}
