// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/agnivade/levenshtein"

	"github.com/caddyserver/caddy/v2"

	"github.com/timguard/timguard/caddymodule/callback"
	"github.com/timguard/timguard/caddymodule/internal/name"
)

// Rule specifies the action for some commands.
type Rule struct {
	// The commands: an exact CallbackCommand, a prefix followed by `*`, or `before` or
	// `after` for all commands of a class. At least one is required.
	Commands []string `json:"commands,omitempty"`

	// The action:
	//
	// - `forward` passes the callback on to the backend, unchanged: to the handlers of
	//   `backend` or, without it, to the next handler of the site.
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

	// How long `forward` waits for an answer, counted from receipt, before it uses the
	// fallback. Tencent waits 2 seconds. Requires a fallback. Default: `1500ms`.
	Deadline caddy.Duration `json:"deadline,omitempty"`

	// What `forward` answers if there is no good answer in time. Default: whatever the
	// backend answers is passed on.
	Fallback *Fallback `json:"fallback,omitempty"`

	// The names of the consumers that get a copy of each callback, in addition to the
	// action. The copies are stored before the callback is answered. Each consumer has its
	// own queue, and is delivered to with the placeholder `{http.tim_callback.consumer}`
	// and the header `Tim-Delivery-Consumer`. Only for after-callbacks, with `forward`,
	// `ack` or `deliver`. Default: none.
	//
	// If storing the copies fails, the failure is logged and counted; `forward` and
	// `deliver` still forward the callback, and `ack` answers 503.
	Copy []string `json:"copy,omitempty"`

	within time.Duration // Deadline, or its default
}

// Fallback is the answer if the backend does not give a good one. To a before-callback,
// only HTTP 200 with a JSON object is good; to an after-callback, what `accept` of the
// backend takes.
type Fallback struct {
	// The verdict: `allow` or `forbid` for before-callbacks; `deliver` for
	// after-callbacks, which stores the callback and delivers it in the background.
	// Required.
	Verdict string `json:"verdict,omitempty"`

	// The ErrorCode of `forbid`, as in a rule.
	Code int `json:"code,omitempty"`

	// The ErrorInfo of `forbid`, as in a rule.
	Info string `json:"info,omitempty"`
}

const (
	verdictNone   = "none"
	verdictAllow  = "allow"
	verdictForbid = "forbid"
	// verdictDeliver stores after-callbacks, which have no actual verdict.
	verdictDeliver = "deliver"
)

// verdicts are the valid verdicts, in the order of the documentation.
var verdicts = []string{verdictNone, verdictAllow, verdictForbid, verdictDeliver}

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
	if !slices.Contains(actionNames, r.Action) {
		return fmt.Errorf("action is %q: want one of %s", r.Action, strings.Join(actionNames, ", "))
	}
	for _, option := range r.options() {
		if !slices.Contains(actionsTaking[option], r.Action) {
			return fmt.Errorf("%s takes no %s; %s does", r.Action, option, or(actionsTaking[option]))
		}
	}
	if err := r.checkAnswered(); err != nil {
		return err
	}
	if err := r.checkClasses(earlier); err != nil {
		return err
	}
	return r.checkCopy()
}

// options returns the names of the options that the rule has.
func (r Rule) options() []string {
	given := map[string]bool{
		"deadline": r.Deadline != 0, "fallback": r.Fallback != nil, "copy": len(r.Copy) > 0, "code": r.Code != 0, "info": r.Info != "",
	}
	names := slices.Sorted(maps.Keys(given))
	return slices.DeleteFunc(names, func(name string) bool { return !given[name] })
}

// checkClasses rejects commands of a class that the action, or one of its options, is not
// for.
func (r Rule) checkClasses(earlier []Rule) error {
	switch r.Action {
	case actionForbid:
		return r.checkForbid(earlier, "forbid", r.Code)
	case actionForward:
		if err := r.checkFallback(earlier); err != nil {
			return err
		}
	}
	if r.Action == actionDeliver {
		return r.checkAfterOnly(earlier, "deliver")
	}
	if len(r.Copy) > 0 {
		return r.checkAfterOnly(earlier, "copy")
	}
	return nil
}

