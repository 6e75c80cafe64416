// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// Call is a request as a guard remembers it: its values, but not its payload.
type Call struct {
	// ID increases with each call of a guard.
	ID       uint64    `json:"id"`
	Guard    string    `json:"guard"`
	Time     time.Time `json:"time"`
	Duration float64   `json:"duration"` // in seconds, until it was answered
	Verified bool      `json:"verified"` // Sign and RequestTime are valid

	// Detail says what is wrong with a callback that is refused, or in report mode would be.
	Detail string `json:"detail,omitempty"`

	// Values are those that the access log has, by their names, except empty ones. Each is
	// at most 256 bytes long.
	Values map[string]string `json:"tim_callback"`

	// Query is the query without Sign and RequestTime, and Body the payload. They are only
	// set for those who watch with bodies, and of callbacks that are refused, or in report
	// mode would be, only if Sign and RequestTime are valid.
	Query string `json:"query,omitempty"`
	Body  string `json:"body,omitempty"`
}

// MaxCalls is how many calls a guard remembers.
const MaxCalls = 1000

// LastCalls returns the newest calls that guards remember, up to n, the oldest first.
func LastCalls(f CallFilter, n int) []Call {
	historiesMu.Lock()
	all := maps.Clone(histories)
	historiesMu.Unlock()
	var calls []Call
	for name, h := range all {
		if f.Guard == "" || f.Guard == name {
			calls = append(calls, h.last(MaxCalls)...)
		}
	}
	calls = slices.DeleteFunc(calls, func(c Call) bool { return !f.matches(c.Values) })
	slices.SortFunc(calls, func(a, b Call) int { return cmp.Compare(a.ID, b.ID) })
	return calls[max(0, len(calls)-n):]
}

// CallFilter selects calls. Empty fields select all.
type CallFilter struct {
	Guard        string
	Command      string // as in rules: exact, a prefix and *, before or after
	Reason       string // one, or * for all that are refused
	Conversation string
}

func (f CallFilter) matches(values map[string]string) bool {
	switch {
	case f.Command != "" && !(Rule{Commands: []string{f.Command}}).matches(values["command"]),
		f.Reason == "*" && values["reason"] == "",
		f.Reason != "" && f.Reason != "*" && values["reason"] != f.Reason,
		f.Conversation != "" && values["conversation"] != f.Conversation:
		return false
	}
	return true
}
