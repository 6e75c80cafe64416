// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"maps"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/timguard/timguard/caddymodule/callback"
	"github.com/timguard/timguard/caddymodule/internal/guardtest"
)

func TestHistoryCountsByActionReasonAndVerdict(t *testing.T) {
	t.Parallel()
	rules := []string{"on before forward {\n fallback allow\n}", "on after ack"}
	before := guardtest.Query("1400000000", beforeSend, guardtest.Signed(guardtest.Token, time.Now()))
	for mode, want := range map[string]Tally{
		"enforce": {map[string]int{"ack": 3, "reject": 1}, map[string]int{"sign": 1, "payload": 1}, map[string]int{"payload": 1}, nil, map[string]int{"allow": 1}},
		"report":  {map[string]int{"forward": 4}, nil, nil, map[string]int{"sign": 1, "payload": 1}, nil},
	} {
		s := watched(t, "counts-"+mode, append(rules, "mode "+mode)...)
		s.post(t, request{query: goodQuery(), body: recallBody(t)})
		s.post(t, request{query: goodQuery(), body: recallBody(t)})
		s.post(t, request{query: guardtest.Query("1400000000", callback.RecallCommand, guardtest.Signed("forged", time.Now())), body: recallBody(t)})
		s.post(t, request{query: before, body: []byte(`{"CallbackCommand":"` + beforeSend + `"}`)})
		lastCalls(t, CallFilter{Guard: "counts-" + mode}, 4)
		h := historyOf("counts-" + mode)
		total, since := h.totals()
		hour, minutes := h.hourNow(time.Now())
		for name, got := range map[string]Tally{"total": total, "hour": hour} {
			if !maps.Equal(got.Actions, want.Actions) || !maps.Equal(got.Refused, want.Refused) || !maps.Equal(got.RefusedSigned, want.RefusedSigned) ||
				!maps.Equal(got.WouldRefuse, want.WouldRefuse) || !maps.Equal(got.Fallbacks, want.Fallbacks) {
				t.Errorf("%s, %s: %+v, want %+v", mode, name, got, want)
			}
		}
		if seen := h.commandsSeen(); !slices.Equal(seen, []string{callback.RecallCommand, beforeSend}) {
			t.Errorf("%s: seen %q", mode, seen)
		}
		calls, refused := 0, 0
		for _, m := range minutes {
			calls, refused = calls+m.Calls, refused+m.Refused
		}
		if len(minutes) != 60 || calls != 4 || refused != 2 || time.Since(since) > time.Minute {
			t.Errorf("%s: %d minutes with %d calls and %d refused since %s", mode, len(minutes), calls, refused, since)
		}
		if _, later := h.hourNow(time.Now().Add(61 * time.Minute)); later[0].Calls != 0 || later[59].Calls != 0 {
			t.Errorf("%s: after an hour, there are still %+v", mode, later)
		}
		if skew := h.medianSkew(); skew == nil || *skew < -2 || *skew > 2 {
			t.Errorf("%s: skew %v", mode, skew)
		}
		if uses := h.usesNow(); uses[tokenOfApp{"1400000000", 1}].Uses != 3 || uses[tokenOfApp{"1400000000", 2}].Uses != 0 {
			t.Errorf("%s: uses %+v", mode, uses)
		}
	}
}

// What a rule refuses by the action reject is meant, and no reason to look at the guard.
func TestHistoryTellsWhatNoRuleRefusesOnPurpose(t *testing.T) {
	t.Parallel()
	s := watched(t, "on-purpose", "on "+callback.RecallCommand+" reject", "on before forward")
	s.post(t, request{query: goodQuery(), body: recallBody(t)})
	s.post(t, sampleOf("C2C.CallbackAfterSendMsg"))
	lastCalls(t, CallFilter{Guard: "on-purpose"}, 2)
	got, _ := historyOf("on-purpose").totals()
	if got.Refused["command"] != 2 || got.RefusedSigned["command"] != 1 {
		t.Errorf("refused %v, of which signed %v", got.Refused, got.RefusedSigned)
	}
}

// A configuration that is only validated, or one that is gone, is not running.
func TestOnlyHandlersInMemoryAreLoaded(t *testing.T) {
	t.Parallel()
	has := func(name string) (n int) {
		loaded.Lock()
		defer loaded.Unlock()
		for _, h := range loaded.handlers {
			if h.Name == name {
				n++
			}
		}
		return n
	}
	s := serve(t, guardtest.Guard("name loaded-once"), func(http.ResponseWriter, *http.Request) error { return nil })
	if has("loaded-once") != 1 {
		t.Errorf("%d handlers", has("loaded-once"))
	}
	s.stop()
	if has("loaded-once") != 0 {
		t.Error("a handler outlives its configuration")
	}
}
