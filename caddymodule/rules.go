// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.uber.org/zap"

	"github.com/timguard/timguard/caddymodule/callback"
)

// Rule says what is done with some commands.
type Rule struct {
	// Which commands: the exact CallbackCommand, or its beginning followed by `*`.
	// At least one.
	Commands []string `json:"commands,omitempty"`

	// What is done with them:
	//
	// - `forward` hands the callback on to the next handler, unchanged.
	// - `ack` answers OK; the backend never sees the callback.
	// - `reject` refuses it, as if no rule named its command.
	Action string `json:"action,omitempty"`
}

const (
	actionForward = "forward"
	actionAck     = "ack"
	actionReject  = "reject"

	// actionConsoleCheck is no rule's action: the guard answered the console's
	// check of the URL.
	actionConsoleCheck = "console_check"
)

// actions are what a rule can say, in the order of the documentation.
var actions = []string{actionForward, actionAck, actionReject}

// check reports what cannot be meant.
func (r Rule) check() error {
	if len(r.Commands) == 0 {
		return errors.New("names no command: write on <command>... <action>")
	}
	for _, pattern := range r.Commands {
		if err := checkPattern(pattern); err != nil {
			return err
		}
	}
	if !slices.Contains(actions, r.Action) {
		return fmt.Errorf("action is %q: want one of %s", r.Action, strings.Join(actions, ", "))
	}
	return nil
}

func checkPattern(pattern string) error {
	prefix, _ := strings.CutSuffix(pattern, "*")
	if strings.Contains(prefix, "*") {
		return fmt.Errorf("command %q: a * can only be its last character", pattern)
	}
	if pattern == "" {
		return errors.New("a command is empty")
	}
	for _, known := range callback.Commands() {
		if pattern != known.Name && strings.EqualFold(pattern, known.Name) {
			return fmt.Errorf("command %q: write it in the exact case, %s", pattern, known.Name)
		}
	}
	return nil
}

// names reports whether the rule is about the command.
func (r Rule) names(command string) bool {
	for _, pattern := range r.Commands {
		if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
			if strings.HasPrefix(command, prefix) {
				return true
			}
		} else if pattern == command {
			return true
		}
	}
	return false
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

// warn logs the commands that timguard does not know: they may be new, or
// misspelt, and then their rule never applies.
func (s ruleSet) warn(logger *zap.Logger) {
	for _, rule := range s.rules {
		for _, pattern := range rule.Commands {
			if _, known := callback.Lookup(pattern); !known && !strings.HasSuffix(pattern, "*") {
				logger.Warn("unknown command in a rule: its payload is checked as strict JSON only; "+
					"if it is not a new one, check the spelling", zap.String("command", pattern))
			}
		}
	}
}
