// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"errors"
	"slices"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

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

func TestRulesWarnOfUnknownCommands(t *testing.T) {
	t.Parallel()
	core, logs := observer.New(zap.WarnLevel)
	newRuleSet([]Rule{
		{Commands: []string{callback.RecallCommand, "Misspelt", "Group.*", "*"}, Action: actionForward},
		{Commands: []string{"Other"}, Action: actionReject},
	}).warn(zap.New(core))
	var got []string
	for _, entry := range logs.All() {
		got = append(got, entry.ContextMap()["command"].(string))
	}
	if want := []string{"Misspelt", "Other"}; !slices.Equal(got, want) {
		t.Errorf("warnings of %v, want %v", got, want)
	}
}
