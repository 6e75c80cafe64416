// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"strings"
	"time"

	"github.com/timguard/timguard/caddymodule/callback"
)

// remembered is what is remembered of a call.
type remembered struct {
	id       uint64
	start    time.Time
	took     time.Duration
	verified bool
	wanted   bool   // a rule refuses it, by the action reject
	command  string // if it is known
	action   string
	reason   string // of the rejection, if any
	detail   string
	passed   bool   // although there is a reason
	fallback string // the verdict, if the rule's fallback was used
	token    tokenOfApp
	skew     time.Duration
	values   [len(valueNames)]string

	// For those who watch, but not kept.
	query string
	body  []byte
}

const (
	// maxCallValue limits the values of remembered calls, which anybody may have sent.
	maxCallValue = 256

	// maxSharedURI is the length of a URI up to which a value may be a part of it in
	// memory. A longer one would stay in memory as a whole.
	maxSharedURI = 4096

	// maxSharedBody is the same for a body. The values of its event are parts of one piece
	// of memory, which would stay as a whole even for an empty value.
	maxSharedBody = 4096
)

// remembered returns what is remembered of an answered call. The ID of the event is a hash
// of the body, and is only included if it is needed.
func (c *call) remembered(withID bool) remembered {
	m := remembered{
		start: c.start, took: time.Since(c.start), verified: c.verified, action: c.action, skew: c.skew, query: c.rawQuery,
	}
	if c.body.Whole() {
		m.body = c.body.Bytes()
	}
	if c.rejection != nil {
		m.reason, m.detail, m.passed = string(c.rejection.Reason), c.rejection.Detail, c.action == actionForward
		m.wanted = c.rule != nil && c.rule.Action == actionReject
	}
	if v := c.verdict.Load(); v != nil && (c.fallback || c.action == actionForward) {
		m.fallback = *v
	}
	if known, ok := callback.Lookup(c.query.CallbackCommand); ok {
		m.command = known.Name // which does not keep the URI in memory
	}
	if c.token > 0 && c.app != nil {
		m.token = tokenOfApp{c.app.id, c.token}
	}
	copied := c.longURI || len(m.body) > maxSharedBody
	for i, name := range valueNames {
		if withID || name != "event_id" {
			m.values[i] = remember(c.rawValue(name), copied)
		}
	}
	return m
}

// remember returns the beginning of a value, printable. A copy does not keep in memory what the
// value is a part of.
func remember(value string, copied bool) string {
	text := shortened(callback.Printable(shortened(value, maxCallValue)), maxCallValue)
	if copied {
		return strings.Clone(text)
	}
	return text
}

func (m *remembered) call(guard string) Call {
	values := make(map[string]string)
	for i, value := range m.values {
		if value != "" {
			values[valueNames[i]] = value
		}
	}
	return Call{ID: m.id, Guard: guard, Time: m.start, Duration: m.took.Seconds(), Verified: m.verified, Detail: m.detail, Values: values}
}
