// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

import (
	"time"

	"github.com/go-json-experiment/json"
)

// Recall is the payload of [RecallCommand]: a user, or an administrator using the REST
// API, recalled messages of a group. See
// https://www.tencentcloud.com/document/product/1047/46979.
type Recall struct {
	// The UserID of whoever recalled the messages, not necessarily their author.
	Operator string `json:"Operator_Account"`

	// The type of the group, such as Private, Public, ChatRoom, AVChatRoom or
	// Community.
	GroupType string `json:"Type"`

	// The ID of the group. It may contain any printable ASCII character.
	GroupID string `json:"GroupId"`

	// The recalled messages, at least one.
	Messages []RecalledMessage `json:"MsgSeqList"`

	// The topic of the messages; empty if they were not in a topic.
	TopicID string `json:"TopicId"`

	// When the messages were recalled, with millisecond precision; zero if the
	// payload does not say.
	EventTime time.Time `json:"-"`
}

// RecalledMessage identifies a recalled message.
type RecalledMessage struct {
	// The sequence number of the message in its group or topic, from 1.
	MsgSeq uint32 `json:"MsgSeq"`

	// The client's ID of the message; empty in older payloads.
	MsgID string `json:"MsgId"`
}

// ParseRecall inspects the body as the payload of a [RecallCommand] and returns it.
// Its errors are those of [Inspect].
func ParseRecall(body []byte) (Recall, error) {
	event, err := Inspect(body, RecallCommand)
	if err != nil {
		return Recall{}, err
	}
	var recall Recall
	if err := json.Unmarshal(body, &recall); err != nil { // cannot happen after Inspect
		return Recall{}, reject(ReasonJSON, "", "not strict JSON")
	}
	if event.EventTime != 0 {
		recall.EventTime = time.UnixMilli(event.EventTime)
	}
	return recall, nil
}
