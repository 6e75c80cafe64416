// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

import (
	"crypto/sha256"
	"encoding/hex"
)

// Event holds the fields that most callbacks have in common: who did what in which
// group. Fields that the payload does not have are empty.
type Event struct {
	Command   string   // CallbackCommand
	Class     Class    // of the command
	GroupID   string   // GroupId
	TopicID   string   // TopicId; only if the event is about a topic
	Operator  string   // the requester; Operator_Account or, in some commands, another field
	GroupType string   // Type, such as Private, Public, ChatRoom, AVChatRoom or Community
	EventTime int64    // EventTime, in milliseconds
	MsgSeqs   []uint32 // MsgSeq of each message that the event is about

	body       []byte
	identified bool // a field distinguishes the event from a later one
}

// ContentKey returns a key for deduplication, a hash of command and payload: it is
// the same if Tencent posts an event again, and differs between events of an app.
//
// It is empty if the payload has nothing (a time, a sequence number, a message key)
// that distinguishes the event from a later one, such as the same user joining
// again, which is not a duplicate. The body that was passed to Inspect must not have
// been modified since.
func (e Event) ContentKey() string {
	if !e.identified {
		return ""
	}
	h := sha256.New()
	h.Write([]byte(e.Command))
	h.Write([]byte{0})
	h.Write(e.body)
	return hex.EncodeToString(h.Sum(nil))
}
