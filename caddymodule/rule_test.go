// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddyserver/caddy/v2"

	"github.com/timguard/timguard/caddymodule/callback"
)

// withRules returns a validated handler with the rules, and its warnings.
func withRules(rules ...Rule) (*Handler, *observer.ObservedLogs) {
	core, logs := observer.New(zap.WarnLevel)
	h := &Handler{Rules: rules, logger: zap.New(core)}
	h.provisionRules()
	h.warnOfRules()
	return h, logs
}

func TestFirstRuleThatNamesACommandApplies(t *testing.T) {
	t.Parallel()
	h, _ := withRules(
		Rule{Commands: []string{callback.RecallCommand}, Action: actionForward},
		Rule{Commands: []string{"C2C.Reject", "Group.CallbackAfterReject*"}, Action: actionReject},
		Rule{Commands: []string{"Group.*", "C2C.*"}, Action: actionAck},
		Rule{Commands: []string{"Group.Later", "Exact"}, Action: actionForward},
	)
	for command, want := range map[string]string{
		callback.RecallCommand:         actionForward,
		callback.RecallCommand + "2":   actionAck,
		"Group.CallbackAfterRejectAll": "",
		"Group.Later":                  actionAck,
		"Group.":                       actionAck,
		"Group":                        "",
		"group.Later":                  "",
		"C2C.Reject":                   "",
		"C2C.Reject2":                  actionAck,
		"Exact":                        actionForward,
		"Exactly":                      "",
		"*":                            "",
		"Other":                        "",
		"":                             "",
	} {
		rule, err := h.ruleFor(command)
		switch rejection, _ := errors.AsType[*callback.Rejection](err); {
		case want == "" && (rejection == nil || rejection.Reason != callback.ReasonCommand):
			t.Errorf("%q: rule %v and error %v, want a rejection as command", command, rule, err)
		case want != "" && (err != nil || rule.Action != want):
			t.Errorf("%q: rule %v and error %v, want %s", command, rule, err, want)
		}
	}
}

func TestStarMatchesEveryCommand(t *testing.T) {
	t.Parallel()
	h, _ := withRules(Rule{Commands: []string{"*"}, Action: actionAck})
	for _, command := range []string{callback.RecallCommand, "Anything"} {
		if rule, err := h.ruleFor(command); err != nil || rule.Action != actionAck {
			t.Errorf("%s: rule %v and error %v, want ack", command, rule, err)
		}
	}
	if _, err := h.ruleFor(""); err == nil {
		t.Error("a missing command is let in")
	}
}

func TestQuestionableRulesAreWarnedOf(t *testing.T) {
	t.Parallel()
	late := Fallback{Verdict: verdictDeliver}
	for name, tt := range map[string]struct {
		rules []Rule
		want  []string // the beginnings of the warnings
	}{
		"a pattern for new ones": {[]Rule{
			{Commands: []string{callback.RecallCommand, "Group.*"}, Action: actionForward},
			{Commands: []string{"Other.*"}, Action: actionForward},
		}, []string{"rule matches no known command"}},
		"an unknown command": {[]Rule{{Commands: []string{"Misspelt", callback.RecallCommand}, Action: actionAck}}, []string{"rule matches no known command"}},
		"a pattern that fits nothing": {[]Rule{
			{Commands: []string{"Grp.*"}, Action: actionForward},
		}, []string{"rule matches no known command"}},
		"a rule that comes too late": {[]Rule{
			{Commands: []string{"Group.*", "State.*"}, Action: actionAck},
			{Commands: []string{callback.RecallCommand}, Action: actionForward},
		}, []string{"rule never applies"}},
		"a rule that comes too late in part": {[]Rule{
			{Commands: []string{"Group.*"}, Action: actionAck},
			{Commands: []string{callback.RecallCommand, "State.StateChange"}, Action: actionForward},
		}, nil},
		"a deadline that is too late": {[]Rule{
			{Commands: []string{"Group.CallbackAfter*"}, Action: actionForward, Deadline: caddy.Duration(2 * time.Second), Fallback: &late},
		}, []string{"deadline is not before"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			before := Rule{Commands: []string{"before"}, Action: actionReject}
			_, logs := withRules(append(tt.rules, before)...)
			var got []string
			for _, entry := range logs.All() {
				got = append(got, entry.Message)
			}
			if !slices.EqualFunc(got, tt.want, strings.HasPrefix) {
				t.Errorf("warnings %q, want %q", got, tt.want)
			}
		})
	}
}

// A backend may take such a command for the known one, so no other rule may apply to it.
func TestLookAlikesOfCommandsHaveNoRule(t *testing.T) {
	t.Parallel()
	h, _ := withRules(
		Rule{Commands: []string{"C2C.CallbackAfterMsgWithDraw"}, Action: actionReject},
		Rule{Commands: []string{"after", "*"}, Action: actionForward},
	)
	for _, command := range []string{
		"C2C.CallbackAfterMsgWithDraw ", " C2C.CallbackAfterMsgWithDraw", "C2C.CallbackAfterMsgWithdraw", "c2c.callbackaftermsgwithdraw",
		"C2C.CallbackAfterMsgWithDraw\u00a0", "C2C_CallbackAfterMsgWithDraw", callback.RecallCommand + "\u3000",
	} {
		rule, err := h.ruleFor(command)
		if rejection, ok := errors.AsType[*callback.Rejection](err); !ok || rejection.Reason != callback.ReasonCommand || !strings.Contains(rejection.Detail, "looks like") {
			t.Errorf("%q: rule %v and error %v, want a rejection as command", command, rule, err)
		}
	}
	if rule, err := h.ruleFor("C2C.CallbackAfterSomethingNew"); err != nil || rule.Action != actionForward {
		t.Errorf("a new command: rule %v and error %v, want forward", rule, err)
	}
}
