// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"strings"
	"testing"
	"unicode/utf8"

	"go.uber.org/zap/zapcore"

	"github.com/timguard/timguard/caddymodule/callback"
	"github.com/timguard/timguard/caddymodule/internal/guardtest"
)

func TestPlaceholdersOfACall(t *testing.T) {
	t.Parallel()
	full := &call{judgment: judgment{
		query:  callback.Query{SdkAppID: "1", CallbackCommand: "Group.CallbackBeforeSendMsg", OptPlatform: "iOS", ClientIP: "::1"},
		event:  callback.Event{Command: "c", GroupID: "g", TopicID: "t", From: "f", To: "a,b", Operator: "o", Conversation: "t", MsgKey: "k", GroupType: "y", EventTime: 1670574414123, MsgSeqs: []uint32{4294967295, 1}},
		action: actionReject, rejection: &callback.Rejection{Reason: callback.ReasonPayload, Path: "/a"},
	}, consumer: "archive"}
	forbids := verdictForbid
	full.verdict.Store(&forbids)
	for name, want := range map[string]string{
		"sdk_app_id": "1", "command": "Group.CallbackBeforeSendMsg", "class": "before", "group_id": "g", "topic_id": "t", "from": "f", "to": "a,b", "operator": "o", "conversation": "t", "msg_key": "k",
		"group_type": "y", "event_time": "1670574414123", "msg_seqs": "4294967295,1", "opt_platform": "iOS", "client_ip": "::1",
		"action": "reject", "reason": "payload", "path": "/a", "verdict": "forbid", "consumer": "archive",
	} {
		if got, known := (&lastCall{full}).placeholder(placeholderPrefix + name); !known || got != want {
			t.Errorf("%s is %v (known: %t), want %s", name, got, known, want)
		}
		if got, known := (&lastCall{new(call)}).placeholder(placeholderPrefix + name); !known || got != "" {
			t.Errorf("%s of an empty call is %q (known: %t), want it known and empty", name, got, known)
		}
	}
	for _, key := range []string{"http.tim_callback.sign", "http.tim_callback.", "http.tim_callback", "http.request.uri", ""} {
		if got, known := (&lastCall{full}).placeholder(key); known {
			t.Errorf("%q is %v, want it unknown", key, got)
		}
	}
}

func TestAccessLogOmitsEmptyValues(t *testing.T) {
	t.Parallel()
	enc := zapcore.NewMapObjectEncoder()
	c := &call{judgment: judgment{query: callback.Query{SdkAppID: "1", Sign: "secret", RequestTime: "1700000000"}, action: actionReject}}
	if err := c.MarshalLogObject(enc); err != nil {
		t.Fatal(err)
	}
	if len(enc.Fields) != 2 || enc.Fields["sdk_app_id"] != "1" || enc.Fields["action"] != "reject" {
		t.Errorf("fields %v, want only sdk_app_id and action", enc.Fields)
	}
}

// What is long in a call, or gets long when it is made printable, is not so in logs.
func TestLoggedValuesAreBounded(t *testing.T) {
	t.Parallel()
	accounts := strings.TrimSuffix(strings.Repeat(strings.Repeat("a", 32)+",", callback.MaxAccounts), ",")
	c := &call{judgment: judgment{
		query: callback.Query{CallbackCommand: strings.Repeat("c", 1<<20)},
		event: callback.Event{GroupID: strings.Repeat("\u202e", 1<<18), Conversation: strings.Repeat("你", 1<<18), From: accounts},
	}}
	enc := zapcore.NewMapObjectEncoder()
	if err := c.MarshalLogObject(enc); err != nil {
		t.Fatal(err)
	}
	for name, value := range enc.Fields {
		if text, _ := value.(string); len(text) > 2*maxShown+8 || !utf8.ValidString(text) || strings.ContainsRune(text, '\u202e') {
			t.Errorf("%s has %d bytes, or is not printable", name, len(text))
		}
	}
	if enc.Fields["from"] != accounts {
		t.Errorf("the accounts are %v, want all %d", enc.Fields["from"], callback.MaxAccounts)
	}
	if got := c.value("conversation"); got != c.event.Conversation {
		t.Error("the placeholder is not the whole value")
	}
}

func TestHandlerLogObjectHasNoToken(t *testing.T) {
	t.Parallel()
	enc := zapcore.NewJSONEncoder(zapcore.EncoderConfig{})
	h := provisioned(t, &Handler{Apps: []App{{SdkAppID: guardtest.App, Tokens: []string{guardtest.Token}}}})
	if err := enc.AddObject("handler", h); err != nil {
		t.Fatal(err)
	}
	line, err := enc.EncodeEntry(zapcore.Entry{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(line.String(), guardtest.Token) {
		t.Errorf("the log holds the token: %s", line)
	}
}
