// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

import (
	"reflect"
	"slices"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
)

// wantPlainIsValid reports whether the body is judged as plain, and fails the test
// if it is then anything but strict JSON that says the same to the longer way.
func wantPlainIsValid(t *testing.T, body []byte, command string) bool {
	t.Helper()
	o := schemaOf(command).object
	plain := inspector{scanner: scanner{body: body}, command: command}
	if plain.payload(o) != nil {
		return false
	}
	if !jsontext.Value(body).IsValid() {
		t.Errorf("judged as plain, but not strict JSON: %s %q", command, body)
		return true
	}
	checked := inspector{scanner: scanner{body: body, valid: true}, command: command}
	if err := checked.payload(o); err != nil {
		t.Errorf("judged as plain, but refused after a check: %v; %s %q", err, command, body)
	}
	if got, want := plain.event(After), checked.event(After); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v as plain, %+v after a check; %s %q", got, want, command, body)
	}
	return true
}

func TestThePlainWayTakesTheSample(t *testing.T) {
	t.Parallel()
	for _, body := range [][]byte{[]byte(sampleRecall), recallWith(`"MsgSeqList":[{"MsgSeq":1},{"MsgSeq":4294967295,"MsgId":"1-2-3"}],"EventTime":0`)} {
		if !wantPlainIsValid(t, body, RecallCommand) {
			t.Errorf("not judged as plain: %s", body)
		}
	}
}

// TestOnlyStrictJSONIsPlain puts every odd byte into, instead of and before every
// byte of good payloads.
func TestOnlyStrictJSONIsPlain(t *testing.T) {
	t.Parallel()
	const odd = "\"\\{}[],:x0-+.eE/ \n\x00\x1f\x7f\x80\xff"
	for command, body := range map[string][]byte{
		RecallCommand:                    recallWith(`"MsgSeqList": [{"MsgSeq":10},{"MsgSeq":7,"MsgId":"x"}] , "EventTime":12`),
		"Group.CallbackAfterMemberExit":  Sample("Group.CallbackAfterMemberExit"),
		"State.StateChange":              Sample("State.StateChange"),
		"Future.CallbackBeforeSomething": []byte(`{"CallbackCommand":"Future.CallbackBeforeSomething","EventTime":12,"GroupId":"x","Type":"y"}`),
	} {
		taken := 0
		for i := range body {
			bodies := [][]byte{body[:i], slices.Delete(slices.Clone(body), i, i+1), slices.Insert(slices.Clone(body), i, body[i])}
			for _, c := range []byte(odd) {
				bodies = append(bodies, slices.Insert(slices.Clone(body), i, c), slices.Replace(slices.Clone(body), i, i+1, c))
			}
			for _, b := range bodies {
				if wantPlainIsValid(t, b, command) {
					taken++
				}
			}
		}
		if taken == 0 {
			t.Errorf("no payload of %s was judged as plain", command)
		}
	}
}
