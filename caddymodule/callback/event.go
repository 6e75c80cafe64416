// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

import (
	"crypto/sha256"
	"encoding/hex"
)

// Event is the envelope of a callback: what nearly every payload says of who
// did what to which group. Absent fields are empty.
type Event struct {
	Command   string   // CallbackCommand
	Class     Class    // of the command
	GroupID   string   // GroupId
	TopicID   string   // TopicId; there only if the event is about a topic
	Operator  string   // the requester, whose field's name differs by command
	GroupType string   // Type: Private, Public, ChatRoom, AVChatRoom, Community; an open set
	EventTime int64    // EventTime, in milliseconds
	MsgSeqs   []uint32 // MsgSeq of the messages it is about

	body       []byte
	identified bool
}

// ContentKey returns a key that two deliveries of the same event share and no
// other event of the same app has: a hash of command and payload.
//
// It is empty if nothing in the payload (a time, a sequence number, a message
// key) tells the event from a later one that is just like it, such as the same
// user joining again: those must not be taken for duplicates. The body given to
// Inspect must not have changed since.
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
