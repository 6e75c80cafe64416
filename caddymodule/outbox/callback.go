// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package outbox

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/riverqueue/river"
)

// Callback is one stored callback: what a person wants to see of it first, and
// then the request as it has to enter the site again. It is the arguments of a
// River job and is stored as JSON in the order of its fields. A row written by
// an older version, with fields missing or unknown, still delivers.
type Callback struct {
	Command  string   `json:"command"`
	SdkAppID string   `json:"sdk_app_id"`
	GroupID  string   `json:"group_id,omitempty"`
	MsgSeqs  []uint32 `json:"msg_seqs,omitempty"`

	// Guard names the guard that stored the callback, and through which it is
	// delivered. CheckName says which names are allowed.
	Guard string `json:"guard" river:"unique"`

	// Consumer names the one that this copy of the callback is for; empty for the
	// guard's own backend. Each has a queue of its own.
	Consumer string `json:"consumer,omitempty"`

	// Key tells one event from another within a guard. Of callbacks with the same
	// key only the first is stored. An empty key is like no other.
	Key string `json:"key" river:"unique"`

	// Signed says that the original carried a Sign, so that the delivery gets a
	// fresh one. Neither Sign nor RequestTime is ever stored.
	Signed bool `json:"signed"`

	// Received is when the callback came in.
	Received time.Time `json:"received"`

	// Server names the HTTP server the callback came in through.
	Server     string              `json:"server"`
	Method     string              `json:"method"`
	Host       string              `json:"host"`
	URI        string              `json:"uri"`
	Proto      string              `json:"proto"`
	TLS        bool                `json:"tls"`
	RemoteAddr string              `json:"remote_addr"`
	Header     map[string][]string `json:"header"`

	// Body is the payload, byte for byte. It is last, so that a row can be read
	// without it. A string and not bytes, because bytes would be stored as base64.
	Body string `json:"body,omitempty"`
}

// kind names the job kind of every stored callback.
const kind = "tim_callback"

// Kind implements river.JobArgs.
func (Callback) Kind() string { return kind }

// ErrInvalid is what Put returns, wrapped, for a callback that cannot be stored
// as it is. The wrapping error names the field and never its content.
var ErrInvalid = errors.New("callback cannot be stored")

var nameFormat = regexp.MustCompile(`^[a-z0-9]+(?:[_-]?[a-z0-9]+)*$`)

// CheckName returns an error if name cannot name a guard or a consumer: up to 64
// lower-case letters and digits, in words joined by single hyphens or underscores.
func CheckName(name string) error {
	if len(name) > 64 || !nameFormat.MatchString(name) {
		return fmt.Errorf("name %q: want up to 64 lower-case letters and digits, joined by single - or _", name)
	}
	return nil
}

// Queue is the deliveries of one guard to one consumer, or to its own backend.
type Queue struct{ Guard, Consumer string }

// maxQueue is how long River's names of queues are at most.
const maxQueue = 64

// Check returns an error if the queue cannot have deliveries.
func (q Queue) Check() error {
	if err := CheckName(q.Guard); err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	if q.Consumer == "" {
		return nil
	}
	if err := CheckName(q.Consumer); err != nil {
		return fmt.Errorf("consumer: %w", err)
	}
	if len(q.river()) > maxQueue {
		return fmt.Errorf("guard %s and consumer %s: the names have more than %d characters together", q.Guard, q.Consumer, maxQueue-len(consumerMark))
	}
	return nil
}

// consumerMark stands between guard and consumer in the name of a River queue. No
// guard's or consumer's name has it.
const consumerMark = "|"

// river returns the name of the River queue.
func (q Queue) river() string {
	if q.Consumer == "" {
		return q.Guard
	}
	return q.Guard + consumerMark + q.Consumer
}

func queueOf(name string) Queue {
	guard, consumer, _ := strings.Cut(name, consumerMark)
	return Queue{guard, consumer}
}

func (c *Callback) queue() Queue { return Queue{c.Guard, c.Consumer} }

// check rejects what JSON or PostgreSQL would store as something else.
func (c *Callback) check() error {
	if err := c.queue().Check(); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	for _, f := range []struct{ name, value string }{
		{"body", c.Body},
		{"uri", c.URI},
		{"host", c.Host},
		{"method", c.Method},
		{"group_id", c.GroupID},
		{"command", c.Command},
		{"sdk_app_id", c.SdkAppID},
		{"key", c.Key},
		{"server", c.Server},
		{"proto", c.Proto},
		{"remote_addr", c.RemoteAddr},
	} {
		if !storable(f.value) {
			return fmt.Errorf("%w: %s is not UTF-8 text", ErrInvalid, f.name)
		}
	}
	for name, values := range c.Header {
		for _, v := range values {
			if !storable(name) || !storable(v) {
				return fmt.Errorf("%w: header is not UTF-8 text", ErrInvalid)
			}
		}
	}
	return nil
}

// storable reports whether s survives the store unchanged: encoding/json replaces
// invalid UTF-8, and PostgreSQL's jsonb has no NUL.
func storable(s string) bool {
	return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0
}

// identity is what River's unique index tells callbacks apart by. The empty
// string means that nothing equals this callback.
func (c *Callback) identity() string {
	if c.Key == "" {
		return ""
	}
	return c.Guard + "\x00" + c.Key
}

// insertOpts says how River stores c.
func (c *Callback) insertOpts(maxAttempts int) *river.InsertOpts {
	opts := &river.InsertOpts{Queue: c.queue().river(), MaxAttempts: maxAttempts}
	if c.Key != "" {
		// By arguments alone. River's default states count a row from its
		// insertion until the cleaner removes it as completed, which makes the
		// window slide; ByPeriod would cut it at fixed hours, and two copies
		// either side of a cut would both pass. Discarded and cancelled rows
		// do not count: their event has not been delivered.
		opts.UniqueOpts = river.UniqueOpts{ByArgs: true}
	}
	return opts
}
