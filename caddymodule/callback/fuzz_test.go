// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// FuzzParseQuery checks that net/url reads an accepted query in the same way: every
// protocol parameter once, with the same value, and no look-alikes.
func FuzzParseQuery(f *testing.F) {
	for _, raw := range []string{
		"", sampleQuery, strings.ToLower(sampleQuery), strings.ReplaceAll(sampleQuery, "1", "%31"),
		"SdkAppid=1&SdkAppid=2", "SdkAppid[]=1", "Sdk.Appid=1", "Sign=%zz", "a;b=c", "x=%00&%00Sign=1", "OptPlatform=%C3%28", "%C5%BFign=1", "Sign", "=&=&==",
	} {
		f.Add(raw)
	}
	v, err := NewVerifier([]string{vectorToken}, time.Minute, vectorClock)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		q, err := ParseQuery(raw)
		if err != nil {
			wantReason(t, err, ReasonQuery)
			return
		}
		_, _, _ = v.Verify(q)
		if strings.Count(raw, "&") > 5000 {
			return // beyond the limit of net/url
		}
		values, err := url.ParseQuery(raw)
		if err != nil {
			t.Fatalf("net/url refuses %q: %v", raw, err)
		}
		got := []string{q.SdkAppID, q.CallbackCommand, q.ContentType, q.ClientIP, q.OptPlatform, q.Sign, q.RequestTime}
		for i, name := range parameters {
			if len(values[name]) > 1 || values.Get(name) != got[i] {
				t.Errorf("%s is %q here and %q to net/url; query %q", name, got[i], values[name], raw)
			}
			for other := range values {
				if other != name && strings.EqualFold(other, name) {
					t.Errorf("%q stands beside %s; query %q", other, name, raw)
				}
			}
		}
	})
}

// FuzzInspect checks that encoding/json, which matches names in any case and uses the
// last of several, reads an accepted body in the same way.
func FuzzInspect(f *testing.F) {
	for _, body := range [][]byte{
		[]byte(sampleRecall), []byte(`{}`), nil, []byte("\ufeff{}"), []byte(`{"a":1,}`), []byte("{//\n}"),
		recallWith(`"MsgSeqList":[{"MsgSeq":4294967295,"MsgId":"x"},{"MsgSeq":1e2}]`),
		recallPlus(`"\u0047roupId":"x"`), recallPlus(`"groupid":"x"`), recallPlus(`"x":{"a":[1.5,null,{"b":"\ud83d\ude00"}]}`),
		bytes.Replace([]byte(sampleRecall), []byte(`"1670574414123"`), []byte(`1670574414123`), 1),
	} {
		f.Add(RecallCommand, body)
		f.Add("Future.CallbackBeforeAnything", bytes.ReplaceAll(body, []byte(RecallCommand), []byte("Future.CallbackBeforeAnything")))
	}
	for _, c := range Commands() {
		f.Add(c.Name, Sample(c.Name))
	}
	f.Fuzz(func(t *testing.T, command string, body []byte) {
		before := bytes.Clone(body)
		event, err := Inspect(body, command)
		if !bytes.Equal(body, before) {
			t.Fatal("the body was changed")
		}
		if err != nil {
			wantBodyRejection(t, err, body)
			return
		}
		fields := fieldsOf(command)
		wantSameEnvelope(t, event, body, fields)
		wantExactNames(t, body, fields)
		if command == RecallCommand {
			wantSameRecall(t, event, body)
		}
	})
}

func wantBodyRejection(t *testing.T, err error, body []byte) {
	t.Helper()
	r, ok := errors.AsType[*Rejection](err)
	if !ok {
		t.Fatalf("%v is no Rejection", err)
	}
	if !slices.Contains([]Reason{ReasonJSON, ReasonPayload, ReasonMismatch}, r.Reason) {
		t.Errorf("%v is not about a body", r)
	}
	if r.Offset < 0 || r.Offset > int64(len(body)) {
		t.Errorf("%v is at %d in a body of %d", r, r.Offset, len(body))
	}
	wantRejection(t, err, r.Reason, r.Path)
}

