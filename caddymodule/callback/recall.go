// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

import (
	"time"

	"github.com/go-json-experiment/json"
)

// Recall is the payload of [RecallCommand]: a client user, or an administrator
// over REST, recalled messages of a group. See
// https://www.tencentcloud.com/document/product/1047/46979.
type Recall struct {
	// UserID of the one who recalls, who need not be the messages' author.
	Operator string `json:"Operator_Account"`

	// Private, Public, ChatRoom, AVChatRoom, Community; an open set.
	GroupType string `json:"Type"`

	// Any printable ASCII is legal in it.
	GroupID string `json:"GroupId"`

	// The recalled messages, at least one.
	Messages []RecalledMessage `json:"MsgSeqList"`

	// There only if the messages were in a topic of the group.
	TopicID string `json:"TopicId"`

	// When it happened, to the millisecond; zero if the payload does not say.
	EventTime time.Time `json:"-"`
}

// RecalledMessage names one recalled message.
type RecalledMessage struct {
	// Number of the message in its group (or topic), from 1.
	MsgSeq uint32 `json:"MsgSeq"`

	// The client's name for the message; empty in older payloads.
	MsgID string `json:"MsgId"`
}

// ParseRecall inspects the body as a [RecallCommand] and returns it as a typed
// event. Its errors are those of [Inspect].
func ParseRecall(body []byte) (Recall, error) {
	event, err := Inspect(body, RecallCommand)
	if err != nil {
		return Recall{}, err
	}
	var recall Recall
	if err := json.Unmarshal(body, &recall); err != nil { // Inspect accepts nothing that this does not
		return Recall{}, reject(ReasonJSON, "", "not strict JSON")
	}
	if event.EventTime != 0 {
		recall.EventTime = time.UnixMilli(event.EventTime)
	}
	return recall, nil
}
