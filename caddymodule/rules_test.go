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

func TestTheFirstRuleThatNamesACommandCounts(t *testing.T) {
	t.Parallel()
	rules := newRuleSet([]Rule{
		{Commands: []string{callback.RecallCommand}, Action: actionForward},
		{Commands: []string{"C2C.Reject", "Group.CallbackAfterReject*"}, Action: actionReject},
		{Commands: []string{"Group.*", "C2C.*"}, Action: actionAck},
		{Commands: []string{"Group.Later", "Exact"}, Action: actionForward},
	})
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
		rule, err := rules.find(command)
		switch rejection, _ := errors.AsType[*callback.Rejection](err); {
		case want == "" && (rejection == nil || rejection.Reason != callback.ReasonCommand):
			t.Errorf("%q: rule %v and error %v, want a rejection as command", command, rule, err)
		case want != "" && (err != nil || rule.Action != want):
			t.Errorf("%q: rule %v and error %v, want %s", command, rule, err, want)
		}
	}
}

func TestAStarMatchesEveryCommand(t *testing.T) {
	t.Parallel()
	rules := newRuleSet([]Rule{{Commands: []string{"*"}, Action: actionAck}})
	for _, command := range []string{callback.RecallCommand, "Anything"} {
		if rule, err := rules.find(command); err != nil || rule.Action != actionAck {
			t.Errorf("%s: rule %v and error %v, want ack", command, rule, err)
		}
	}
	if _, err := rules.find(""); err == nil {
		t.Error("a missing command is let in")
	}
}

func TestRulesWarnOfWhatIsHardlyMeant(t *testing.T) {
	t.Parallel()
	late := Fallback{Verdict: verdictDeliver}
	for name, tt := range map[string]struct {
		rules []Rule
		want  []string // the beginnings of the warnings
	}{
		"nothing": {[]Rule{
			{Commands: []string{callback.RecallCommand, "Group.*"}, Action: actionForward},
			{Commands: []string{"before", "*"}, Action: actionForward},
		}, nil},
		"an unknown command": {[]Rule{{Commands: []string{"Misspelt", callback.RecallCommand}, Action: actionAck}}, []string{"no known command"}},
		"a pattern that fits nothing": {[]Rule{
			{Commands: []string{"Grp.*"}, Action: actionForward},
		}, []string{"no known command"}},
		"a rule that comes too late": {[]Rule{
			{Commands: []string{"after"}, Action: actionAck},
			{Commands: []string{callback.RecallCommand}, Action: actionForward},
		}, []string{"a rule never applies"}},
		"a rule that comes too late in part": {[]Rule{
			{Commands: []string{"Group.*"}, Action: actionAck},
			{Commands: []string{callback.RecallCommand, "State.StateChange"}, Action: actionForward},
		}, nil},
		"a deadline that is too late": {[]Rule{
			{Commands: []string{"after"}, Action: actionForward, Deadline: caddy.Duration(2 * time.Second), Fallback: &late},
		}, []string{"a deadline is after"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			core, logs := observer.New(zap.WarnLevel)
			newRuleSet(tt.rules).warn(zap.New(core))
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
