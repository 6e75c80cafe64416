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
	SDKAppID string   `json:"sdk_app_id" river:"unique"`
	GroupID  string   `json:"group_id,omitempty"`
	MsgSeqs  []uint32 `json:"msg_seqs,omitempty"`

	// Guard names the guard that stored the callback and that delivers it.
	// CheckGuard says which names are allowed.
	Guard string `json:"guard" river:"unique"`

	// Key tells one event from another within a guard and an app. Of callbacks
	// with the same key only the first is stored. An empty key is like no other.
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
	Body string `json:"body"`
}

// Kind names the job kind of every stored callback.
func (Callback) Kind() string { return "tim_callback" }

// Delivery is one attempt at handing a stored callback over.
type Delivery struct {
	Callback

	// ID is the row's number in the store.
	ID int64

	// Attempt counts from 1.
	Attempt int
}

// ErrInvalid is what Put returns, wrapped, for a callback that cannot be stored
// as it is. The wrapping error names the field and never its content.
var ErrInvalid = errors.New("callback cannot be stored")

// guardName is what River takes for a queue name.
var guardName = regexp.MustCompile(`^[a-z0-9]+(?:[_-]?[a-z0-9]+)*$`)

// CheckGuard returns an error if name cannot name a guard: up to 64 lowercase
// letters and digits, in words joined by single hyphens or underscores.
func CheckGuard(name string) error {
	if len(name) > 64 || !guardName.MatchString(name) {
		return fmt.Errorf("guard name %q: want up to 64 lowercase letters and digits, joined by single - or _", name)
	}
	return nil
}

// check refuses what JSON or PostgreSQL would store as something else.
func (c *Callback) check() error {
	if err := CheckGuard(c.Guard); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	for _, f := range []struct{ name, value string }{
		{"body", c.Body},
		{"uri", c.URI},
		{"host", c.Host},
		{"method", c.Method},
		{"group_id", c.GroupID},
		{"command", c.Command},
		{"sdk_app_id", c.SDKAppID},
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

// storable tells whether s survives the store unchanged: encoding/json replaces
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
	return c.Guard + "\x00" + c.SDKAppID + "\x00" + c.Key
}

// insertOpts says how River stores c.
func (c *Callback) insertOpts(maxAttempts int) *river.InsertOpts {
	opts := &river.InsertOpts{Queue: c.Guard, MaxAttempts: maxAttempts}
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
