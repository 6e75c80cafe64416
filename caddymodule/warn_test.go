// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/timguard/timguard/caddymodule/callback"
	"github.com/timguard/timguard/caddymodule/internal/guardtest"
)

// One line at load tells who is let in, and what is done with which commands.
func TestEndToEndStartupShowsWhatTheGuardDoes(t *testing.T) {
	log := site{
		global: "tim_delivery {\nstore sqlite " + t.TempDir() + "/deliveries.db\n}",
		body: "tim_callback 1400000001 {\napp " + guardtest.App + " " + guardtest.Token + " " + guardtest.NewToken +
			"\non before forward {\nfallback forbid\n}\non after deliver {\ncopy archive moderation\n}\nbackend 127.0.0.1:1\nconsumer archive 127.0.0.1:1\nconsumer moderation 127.0.0.1:1\n}",
	}.start(t)
	lines := logLines(t, log, func(line map[string]any) bool { return line["msg"] == "guarding callbacks" })
	for _, line := range lines {
		if line["msg"] != "guarding callbacks" {
			continue
		}
		for field, want := range map[string]string{
			"guard": "default", "mode": "enforce", "store": "sqlite", "consumers": "[archive moderation]",
			"apps":  "[1400000001 unsigned 1400000000 2 tokens]",
			"rules": "[before forward, fallback forbid after deliver, copy archive moderation others reject]",
		} {
			if got := fmt.Sprint(line[field]); got != want {
				t.Errorf("%s is %s, want %s", field, got, want)
			}
		}
	}
	text, err := os.ReadFile(log)
	if err != nil || strings.Contains(string(text), guardtest.Token) || strings.Contains(string(text), guardtest.NewToken) {
		t.Errorf("the log shows a token, or cannot be read: %v", err)
	}
}

// What the 403 to a before-callback that no rule names means depends on the command.
func TestBeforeCallbacksWithoutARuleAreWarnedOf(t *testing.T) {
	t.Parallel()
	const gift = "Live.CallbackBeforeSendGift"
	for name, tt := range map[string]struct {
		rules            []Rule
		allowed, blocked int
	}{
		"none is named":      {[]Rule{{Commands: []string{"after"}, Action: actionForward}}, 11, 1},
		"one is not":         {[]Rule{{Commands: []string{"Group.*", "C2C.*", "OfficialAccount.*", "Live.*", "Sns.CallbackPrevFriendAdd"}, Action: actionForward}}, 1, 0},
		"only the gift":      {[]Rule{{Commands: []string{"Group.*", "C2C.*", "OfficialAccount.*", "Sns.*"}, Action: actionForward}}, 0, 1},
		"all are":            {[]Rule{{Commands: []string{"before"}, Action: actionForward}}, 0, 0},
		"all are rejected":   {[]Rule{{Commands: []string{"*"}, Action: actionReject}}, 0, 0},
		"all but to deliver": {[]Rule{{Commands: []string{"*"}, Action: actionDeliver}}, 11, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, logs := withRules(tt.rules...)
			var allowed, blocked []any
			for _, entry := range logs.FilterMessageSnippet("before-callbacks without a rule").All() {
				allowed, _ = entry.ContextMap()["allowed"].([]any)
				blocked, _ = entry.ContextMap()["blocked"].([]any)
			}
			if len(allowed) != tt.allowed || len(blocked) != tt.blocked || slices.Contains(allowed, any(gift)) {
				t.Errorf("allowed %v and blocked %v, want %d and %d", allowed, blocked, tt.allowed, tt.blocked)
			}
		})
	}
}

func TestReportModeWarnsOfNo403(t *testing.T) {
	t.Parallel()
	core, logs := observer.New(zap.WarnLevel)
	h := &Handler{Mode: modeReport, Rules: []Rule{{Commands: []string{"after"}, Action: actionForward}}, logger: zap.New(core)}
	h.provisionRules()
	h.warnOfRules()
	if logs.FilterMessageSnippet("are forwarded in report mode").Len() != 1 || logs.FilterMessageSnippet("403").Len() > 0 {
		t.Errorf("warnings %v", logs.All())
	}
}

// A client waits for the answer to these, so no answer of the guard may replace it.
func TestCommandsWhoseAnswerIsUsedMustReachTheBackend(t *testing.T) {
	t.Parallel()
	stored := &Fallback{Verdict: verdictDeliver}
	for name, tt := range map[string]struct {
		rule  Rule
		error bool
		warns bool
	}{
		"ack by name":                 {Rule{Commands: []string{"Chatbot.InterfaceInvocation"}, Action: actionAck}, true, true},
		"deliver by name":             {Rule{Commands: []string{"Chatbot.OnC2CSignalMessage"}, Action: actionDeliver}, true, true},
		"fallback deliver by name":    {Rule{Commands: []string{"Chatbot.OnC2CSignalMessage"}, Action: actionForward, Fallback: stored}, true, true},
		"deliver by class":            {Rule{Commands: []string{"after"}, Action: actionDeliver}, false, true},
		"ack by prefix":               {Rule{Commands: []string{"Chatbot.*"}, Action: actionAck}, false, true},
		"fallback deliver by pattern": {Rule{Commands: []string{"after"}, Action: actionForward, Fallback: stored}, false, true},
		"forward":                     {Rule{Commands: []string{"Chatbot.InterfaceInvocation", "after"}, Action: actionForward}, false, false},
		"forward with a copy":         {Rule{Commands: []string{"Chatbot.InterfaceInvocation"}, Action: actionForward, Copy: []string{"archive"}}, false, false},
		"reject":                      {Rule{Commands: []string{"Chatbot.InterfaceInvocation"}, Action: actionReject}, false, false},
		"another's deliver":           {Rule{Commands: []string{callback.RecallCommand}, Action: actionDeliver}, false, false},
	} {
		if err := tt.rule.check(nil); (err != nil) != tt.error || err != nil && !strings.Contains(err.Error(), "passes the backend's answer on to a client") {
			t.Errorf("%s: error %v, want one: %t", name, err, tt.error)
		}
		_, logs := withRules(tt.rule)
		if warned := logs.FilterMessageSnippet("rule answers commands whose answer").Len() == 1; warned != tt.warns {
			t.Errorf("%s: warned: %t, want %t", name, warned, tt.warns)
		}
	}
}

func TestAppsWithTheSameTokenAreWarnedOf(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		apps []App
		want int
	}{
		"one token for two":    {[]App{{id: "1", secrets: []string{"secret-a"}}, {id: "2", secrets: []string{"b", "secret-a"}}}, 1},
		"each its own":         {[]App{{id: "1", secrets: []string{"a"}}, {id: "2", secrets: []string{"b"}}, {id: "3"}}, 0},
		"one app has it twice": {[]App{{id: "1", secrets: []string{"a", "a"}}}, 0},
	} {
		core, logs := observer.New(zap.WarnLevel)
		h := &Handler{Apps: tt.apps, logger: zap.New(core)}
		h.warnOfSharedTokens()
		if got := logs.FilterMessageSnippet("two apps have the same token").Len(); got != tt.want {
			t.Errorf("%s: %d warnings, want %d", name, got, tt.want)
		}
		for _, entry := range logs.All() {
			if strings.Contains(fmt.Sprint(entry.ContextMap()), "secret") {
				t.Errorf("%s: the warning shows a token: %v", name, entry.ContextMap())
			}
		}
	}
}
