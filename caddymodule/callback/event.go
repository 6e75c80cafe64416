// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"slices"
)

// Event holds the fields that many callbacks have in common: who did what to whom, and
// where. Fields that the payload does not have are empty. An Event has no part of the
// body that it was read from.
type Event struct {
	Command   string   // CallbackCommand
	Class     Class    // of the command
	GroupID   string   // GroupId
	TopicID   string   // TopicId; only if the event is about a topic
	RoomID    string   // RoomId; only if the event is about a room
	From      string   // the accounts that sent or caused it, such as From_Account; see MaxAccounts
	To        string   // the accounts that it is about, such as To_Account; see MaxAccounts
	Operator  string   // the requester; Operator_Account or, in some commands, another field
	GroupType string   // Type, such as Private, Public, ChatRoom, AVChatRoom or Community
	EventTime int64    // EventTime, in milliseconds
	MsgSeqs   []uint32 // MsgSeq of each message that the event is about
	MsgKey    string   // MsgKey of the message, or of the first of several

	// Conversation identifies the events that belong in one order: the topic, group,
	// room or official account; else the two accounts, the smaller first, joined by a
	// comma; else the account; else "".
	Conversation string

	// SdkAppID is the app in the body, which only ContentCallback.ResultNotify has.
	SdkAppID string

	// Drift says how the payload differs from the table of commands. It is nil if it
	// does not.
	Drift *Drift

	identified bool // a field distinguishes the event from a later one
}

// MaxAccounts is the maximum number of accounts in Event.From and Event.To, which are
// joined by commas.
const MaxAccounts = 100

// Drift are the differences between a valid payload and the table of commands, which
// show that Tencent has changed the payload. At most 16 names are noted of each kind.
type Drift struct {
	Missing []string // fields that Tencent documents as always present
	Unknown []string // names that the table lacks, as Printable returns them
}

const maxDrift = 16

// ID returns an identifier of the event in hex, and whether it is random. It is a hash of
// app, command and body, so it is the same if Tencent posts the event again. It is random
// if the payload has nothing (a time, a sequence number, a message key) that
// distinguishes the event from a later one, such as the same user joining again.
func (e *Event) ID(sdkAppID string, body []byte) (id string, random bool) {
	if !e.identified {
		var random [sha256.Size]byte
		_, _ = rand.Read(random[:]) // never fails
		return hex.EncodeToString(random[:]), true
	}
	h := sha256.New()
	for _, part := range []string{sdkAppID, e.Command} {
		h.Write([]byte(part))
		h.Write([]byte{0})
	}
	h.Write(body)
	return hex.EncodeToString(h.Sum(nil)), false
}

// accounts are up to MaxAccounts accounts, without repetitions and empty ones. The first
// is apart, because most events have only one, which needs no memory then.
type accounts struct {
	first []byte
	more  [][]byte
}

func (a *accounts) add(account []byte) {
	is := func(other []byte) bool { return bytes.Equal(other, account) }
	switch {
	case len(account) == 0:
	case len(a.first) == 0:
		a.first = account
	case len(a.more) < MaxAccounts-1 && !is(a.first) && !slices.ContainsFunc(a.more, is):
		a.more = append(a.more, account)
	}
}

// one reports whether there is exactly one account.
func (a *accounts) one() bool { return len(a.first) > 0 && len(a.more) == 0 }

// appendTo appends the accounts, joined by commas.
func (a *accounts) appendTo(text []byte) []byte {
	text = append(text, a.first...)
	for _, account := range a.more {
		text = append(append(text, ','), account...)
	}
	return text
}

// appendPair appends the two accounts that the lists have together, the smaller first. If
// they have not exactly two, it appends the only account of a list, or else the operator.
func appendPair(text []byte, from, to *accounts, operator []byte) []byte {
	if len(from.first) == 0 {
		from = &accounts{first: operator}
	}
	var pair [2][]byte
	n := 0 // distinct accounts, up to 3
	for _, list := range [...][][]byte{{from.first}, from.more, {to.first}, to.more} {
		for _, account := range list {
			switch {
			case len(account) == 0 || n > 2 || bytes.Equal(account, pair[0]) || bytes.Equal(account, pair[1]):
			case n < 2:
				pair[n] = account
				n++
			default:
				n++
			}
		}
	}
	switch {
	case n == 2:
		slices.SortFunc(pair[:], bytes.Compare)
		return append(append(append(text, pair[0]...), ','), pair[1]...)
	case from.one():
		return append(text, from.first...)
	case to.one():
		return append(text, to.first...)
	}
	return append(text, operator...)
}
