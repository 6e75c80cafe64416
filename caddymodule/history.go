// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// history is what is known of the calls of all guards with a name. It lives as long as the
// process, so that it survives reloads.
type history struct {
	name string

	mu    sync.Mutex
	ring  []remembered // up to MaxCalls; next is the oldest one
	next  int
	since time.Time
	total Tally
	hour  [60]minute
	uses  map[tokenOfApp]*TokenUse
	seen  map[string]bool // known commands of what was accepted, or has a valid Sign
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
		h = &history{name: name, since: time.Now(), total: newTally(), uses: make(map[tokenOfApp]*TokenUse), seen: make(map[string]bool)}
		histories[name] = h
	}
	return h
}

// add adds an answered call, and sends it to those who watch.
func (h *history) add(m *remembered) {
	h.keep(m)
	for _, w := range *watchersNow.Load() {
		w.send(h.name, m)
	}
}

func (h *history) keep(m *remembered) {
	h.mu.Lock()
	defer h.mu.Unlock()
	m.id = lastCallID.Add(1)
	h.count(m)
	kept := *m
	kept.query, kept.body = "", nil
	if len(h.ring) < MaxCalls {
		h.ring = append(h.ring, kept)
		return
	}
	h.ring[h.next] = kept
	h.next = (h.next + 1) % MaxCalls
}

// last returns up to n calls, the oldest first.
func (h *history) last(n int) []Call {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := slices.Concat(h.ring[h.next:], h.ring[:h.next])
	all = all[max(0, len(all)-n):]
	calls := make([]Call, len(all))
	for i := range all {
		calls[i] = all[i].call(h.name)
	}
	return calls
}

// Tally counts calls.
type Tally struct {
	Actions map[string]int `json:"actions"` // by what the guard did
	Refused map[string]int `json:"refused"` // by reason

	// RefusedSigned counts, by reason, those of Refused that have a valid Sign, and that no
	// rule refuses by the action reject.
	RefusedSigned map[string]int `json:"refused_signed"`

	// WouldRefuse counts, by reason, what was forwarded in report mode and would have been
	// refused.
	WouldRefuse map[string]int `json:"would_refuse"`

	// Fallbacks counts, by verdict, what was answered in the backend's place.
	Fallbacks map[string]int `json:"fallbacks"`
}

func newTally() Tally {
	return Tally{make(map[string]int), make(map[string]int), make(map[string]int), make(map[string]int), make(map[string]int)}
}

func (t *Tally) count(m *remembered) {
	t.Actions[m.action]++
	switch {
	case m.reason == "":
	case m.passed:
		t.WouldRefuse[m.reason]++
	default:
		t.Refused[m.reason]++
		if m.verified && !m.wanted {
			t.RefusedSigned[m.reason]++
		}
	}
	if m.fallback != "" {
		t.Fallbacks[m.fallback]++
	}
}

func (t *Tally) add(other Tally) {
	for _, pair := range [][2]map[string]int{
		{t.Actions, other.Actions}, {t.Refused, other.Refused}, {t.RefusedSigned, other.RefusedSigned}, {t.WouldRefuse, other.WouldRefuse}, {t.Fallbacks, other.Fallbacks},
	} {
		for key, n := range pair[1] {
			pair[0][key] += n
		}
	}
}

// Sum returns the sum of counts.
func Sum(counts map[string]int) (n int) {
	for _, count := range counts {
		n += count
	}
	return n
}

// Minute counts the calls of a minute.
type Minute struct {
	Time    time.Time `json:"time"`
	Calls   int       `json:"calls"`
	Refused int       `json:"refused"` // or would have been, in report mode
}

// minute is a Tally of the calls that came in that minute.
type minute struct {
	unix  int64 // in minutes
	tally Tally
}

// skewSamples is how many calls the median of the clock skew is of.
const skewSamples = 101

// TokenUse says how often a token has signed a callback, and when it did last.
type TokenUse struct {
	Uses int       `json:"uses"`
	Last time.Time `json:"last,omitzero"`
}

// count counts the call. The caller holds the lock.
func (h *history) count(m *remembered) {
	h.total.count(m)
	unix := m.start.Unix() / 60
	of := &h.hour[unix%int64(len(h.hour))]
	if of.unix != unix {
		*of = minute{unix, newTally()}
	}
	of.tally.count(m)
	if m.command != "" && (m.reason == "" || m.verified) {
		h.seen[m.command] = true
	}
	if m.token == (tokenOfApp{}) {
		return
	}
	use := h.uses[m.token]
	if use == nil {
		use = new(TokenUse)
		h.uses[m.token] = use
	}
	use.Uses++
	use.Last = m.start
	h.skews[h.skew%skewSamples] = m.skew
	h.skew++
}

// hourNow returns the calls of the last 60 minutes, and each of these minutes, the oldest
// first.
func (h *history) hourNow(now time.Time) (hour Tally, minutes []Minute) {
	h.mu.Lock()
	defer h.mu.Unlock()
	hour = newTally()
	last := now.Unix() / 60
	for unix := last - int64(len(h.hour)) + 1; unix <= last; unix++ {
		out := Minute{Time: time.Unix(unix*60, 0)}
		if m := h.hour[unix%int64(len(h.hour))]; m.unix == unix {
			hour.add(m.tally)
			out.Calls, out.Refused = Sum(m.tally.Actions), Sum(m.tally.Refused)+Sum(m.tally.WouldRefuse)
		}
		minutes = append(minutes, out)
	}
	return hour, minutes
}

func (h *history) totals() (Tally, time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	total := newTally()
	total.add(h.total)
	return total, h.since
}

func (h *history) usesNow() map[tokenOfApp]TokenUse {
	h.mu.Lock()
	defer h.mu.Unlock()
	uses := make(map[tokenOfApp]TokenUse)
	for key, use := range h.uses {
		uses[key] = *use
	}
	return uses
}

// commandsSeen returns the known commands that have come.
func (h *history) commandsSeen() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Sorted(maps.Keys(h.seen))
}

// medianSkew returns the median of the last correctly signed callbacks, or nil without any.
func (h *history) medianSkew() *float64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := min(h.skew, skewSamples)
	if n == 0 {
		return nil
	}
	sorted := slices.Sorted(slices.Values(h.skews[:n]))
	median := sorted[n/2].Seconds()
	return &median
}
