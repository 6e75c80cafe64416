// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.uber.org/zap/zapcore"

	"github.com/timguard/timguard/caddymodule/callback"
	"github.com/timguard/timguard/caddymodule/internal/body"
)

// call is what the guard knows of one request: what judge has found out, and what the
// action has added.
type call struct {
	judgment

	// verdict is what was answered in the backend's place: allow, forbid or deliver. It may
	// be set while handlers that do not heed the deadline are running.
	verdict atomic.Pointer[string]

	consumer string // the consumer that a delivery is for

	id       string // of the event; see eventID
	randomID bool
	idOnce   sync.Once
}

// judgment is the result of judge.
type judgment struct {
	start     time.Time
	rawQuery  string        // handlers may modify that of the request
	longURI   bool          // values of the query are to be copied before they are remembered
	took      time.Duration // excluding the time to read the body
	query     callback.Query
	app       *App // nil if SdkAppid is not configured
	verified  bool // Sign and RequestTime are valid
	token     int  // position of the token that made the Sign, from 1; 0 if none did
	skew      time.Duration
	rule      *Rule // nil if no rule allows the command
	body      body.Body
	event     callback.Event
	rejection *callback.Rejection // nil if the callback is valid
	action    string
	fallback  bool // the action is the rule's fallback, because the payload is refused
	closes    bool // close the connection after an answer instead of reading the rest of the body
}

// eventID returns the ID of the event of a valid callback, or else "". It is computed when
// it is first needed, because it is a hash of the body.
func (c *call) eventID() string {
	c.idOnce.Do(func() {
		if c.id == "" && c.event.Command != "" {
			c.id, c.randomID = c.event.ID(c.query.SdkAppID, c.body.Bytes())
		}
	})
	return c.id
}

// class returns the class of the command in the query, or "" if there is none.
func (j *judgment) class() callback.Class {
	if j.query.CallbackCommand == "" {
		return ""
	}
	return callback.ClassOf(j.query.CallbackCommand)
}

const placeholderPrefix = "http.tim_callback."

// placeholder implements [caddy.ReplacerFunc].
func (l *lastCall) placeholder(key string) (any, bool) {
	name, ok := strings.CutPrefix(key, placeholderPrefix)
	if !ok || !slices.Contains(valueNames[:], name) {
		return nil, false
	}
	return l.value(name), true
}

// String is the value of {http.vars.tim_callback}. It must not contain the Sign.
func (l *lastCall) String() string { return l.value("command") }

// valueNames are the names of a call's values in placeholders, logs and traces.
var valueNames = [...]string{
	"sdk_app_id", "command", "class", "group_id", "topic_id", "from", "to", "operator", "conversation", "group_type", "event_time",
	"event_id", "msg_seqs", "msg_key", "opt_platform", "client_ip", "action", "verdict", "consumer", "reason", "path",
}

// value returns the value of that name as printable text.
func (c *call) value(name string) string { return callback.Printable(c.rawValue(name)) }

// maxShown limits the values in logs and traces. 100 accounts or sequence numbers fit.
const maxShown = 4096

// shown returns the value of that name as logs and traces have it: printable, and not so long
// that a caller could fill the disk.
func (c *call) shown(name string) string {
	return callback.Printable(shortened(c.rawValue(name), maxShown))
}

// shortened returns the beginning of a text that is longer than most bytes.
func shortened(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}

func (c *call) rawValue(name string) string {
	switch name {
	case "sdk_app_id":
		return c.query.SdkAppID
	case "command":
		return c.query.CallbackCommand
	case "class":
		return string(c.class())
	case "opt_platform":
		return c.query.OptPlatform
	case "client_ip":
		return c.query.ClientIP
	case "action":
		return c.action
	case "verdict":
		if v := c.verdict.Load(); v != nil {
			return *v
		}
		return ""
	case "consumer":
		return c.consumer
	case "reason", "path":
		return c.fault(name)
	}
	return c.eventValue(name)
}

// eventValue returns a value of the payload.
func (c *call) eventValue(name string) string {
	switch name {
	case "group_id":
		return c.event.GroupID
	case "topic_id":
		return c.event.TopicID
	case "from":
		return c.event.From
	case "to":
		return c.event.To
	case "operator":
		return c.event.Operator
	case "conversation":
		return c.event.Conversation
	case "group_type":
		return c.event.GroupType
	case "event_time":
		return eventTime(c.event)
	case "event_id":
		return c.eventID()
	case "msg_seqs":
		return joinSeqs(c.event.MsgSeqs)
	case "msg_key":
		return c.event.MsgKey
	}
	return ""
}

// fault returns the reason or the path of the rejection, if any.
func (c *call) fault(name string) string {
	switch {
	case c.rejection == nil:
		return ""
	case name == "reason":
		return string(c.rejection.Reason)
	default:
		return c.rejection.Path
	}
}

func eventTime(e callback.Event) string {
	if e.EventTime == 0 {
		return ""
	}
	return strconv.FormatInt(e.EventTime, 10)
}

// maxSeqs is the maximum number of sequence numbers that are logged.
const maxSeqs = 100

// joinSeqs formats up to maxSeqs numbers. If there are more, it appends their count.
func joinSeqs(seqs []uint32) string {
	var b []byte
	for i, seq := range seqs[:min(len(seqs), maxSeqs)] {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendUint(b, uint64(seq), 10)
	}
	if len(seqs) > maxSeqs {
		b = fmt.Appendf(b, ",… (%d)", len(seqs))
	}
	return string(b)
}

// attributes returns the call's values as attributes of a span.
func (c *call) attributes() []attribute.KeyValue {
	var attributes []attribute.KeyValue
	for _, name := range valueNames {
		if value := c.shown(name); value != "" {
			attributes = append(attributes, attribute.String("tim_callback."+name, value))
		}
	}
	return attributes
}

// MarshalLogObject implements [zapcore.ObjectMarshaler]. It omits empty values.
func (c *call) MarshalLogObject(enc zapcore.ObjectEncoder) error {
	for _, name := range valueNames {
		if value := c.shown(name); value != "" {
			enc.AddString(name, value)
		}
	}
	return nil
}

// Interface guards
var _ zapcore.ObjectMarshaler = (*call)(nil)
