// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

import (
	"os"
	"slices"
	"testing"
	"time"
)

func TestParseRecallParsesTheDocumentedSample(t *testing.T) {
	t.Parallel()
	body, err := os.ReadFile("testdata/recall.json")
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseRecall(body)
	if err != nil {
		t.Fatal(err)
	}
	if got.Operator != "admin" || got.GroupType != "Community" || got.GroupID != "1213456" ||
		got.TopicID != "@TGS#_@TGS#cQVLVHIM62CJ@TOPIC#_TestTopic" || !got.EventTime.Equal(time.UnixMilli(1670574414123)) ||
		!slices.Equal(got.Messages, []RecalledMessage{{MsgSeq: 130}}) {
		t.Errorf("got %+v", got)
	}
}

func TestParseRecallParsesNewerAndOlderPayloads(t *testing.T) {
	t.Parallel()
	got, err := ParseRecall(recallWith(`"MsgSeqList":[{"MsgSeq":4294967295,"MsgId":"144115213033478435-1739361321-2512805311"},{"MsgSeq":1}],"EventTime":1670574414123`))
	if err != nil {
		t.Fatal(err)
	}
	want := []RecalledMessage{{4294967295, "144115213033478435-1739361321-2512805311"}, {1, ""}}
	if !slices.Equal(got.Messages, want) || !got.EventTime.Equal(time.UnixMilli(1670574414123)) {
		t.Errorf("got %+v", got)
	}
	got, err = ParseRecall(recallWith(`"MsgSeqList":[{"MsgSeq":7}]`))
	if err != nil {
		t.Fatal(err)
	}
	if !got.EventTime.IsZero() || got.TopicID != "" {
		t.Errorf("what the payload does not say is not empty: %+v", got)
	}
}

func TestParseRecallRejectsWhatInspectRejects(t *testing.T) {
	t.Parallel()
	_, err := ParseRecall(recallWith(`"MsgSeqList":[]`))
	wantRejection(t, err, ReasonPayload, "/MsgSeqList")
	_, err = ParseRecall([]byte(`{"CallbackCommand":"Group.CallbackAfterSendMsg"}`))
	wantRejection(t, err, ReasonMismatch, "/CallbackCommand")
}
