// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"slices"
	"time"
)

// Tally counts calls.
type Tally struct {
	Actions map[string]int `json:"actions"` // by what the guard did
	Refused map[string]int `json:"refused"` // by reason

	// WouldRefuse counts, by reason, what was forwarded in report mode and would have been
	// refused.
	WouldRefuse map[string]int `json:"would_refuse"`

	// Fallbacks counts, by verdict, what was answered in the backend's place.
	Fallbacks map[string]int `json:"fallbacks"`
}

func newTally() Tally {
	return Tally{make(map[string]int), make(map[string]int), make(map[string]int), make(map[string]int)}
}

func (t *Tally) count(c *call, mode string) {
	t.Actions[c.action]++
	switch {
	case c.rejection != nil && mode == modeReport:
		t.WouldRefuse[string(c.rejection.Reason)]++
	case c.rejection != nil:
		t.Refused[string(c.rejection.Reason)]++
	}
	if v := c.verdict.Load(); v != nil && (c.fallback || c.action == actionForward) {
		t.Fallbacks[*v]++
	}
}

func (t *Tally) add(other Tally) {
	for _, pair := range [][2]map[string]int{
		{t.Actions, other.Actions}, {t.Refused, other.Refused}, {t.WouldRefuse, other.WouldRefuse}, {t.Fallbacks, other.Fallbacks},
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
func (h *history) count(c *call, mode string, at time.Time) {
	h.total.count(c, mode)
	unix := at.Unix() / 60
	m := &h.hour[unix%int64(len(h.hour))]
	if m.unix != unix {
		*m = minute{unix, newTally()}
	}
	m.tally.count(c, mode)
	if c.token == 0 || c.app == nil {
		return
	}
	key := tokenOfApp{c.app.id, c.token}
	use := h.uses[key]
	if use == nil {
		use = new(TokenUse)
		h.uses[key] = use
	}
	use.Uses++
	use.Last = at
	h.skews[h.skew%skewSamples] = c.skew
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
