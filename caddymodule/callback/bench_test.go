// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

import (
	"testing"
	"time"
)

// The documented sample, on one line as Tencent sends it.
const sampleRecall = `{"CallbackCommand":"Group.CallbackAfterRecallMsg","Operator_Account":"admin","Type":"Community","GroupId":"1213456","MsgSeqList":[{"MsgSeq":130}],"TopicId":"@TGS#_@TGS#cQVLVHIM62CJ@TOPIC#_TestTopic","EventTime":"1670574414123"}`

const sampleQuery = "CallbackCommand=Group.CallbackAfterRecallMsg&ClientIP=127.0.0.1&OptPlatform=RESTAPI&RequestTime=1669872112&SdkAppid=1400000000&Sign=17773bc39a671d7b9aa835458704d2a6db81360a5940292b587d6d760d484061&contenttype=json"

func vectorClock() time.Time { return time.Unix(1669872112, 0) }

// BenchmarkJudge measures all checks of a callback, in parallel.
func BenchmarkJudge(b *testing.B) {
	v, err := NewVerifier([]string{"xxxxyyyy"}, time.Minute, vectorClock)
	if err != nil {
		b.Fatal(err)
	}
	body := []byte(sampleRecall)
	b.ReportAllocs()
	for b.Loop() {
		q, err := ParseQuery(sampleQuery)
		if err != nil {
			b.Fatal(err)
		}
		if _, _, err := v.Verify(q); err != nil {
			b.Fatal(err)
		}
		if _, err := Inspect(body, q.CallbackCommand); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseQuery(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseQuery(sampleQuery); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerifier(b *testing.B) {
	v, _ := NewVerifier([]string{"xxxxyyyy"}, time.Minute, vectorClock)
	q, _ := ParseQuery(sampleQuery)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := v.Verify(q); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkInspect(b *testing.B) {
	body := []byte(sampleRecall)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Inspect(body, RecallCommand); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkEncodingJSON decodes the same payload with encoding/json, without any
// checks.
func BenchmarkEncodingJSON(b *testing.B) {
	body := []byte(sampleRecall)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	decode := decodeRecall(body)
	for b.Loop() {
		if err := decode(); err != nil {
			b.Fatal(err)
		}
	}
}
