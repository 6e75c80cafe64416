// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/timguard/timguard/caddymodule/callback"
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
	// set for those who watch with bodies, and only if the callback is valid.
	Query string `json:"query,omitempty"`
	Body  string `json:"body,omitempty"`
}

const (
	// maxCalls is how many calls a guard remembers.
	maxCalls = 1000

	// maxCallValue limits the values of remembered calls, which anybody may have sent.
	maxCallValue = 256

	// maxSharedURI is the length of a URI up to which a value may be a part of it in
	// memory. A longer one would stay in memory as a whole.
	maxSharedURI = 4096
)

// remembered is a call in memory, in a form that needs few allocations.
type remembered struct {
	id       uint64
	start    time.Time
	took     time.Duration
	verified bool
	detail   string
	values   [len(valueNames)]string
}

// history is what is known of the calls of all guards with a name. It lives as long as the
// process, so that it survives reloads.
type history struct {
	mu    sync.Mutex
	ring  []remembered // up to maxCalls; next is the oldest one
	next  int
	since time.Time
	total Tally
	hour  [60]minute
	uses  map[tokenOfApp]*TokenUse
	skews [skewSamples]time.Duration
	skew  int // number of samples ever taken
}

type tokenOfApp struct {
	app   string
	token int
}

var (
	historiesMu sync.Mutex
	histories   = make(map[string]*history)

	lastCallID atomic.Uint64 // its start makes IDs increase over restarts
)

func init() { lastCallID.Store(uint64(time.Now().UnixMicro())) }

func historyOf(name string) *history {
	historiesMu.Lock()
	defer historiesMu.Unlock()
	h := histories[name]
	if h == nil {
		h = &history{since: time.Now(), total: newTally(), uses: make(map[tokenOfApp]*TokenUse)}
		histories[name] = h
	}
	return h
}

// remember adds an answered call to the guard's history, and sends it to those who watch.
func (h *Handler) remember(c *call) {
	watchers := *watchersNow.Load()
	if h.logsAccess() || len(watchers) > 0 {
		c.eventID() // a hash of the body, which will be gone
	}
	m := remembered{start: c.start, took: time.Since(c.start), verified: c.verified}
	if c.rejection != nil {
		m.detail = c.rejection.Detail
	}
	for i, name := range valueNames {
		if name != "event_id" || h.logsAccess() || len(watchers) > 0 {
			m.values[i] = bounded(c.value(name), c.longURI)
		}
	}
	h.history.add(&m, c, h.Mode)
	for _, w := range watchers {
		w.send(h.Name, &m, c)
	}
}

// bounded returns the beginning of a value.
func bounded(value string, clone bool) string {
	switch {
	case len(value) > maxCallValue:
		return strings.ToValidUTF8(value[:maxCallValue], "") + "…"
	case clone:
		return strings.Clone(value)
	}
	return value
}

func (h *history) add(m *remembered, c *call, mode string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	m.id = lastCallID.Add(1)
	if len(h.ring) < maxCalls {
		h.ring = append(h.ring, *m)
	} else {
		h.ring[h.next] = *m
		h.next = (h.next + 1) % maxCalls
	}
	h.count(c, mode, m.start)
}

// last returns up to n calls, the oldest first.
func (h *history) last(guard string, n int) []Call {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := slices.Concat(h.ring[h.next:], h.ring[:h.next])
	calls := make([]Call, 0, min(n, len(all)))
	for i := range all[max(0, len(all)-n):] {
		calls = append(calls, all[max(0, len(all)-n)+i].call(guard))
	}
	return calls
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

// LastCalls returns the calls that guards remember, up to n of each, the oldest first.
func LastCalls(f CallFilter, n int) []Call {
	historiesMu.Lock()
	all := maps.Clone(histories)
	historiesMu.Unlock()
	var calls []Call
	for name, h := range all {
		if f.Guard == "" || f.Guard == name {
			calls = append(calls, h.last(name, maxCalls)...)
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

// Watcher gets the calls of guards as they come.
type Watcher struct {
	// Calls is closed when the watcher is closed, or too slow to read from it.
	Calls <-chan Call

	filter CallFilter
	bodies bool
	mu     sync.Mutex
	calls  chan Call // nil if it is closed
}

var (
	watchersMu  sync.Mutex
	watchersNow atomic.Pointer[[]*Watcher] // replaced as a whole, so that calls need no lock
)

func init() { watchersNow.Store(new([]*Watcher)) }

// watcherLag is how many calls a watcher may be behind.
const watcherLag = 1024

// Watch returns a Watcher, which must be closed.
func Watch(f CallFilter, bodies bool) *Watcher {
	calls := make(chan Call, watcherLag)
	w := &Watcher{Calls: calls, calls: calls, filter: f, bodies: bodies}
	watchersMu.Lock()
	defer watchersMu.Unlock()
	now := append(slices.Clone(*watchersNow.Load()), w)
	watchersNow.Store(&now)
	return w
}

// Close ends watching.
func (w *Watcher) Close() {
	watchersMu.Lock()
	now := slices.DeleteFunc(slices.Clone(*watchersNow.Load()), func(other *Watcher) bool { return other == w })
	watchersNow.Store(&now)
	watchersMu.Unlock()

	w.mu.Lock()
	defer w.mu.Unlock()
	if w.calls != nil {
		close(w.calls)
		w.calls = nil
	}
}

// send sends a call to the watcher if it wants it. It never waits: a watcher that is too slow
// is closed.
func (w *Watcher) send(guard string, m *remembered, c *call) {
	if w.filter.Guard != "" && w.filter.Guard != guard {
		return
	}
	out := m.call(guard)
	if !w.filter.matches(out.Values) {
		return
	}
	if w.bodies && c.rejection == nil {
		out.Query, out.Body = callback.WithoutAuth(c.rawQuery), string(c.body.Bytes())
	}
	w.mu.Lock()
	full := false
	if w.calls != nil {
		select {
		case w.calls <- out:
		default:
			full = true
		}
	}
	w.mu.Unlock()
	if full {
		w.Close()
	}
}