// wantSameEnvelope decodes the body into a struct, as a Go endpoint would, and compares
// it with the Event.
func wantSameEnvelope(t *testing.T, event Event, body []byte, fields []Field) {
	t.Helper()
	var got struct {
		CallbackCommand, GroupId, TopicId, Operator_Account, Type, EventTime json.RawMessage //nolint:revive,staticcheck // the wire's names
	}
	if err := json.Unmarshal(body, &got); err != nil {
		t.Fatalf("encoding/json refuses %q: %v", body, err)
	}
	knows := func(name string) bool {
		return slices.ContainsFunc(fields, func(f Field) bool { return f.Name == name })
	}
	for name, pair := range map[string]struct {
		raw  json.RawMessage
		here string
	}{
		"CallbackCommand": {got.CallbackCommand, event.Command}, "GroupId": {got.GroupId, event.GroupID}, "TopicId": {got.TopicId, event.TopicID},
		"Operator_Account": {got.Operator_Account, event.Operator}, "Type": {got.Type, event.GroupType},
	} {
		var text string
		if !knows(name) || len(pair.raw) == 0 || json.Unmarshal(pair.raw, &text) != nil || pair.raw[0] != '"' {
			continue
		}
		if text != pair.here {
			t.Errorf("%s is %q here and %q to encoding/json; body %q", name, pair.here, text, body)
		}
	}
	if n, err := strconv.ParseInt(string(got.EventTime), 10, 64); knows("EventTime") && err == nil && n != event.EventTime {
		t.Errorf("EventTime is %d here and %d to encoding/json; body %q", event.EventTime, n, body)
	}
}

func wantSameRecall(t *testing.T, event Event, body []byte) {
	t.Helper()
	var got struct{ MsgSeqList []struct{ MsgSeq uint32 } }
	if err := json.Unmarshal(body, &got); err != nil {
		t.Fatalf("encoding/json refuses %q: %v", body, err)
	}
	seqs := make([]uint32, len(got.MsgSeqList))
	for i, message := range got.MsgSeqList {
		seqs[i] = message.MsgSeq
	}
	if len(seqs) == 0 || !slices.Equal(seqs, event.MsgSeqs) {
		t.Errorf("messages are %v here and %v to encoding/json; body %q", event.MsgSeqs, seqs, body)
	}
	recall, err := ParseRecall(body)
	if err != nil || recall.GroupID != event.GroupID || recall.Operator != event.Operator || len(recall.Messages) != len(seqs) {
		t.Errorf("the recall is %+v, %v; body %q", recall, err, body)
	}
}

// wantExactNames fails the test if an object of the payload has a known name twice, or
// another name with the same normalized form.
func wantExactNames(t *testing.T, body []byte, fields []Field) {
	t.Helper()
	dec := json.NewDecoder(bytes.NewReader(body))
	if _, err := dec.Token(); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for dec.More() {
		token, err := dec.Token()
		if err != nil {
			t.Fatal(err)
		}
		name, _ := token.(string)
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			t.Fatal(err)
		}
		if seen[name] {
			t.Errorf("%q is twice in %q", name, body)
		}
		seen[name] = true
		for _, f := range fields {
			if strings.EqualFold(f.Name, name) && f.Name != name {
				t.Errorf("%q folds onto %s in %q", name, f.Name, body)
			}
			if f.Name == name && len(f.Fields) > 0 {
				eachObject(t, value, func(object json.RawMessage) { wantExactNames(t, object, f.Fields) })
			}
		}
	}
}

// eachObject calls f for the value if it is an object, or for each object if it is an
// array.
func eachObject(t *testing.T, value json.RawMessage, f func(json.RawMessage)) {
	t.Helper()
	switch value[0] {
	case '{':
		f(value)
	case '[':
		var elements []json.RawMessage
		if err := json.Unmarshal(value, &elements); err != nil {
			t.Fatal(err)
		}
		for _, element := range elements {
			eachObject(t, element, f)
		}
	}
}
