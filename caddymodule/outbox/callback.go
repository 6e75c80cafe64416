// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package outbox

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/riverqueue/river"

	"github.com/timguard/timguard/caddymodule/internal/name"
)

// Callback is a stored callback: a summary for operators, followed by the request that
// is sent again. It forms the arguments of a River job and is stored as
// JSON in the order of the fields. Rows of other versions, with missing or unknown
// fields, are still delivered.
type Callback struct {
	Command  string   `json:"command"`
	SdkAppID string   `json:"sdk_app_id"`
	GroupID  string   `json:"group_id,omitempty"`
	MsgSeqs  []uint32 `json:"msg_seqs,omitempty"`

	// Conversation identifies the callbacks that belong in one order.
	Conversation string `json:"conversation,omitempty"`

	// EventID identifies the event in all copies, attempts and repetitions.
	EventID string `json:"event_id,omitempty"`

	// Guard is the name of the guard that stored the callback. Guards of that name
	// deliver it.
	Guard string `json:"guard" river:"unique"`

	// Consumer is the name of the consumer that this copy of the callback is for. It
	// is empty for the guard's own backend. Each consumer has its own queue.
	Consumer string `json:"consumer,omitempty"`

	// Key identifies the event within a guard. Of several callbacks with the same
	// key, only the first is stored. Callbacks with an empty key are all stored.
	Key string `json:"key" river:"unique"`

	// Signed is whether the original request had a Sign. If so, each attempt gets a
	// new one. Sign and RequestTime are never stored.
	Signed bool `json:"signed"`

	// Received is when the callback was received.
	Received time.Time `json:"received"`

	Method string `json:"method"`
	Host   string `json:"host"`

	// URI is the target of the original request, and Target what the handlers before the
	// guard have made of it. Target is empty if they are the same.
	URI    string `json:"uri"`
	Target string `json:"target,omitempty"`

	Proto      string              `json:"proto"`
	TLS        bool                `json:"tls"`
	RemoteAddr string              `json:"remote_addr"`
	ClientIP   string              `json:"client_ip,omitempty"`
	Trusted    bool                `json:"trusted,omitempty"` // RemoteAddr was a trusted proxy
	Root       string              `json:"root,omitempty"`    // of the site's files
	Header     map[string][]string `json:"header"`

	// Body is the unmodified payload. It is a string because a byte slice would be
	// stored as base64, and the last field so that operators see the others first.
	Body string `json:"body,omitempty"`

	// Sealed contains Header and Body if they are encrypted. This package does not decrypt
	// it.
	Sealed []byte `json:"sealed,omitempty"`

	// MaxAttempts is the maximum number of attempts. It is not part of the arguments.
	MaxAttempts int `json:"-"`

	// Ordered is whether the queue is. It is not part of the arguments.
	Ordered bool `json:"-"`

	id int64 // set by Put
}

// kind is the River job kind of stored callbacks.
const kind = "tim_callback"

// Kind implements river.JobArgs.
func (Callback) Kind() string { return kind }

// ErrInvalid is wrapped by Put's errors for callbacks that cannot be stored unchanged.
// The wrapping error names the field, but does not contain its value.
var ErrInvalid = errors.New("callback cannot be stored")

// Queue identifies the deliveries of a guard to a consumer, or to the guard's own
// backend if Consumer is empty.
type Queue struct{ Guard, Consumer string }

// maxQueue is the maximum length of River's queue names.
const maxQueue = 64

// Check returns an error if a name in the queue is invalid, or if the names are too
// long together.
func (q Queue) Check() error {
	if err := name.Check(q.Guard); err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	if q.Consumer == "" {
		return nil
	}
	if err := name.Check(q.Consumer); err != nil {
		return fmt.Errorf("consumer: %w", err)
	}
	if len(q.river()) > maxQueue {
		return fmt.Errorf("guard %s and consumer %s: the names must not have more than %d characters together", q.Guard, q.Consumer, maxQueue-len(consumerMark))
	}
	return nil
}

// consumerMark separates guard and consumer in the name of a River queue. The names do
// not contain it.
const consumerMark = "|"

// river returns the name of the River queue.
func (q Queue) river() string {
	if q.Consumer == "" {
		return q.Guard
	}
	return q.Guard + consumerMark + q.Consumer
}

func queueOf(riverName string) Queue {
	guard, consumer, _ := strings.Cut(riverName, consumerMark)
	return Queue{guard, consumer}
}

func (c *Callback) queue() Queue { return Queue{c.Guard, c.Consumer} }

// check rejects callbacks that would be modified by storing them.
func (c *Callback) check() error {
	if err := c.queue().Check(); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	for _, f := range []struct{ field, value string }{
		{"body", c.Body},
		{"uri", c.URI},
		{"host", c.Host},
		{"method", c.Method},
		{"group_id", c.GroupID},
		{"command", c.Command},
		{"sdk_app_id", c.SdkAppID},
		{"key", c.Key},
		{"target", c.Target},
		{"conversation", c.Conversation},
		{"event_id", c.EventID},
		{"proto", c.Proto},
		{"remote_addr", c.RemoteAddr},
	} {
		if !storable(f.value) {
			return fmt.Errorf("%w: %s is not UTF-8 text", ErrInvalid, f.field)
		}
	}
	for header, values := range c.Header {
		for _, v := range values {
			if !storable(header) || !storable(v) {
				return fmt.Errorf("%w: header is not UTF-8 text", ErrInvalid)
			}
		}
	}
	return nil
}

// storable reports whether s can be stored unchanged: encoding/json replaces invalid
// UTF-8, and PostgreSQL's jsonb does not support NUL.
func storable(s string) bool {
	return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0
}

// waitsItsTurn reports whether the callback may have to wait for others of its conversation.
func (c *Callback) waitsItsTurn() bool { return c.Ordered && c.Conversation != "" }

// identity returns what River's unique index compares, or "" if the callback is never
// a duplicate.
func (c *Callback) identity() string {
	if c.Key == "" {
		return ""
	}
	return c.Guard + "\x00" + c.Key
}

// insertOpts returns the options with which River inserts c.
func (c *Callback) insertOpts() *river.InsertOpts {
	opts := &river.InsertOpts{Queue: c.queue().river(), MaxAttempts: c.MaxAttempts, Pending: c.waitsItsTurn()}
	if c.Key != "" {
		// With River's default states, a row counts until it is removed some time
		// after its completion. ByPeriod would instead split time into fixed
		// periods, and accept a duplicate if a period ended in between. Discarded
		// and cancelled rows do not count, because their event has not been
		// delivered.
		opts.UniqueOpts = river.UniqueOpts{ByArgs: true}
	}
	return opts
}
