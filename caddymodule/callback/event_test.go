// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
)

func idOf(t *testing.T, body []byte, command string) string {
	t.Helper()
	event, err := Inspect(body, command)
	if err != nil {
		t.Fatal(err)
	}
	id, random := event.ID("1400000000", body)
	if random {
		return ""
	}
	return id
}

func TestIDDependsOnTheBody(t *testing.T) {
	t.Parallel()
	key := idOf(t, []byte(sampleRecall), RecallCommand)
	if key == "" || key != idOf(t, bytes.Clone([]byte(sampleRecall)), RecallCommand) {
		t.Errorf("the same body has the ID %q, and then another", key)
	}
	seen := map[string]string{key: sampleRecall}
	for _, body := range []string{
		strings.Replace(sampleRecall, "130", "131", 1),
		strings.Replace(sampleRecall, "1670574414123", "1670574414124", 1),
		strings.Replace(sampleRecall, "admin", "Admin", 1),
		strings.Replace(sampleRecall, "}", `,"X":1}`, 1),
	} {
		other := idOf(t, []byte(body), RecallCommand)
		if twin, is := seen[other]; is || other == "" {
			t.Errorf("%s has the ID %q of %s", body, other, twin)
		}
		seen[other] = body
	}
}

func TestIDDependsOnTheCommand(t *testing.T) {
	t.Parallel()
	body := []byte(`{"EventTime":1670574414123}`)
	if a, b := idOf(t, body, "X.A"), idOf(t, body, "X.B"); a == "" || a == b {
		t.Errorf("two commands have the IDs %q and %q", a, b)
	}
}

func TestIDIsRandomWithoutADistinguishingField(t *testing.T) {
	t.Parallel()
	for _, body := range []string{
		`{}`,
		`{"CallbackCommand":"X.CallbackAfterNew","GroupId":"a","Type":"Public","Operator_Account":"b"}`,
		`{"EventTime":null,"MsgSeq":{}}`,
		`{"EventTime":0}`,
		`{"EventTime":"0"}`,
	} {
		if key := idOf(t, []byte(body), "X.CallbackAfterNew"); key != "" {
			t.Errorf("%s has the ID %q", body, key)
		}
	}
}

// An Event must not share memory with another body's.
func TestEventsAreIndependentOfEachOther(t *testing.T) {
	t.Parallel()
	type kept struct {
		event       Event
		id, body    string
		firstMsgSeq uint32
	}
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			var all []kept
			for i := range 200 {
				id := fmt.Sprintf("w%d-%d-%s", worker, i, strings.Repeat("x", i%50))
				seq := uint32(worker*1000 + i + 1)
				body := fmt.Sprintf(`{"CallbackCommand":%q,"Operator_Account":"o%s","Type":"t%s","GroupId":"g%s","TopicId":"\u0074%s","EventTime":%d,"MsgSeqList":[{"MsgSeq":%d},{"MsgSeq":1}]}`,
					RecallCommand, id, id, id, id, seq, seq)
				event, err := Inspect([]byte(body), RecallCommand)
				if err != nil {
					t.Error(err)
					return
				}
				all = append(all, kept{event, id, body, seq})
				// A refusal half-way, and a payload without an envelope, leave nothing behind.
				if _, err := Inspect([]byte(body[:len(body)/2]), RecallCommand); err == nil {
					t.Error("half a body is accepted")
				}
				if e, err := Inspect([]byte(`{}`), "X.Y"); err != nil || e.GroupID+e.TopicID+e.Operator+e.GroupType != "" || e.EventTime != 0 || e.MsgSeqs != nil || e.Conversation != "" {
					t.Errorf("an empty payload gives %+v, %v", e, err)
				}
			}
			for _, k := range all {
				e := k.event
				if e.Operator != "o"+k.id || e.GroupType != "t"+k.id || e.GroupID != "g"+k.id || e.TopicID != "t"+k.id ||
					e.EventTime != int64(k.firstMsgSeq) || !slices.Equal(e.MsgSeqs, []uint32{k.firstMsgSeq, 1}) {
					t.Errorf("the event of %s has become %+v", k.body, e)
				}
			}
		})
	}
	wg.Wait()
}
