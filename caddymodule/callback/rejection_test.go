// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// wantRejection fails the test unless err is a Rejection with the reason and path, and
// returns it.
func wantRejection(t *testing.T, err error, reason Reason, path string) Rejection {
	t.Helper()
	r, ok := errors.AsType[*Rejection](err)
	if !ok {
		t.Fatalf("got error %v, want a Rejection for %s at %q", err, reason, path)
	}
	if r.Reason != reason || r.Path != path {
		t.Fatalf("got %v (reason %s, path %q), want reason %s, path %q", r, r.Reason, r.Path, reason, path)
	}
	if r.Detail == "" || r.Offset < 0 || !utf8.ValidString(r.Path) {
		t.Fatalf("unusable rejection %#v", r)
	}
	return *r
}

func TestReasonsListsEachReasonOnce(t *testing.T) {
	t.Parallel()
	reasons := Reasons()
	if len(reasons) != 13 {
		t.Errorf("got %d reasons, want 13", len(reasons))
	}
	seen := map[Reason]bool{}
	for _, r := range reasons {
		if seen[r] || r == "" {
			t.Errorf("reason %q is empty or listed twice", r)
		}
		seen[r] = true
	}
	// The order of checks: authenticity before the command rule, the body last.
	for _, pair := range [][2]Reason{
		{ReasonMethod, ReasonQuery},
		{ReasonApp, ReasonUnsigned},
		{ReasonStale, ReasonSign},
		{ReasonSign, ReasonCommand},
		{ReasonCommand, ReasonEncoding},
		{ReasonBody, ReasonJSON},
	} {
		if slices.Index(reasons, pair[0]) > slices.Index(reasons, pair[1]) {
			t.Errorf("%s stands after %s", pair[0], pair[1])
		}
	}
}

func TestRejectionErrorIsOneLine(t *testing.T) {
	t.Parallel()
	for want, r := range map[string]*Rejection{
		"payload: the field is missing (/GroupId)": {Reason: ReasonPayload, Path: "/GroupId", Detail: "the field is missing", Offset: 7},
		"json: want one JSON object":               {Reason: ReasonJSON, Detail: "want one JSON object"},
	} {
		if got := r.Error(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// leaks returns the secrets that any part of the error contains.
func leaks(err error, secrets ...string) (found []string) {
	r, ok := errors.AsType[*Rejection](err)
	if !ok {
		return nil
	}
	shown := strings.ToLower(r.Error() + "\n" + r.Path + "\n" + r.Detail)
	for _, s := range secrets {
		if strings.Contains(shown, strings.ToLower(s)) {
			found = append(found, s)
		}
	}
	return found
}

// corrupt calls f with every prefix of the text, and with every byte removed or
// replaced by bytes that are significant to a parser.
func corrupt(text string, f func(corrupted string)) {
	for i := range len(text) {
		f(text[:i])
		f(text[:i] + text[i+1:])
		for _, c := range "\"\\,:{}[]/-.e01 %&=;+\x00\x7f" {
			f(text[:i] + string(c) + text[i+1:])
		}
		f(text[:i] + "\xff" + text[i+1:])
	}
}

func TestRejectionsOfBodiesContainNoPayloadValue(t *testing.T) {
	t.Parallel()
	const body = `{"CallbackCommand":"Group.CallbackAfterRecallMsg","Operator_Account":"canaryA","Type":"canaryB","GroupId":"canaryC",` +
		`"MsgSeqList":[{"MsgSeq":2718281828,"MsgId":"canaryD"}],"TopicId":"canaryE","EventTime":"1670574414123","Other":{"More":["canaryF",6180339887]}}`
	if _, err := Inspect([]byte(body), RecallCommand); err != nil {
		t.Fatal(err)
	}
	refused := 0
	corrupt(body, func(corrupted string) {
		_, err := Inspect([]byte(corrupted), RecallCommand)
		if err != nil {
			refused++
		}
		if found := leaks(err, "canary", "anary", "718281", "167057441", "18033", RecallCommand); found != nil {
			t.Errorf("%v shows %q; body %q", err, found, corrupted)
		}
	})
	if refused < 1000 {
		t.Errorf("only %d corruptions were refused", refused)
	}
	for _, more := range []string{`"GroupId":"canaryG"`, `"groupid":"canaryG"`, `"x":1,"x":"canaryG"`} {
		_, err := Inspect([]byte(strings.TrimSuffix(body, "}")+","+more+"}"), RecallCommand)
		if found := leaks(err, "canary"); err == nil || found != nil {
			t.Errorf("%s: %v shows %q", more, err, found)
		}
	}
}

func TestRejectionsOfQueriesContainNoValueTokenOrSign(t *testing.T) {
	t.Parallel()
	v, err := NewVerifier([]string{"xxxxyyyy", "zzzzwwww"}, time.Minute, vectorClock)
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	corrupt(sampleQuery, func(corrupted string) {
		q, err := ParseQuery(corrupted)
		if err == nil {
			_, _, err = v.Verify(q)
		}
		if err != nil {
			refused++
		}
		if found := leaks(err, "17773bc3", "84061", "16698", "72112", "14000", "127.0", "RESTAPI", "xxxx", "zzzz", "Group."); found != nil {
			t.Errorf("%v shows %q; query %q", err, found, corrupted)
		}
	})
	if refused < 1000 {
		t.Errorf("only %d corruptions were refused", refused)
	}
}