// checkFallback rejects an invalid fallback or deadline.
func (r Rule) checkFallback(earlier []Rule) error {
	f := r.Fallback
	switch {
	case r.Deadline < 0:
		return errors.New("deadline must be positive")
	case r.Deadline != 0 && f == nil:
		return errors.New("deadline has no effect without a fallback: write fallback allow, forbid or deliver as well")
	case f == nil:
		return nil
	case f.Verdict == verdictForbid:
		return r.checkForbid(earlier, "fallback forbid", f.Code)
	case !slices.Contains(verdicts, f.Verdict):
		return fmt.Errorf("fallback is %q: want allow, forbid or deliver", f.Verdict)
	case f.Code != 0 || f.Info != "":
		return fmt.Errorf("fallback %s takes no code and no info", f.Verdict)
	case f.Verdict == verdictDeliver:
		return r.checkAfterOnly(earlier, "fallback deliver")
	case f.Verdict == verdictAllow:
		return r.checkBeforeOnly("fallback allow")
	}
	return nil
}

// checkForbid rejects commands that cannot be forbidden with the code.
func (r Rule) checkForbid(earlier []Rule, what string, code int) error {
	if err := r.checkBeforeOnly(what); err != nil {
		return err
	}
	if code < 0 {
		return errors.New(what + ": want a positive code")
	}
	for _, command := range r.commands(earlier) {
		if err := callback.CheckForbid(command, code); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	return nil
}

// checkCopy rejects invalid names of consumers.
func (r Rule) checkCopy() error {
	for i, consumer := range r.Copy {
		if strings.ContainsAny(consumer, ":/.") {
			return fmt.Errorf("copy %s: want the name of a consumer; its address goes into a block beside the rules:\n\n\tconsumer archive %s\n", consumer, consumer) //nolint:revive,staticcheck // the position follows
		}
		if err := name.Check(consumer); err != nil {
			return fmt.Errorf("copy: %w", err)
		}
		if slices.Contains(r.Copy[:i], consumer) {
			return fmt.Errorf("copy names %s twice", consumer)
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
	return r.Action == actionAck || r.storesForBackend()
}

// what names the action, or the fallback if there is one.
func (r Rule) what() string {
	if r.Fallback != nil {
		return "fallback " + r.Fallback.Verdict
	}
	return r.Action
}

// stores reports whether the rule may store callbacks.
func (r Rule) stores() bool { return r.storesForBackend() || len(r.Copy) > 0 }

// storesForBackend reports whether the rule may store callbacks for the backend.
func (r Rule) storesForBackend() bool {
	return r.Action == actionDeliver || r.Fallback != nil && r.Fallback.Verdict == verdictDeliver
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
		return !r.matches(command) || slices.ContainsFunc(earlier, func(e Rule) bool { return e.applies(command) })
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
	case suggestion == "":
		suggestion = nearestClass(pattern)
	}
	if suggestion != "" {
		return fmt.Errorf("unknown command %q: did you mean %s?", pattern, suggestion)
	}
	return nil
}

// nearestClass returns the class that was probably meant by a misspelled one, or else "".
func nearestClass(pattern string) string {
	for _, class := range []string{classBefore, classAfter} {
		if levenshtein.ComputeDistance(strings.ToLower(pattern), class) <= 2 {
			return class
		}
	}
	return ""
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

// applies reports whether the rule applies to the command. A rule that stores callbacks
// does not apply to before-callbacks, even if its pattern matches an unknown one.
func (r Rule) applies(command string) bool {
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

// firstRule returns the first rule that applies to the command, or nil.
func (h *Handler) firstRule(command string) *Rule {
	for i := range h.Rules {
		if h.Rules[i].applies(command) {
			return &h.Rules[i]
		}
	}
	return nil
}

// ruleFor returns the rule for the command, and a rejection if it does not allow it, or if
// there is none. A look-alike
// of a known command is always rejected: a rule with a pattern may apply to it, but the
// backend may take it for the known one.
func (h *Handler) ruleFor(command string) (*Rule, error) {
	detail := "no rule of this guard allows the command"
	rule, ok := h.known[command]
	if !ok {
		switch known := callback.LookAlike(command); {
		case command == "":
			detail = "the parameter is missing"
		case known != "":
			detail = "the command looks like " + known
		default:
			rule = h.firstRule(command)
		}
	}
	if rule == nil || rule.Action == actionReject {
		return rule, &callback.Rejection{Reason: callback.ReasonCommand, Path: "CallbackCommand", Detail: detail}
	}
	return rule, nil
}

// provisionRules sets the defaults of the rules, and finds those for the known commands.
func (h *Handler) provisionRules() {
	for i := range h.Rules {
		h.Rules[i].within = time.Duration(cmp.Or(h.Rules[i].Deadline, caddy.Duration(defaultDeadline)))
	}
	h.known = make(map[string]*Rule)
	for _, command := range callback.Commands() {
		h.known[command.Name] = h.firstRule(command.Name)
	}
}
