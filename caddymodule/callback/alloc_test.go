// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

//go:build !race

package callback

import "testing"

// Not parallel, because AllocsPerRun counts all goroutines; not under the race
// detector, which adds allocations.
func TestInspectAllocatesAtMostTwice(t *testing.T) {
	for command, body := range map[string]string{
		RecallCommand:                         sampleRecall,
		"Group.CallbackAfterSendMsg":          chatMessage,
		"C2C.CallbackBeforeSendMsg":           string(Sample("C2C.CallbackBeforeSendMsg")),
		"Group.CallbackAfterGroupFull":        string(Sample("Group.CallbackAfterGroupFull")),
		"Future.CallbackAfterAnything":        `{"CallbackCommand":"Future.CallbackAfterAnything","MsgTime":1,"Unknown":[{"a":"b"}],"MsgSeqList":[{"MsgSeq":1}]}`,
		"Live.CallbackAfterCreateRoom":        `{"CallbackCommand":"Live.CallbackAfterCreateRoom","RoomInfo":{"RoomId":"x"}}`,
		"Group.CallbackAfterChangeGroupOwner": string(Sample("Group.CallbackAfterChangeGroupOwner")),
	} {
		allocations := testing.AllocsPerRun(1000, func() {
			if _, err := Inspect([]byte(body), command); err != nil {
				t.Fatal(err)
			}
		})
		if allocations-1 > 2 { // one is for the body
			t.Errorf("%s: got %v allocations, want at most 2", command, allocations-1)
		}
	}
}
