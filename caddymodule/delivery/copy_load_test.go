// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/timguard/timguard/caddymodule/callback"
	"github.com/timguard/timguard/caddymodule/internal/guardtest"
)

// consumersRate is how many recalls a second come in. With the race detector, or with other
// tests on the machine, fewer are stored than SQLite in Go can.
func consumersRate() int {
	if raceDetector() {
		return 20
	}
	return guardtest.InLongForm(50, 200)
}

// soon is when a consumer that is well has an event: within a second, but not on a
// machine where other tests run beside this one. If it waited for a consumer that
// hangs, it would be most of a minute.
func soon() time.Duration { return time.Duration(guardtest.InLongForm(20, 1)) * time.Second }

// Of three consumers one hangs, one fails and one is well. The one that is well gets
// every event soon; the others get all once they are well too, also what
// came before a kill.
func TestEndToEndCopyToOneConsumerDoesNotWaitForAnother(t *testing.T) {
	t.Parallel()
	type test struct {
		option func(testing.TB) string
		nodes  int
	}
	tests := map[string]test{
		"sqlite":   {func(testing.TB) string { return "" }, 1},
		"postgres": {storeInPostgres, 1},
	}
	if *guardtest.Long { // it takes a minute until what one node was killed with is repeated by the other
		tests["two nodes on postgres"] = test{storeInPostgres, 2}
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if !*guardtest.Long { // which has the machine to itself
				t.Parallel()
			}
			testThreeConsumers(t, tt.option(t), tt.nodes)
		})
	}
}

func testThreeConsumers(t *testing.T, store string, nodes int) {
	t.Helper()
	own := guardtest.NewBackend(t, guardtest.Accepts)
	well, failing, hanging := guardtest.NewBackend(t, guardtest.Accepts), guardtest.NewBackend(t, guardtest.Answers(http.StatusServiceUnavailable, "")), guardtest.NewBackend(t, guardtest.Hangs)
	body := copying("ack", own, map[string]*guardtest.Backend{"well": well, "failing": failing, "hanging": hanging})
	l := &steady{sent: make(map[string]time.Time)}
	var guards []*guardtest.Process
	for range nodes {
		s := guardtest.NewSite(t, body)
		s.Options = "timeout 2s\n" + store
		guards = append(guards, s.Start(t))
		l.posters = append(l.posters, guardtest.NewPoster(t, s.Listen))
	}
	before := l.send("before", time.Duration(guardtest.InLongForm(2, 30))*time.Second)
	wantWithin(t, well, l, before, soon())
	late := latencies(well, l, before)

	refused := l.refused
	var atKill []string
	var load sync.WaitGroup
	load.Go(func() { atKill = l.send("at the kill", time.Second) })
	time.Sleep(500 * time.Millisecond)
	killed := time.Now()
	guards[0].Kill()
	load.Wait()
	used := guards[0].Cmd.ProcessState
	guards[0].Start(t)
	l.refused = refused // the connections broke

	after := l.send("after", time.Duration(guardtest.InLongForm(2, 30))*time.Second)
	wantWithin(t, well, l, after, soon())
	late = append(late, latencies(well, l, after)...)

	if failing.Tries.Load() == 0 || hanging.Tries.Load() == 0 || failing.Total() > 0 || hanging.Total() > 0 {
		t.Error("no consumer was ill")
	}
	tries := failing.Tries.Load()
	failing.Will(guardtest.Accepts)
	hanging.Will(guardtest.Accepts)
	recovered := time.Now()
	all := slices.Concat(before, atKill, after)
	for name, b := range map[string]*guardtest.Backend{"well": well, "failing": failing, "hanging": hanging} {
		b.WantAll(t, time.Duration(guardtest.InLongForm(90, 240))*time.Second, all)
		t.Logf("%s has all %d events %s after the recovery, %d of them twice", name, len(all), time.Since(recovered).Round(time.Second), wantTwiceOnlyFor(t, b, killed))
	}
	if *guardtest.Long && l.refused > 0 {
		t.Errorf("%d were not answered OK", l.refused)
	}
	t.Logf("until the kill, the guard used %s of the CPU", used.UserTime()+used.SystemTime())
	t.Logf("answered after %s", percentiles(l.took))
	t.Logf("the one that is well had them after %s, beside %d attempts of the one that failed", percentiles(late), tries)
	if own.Tries.Load() > 0 {
		t.Errorf("the backend got %d of what is acknowledged", own.Tries.Load())
	}
}

// steady is recalls that come at a steady rate.
type steady struct {
	posters []*guardtest.Poster // by turns
	refused int                 // that were not answered OK

	mu   sync.Mutex
	sent map[string]time.Time // when, by the id
	took []time.Duration      // until the answers
}

// send sends recalls for so long and returns the ids of those that were answered OK.
func (l *steady) send(prefix string, during time.Duration) (ids []string) {
	var posts sync.WaitGroup
	ticks := time.NewTicker(time.Second / time.Duration(consumersRate()))
	defer ticks.Stop()
	for i := range int(during.Seconds()) * consumersRate() {
		<-ticks.C
		posts.Go(func() {
			id := fmt.Sprint(prefix, "-", i)
			start := time.Now()
			status, answer, err := l.posters[i%len(l.posters)].Post("/callback", callback.RecallCommand, guardtest.Event(id))
			l.mu.Lock()
			defer l.mu.Unlock()
			if err != nil || status != http.StatusOK || answer != guardtest.OKJSON {
				l.refused++
				return
			}
			l.sent[id] = start
			l.took = append(l.took, time.Since(start))
			ids = append(ids, id)
		})
	}
	posts.Wait()
	return ids
}

// wantWithin fails unless the backend accepted each so soon after it was sent.
func wantWithin(t *testing.T, b *guardtest.Backend, l *steady, ids []string, within time.Duration) {
	t.Helper()
	if len(ids) < guardtest.InLongForm(10, consumersRate()/2) {
		t.Fatalf("%d were answered OK, too few to show anything", len(ids))
	}
	b.WantAll(t, 2*soon(), ids)
	var late []string
	for _, id := range ids {
		if took := latencies(b, l, []string{id}); len(took) > 0 && took[0] > within {
			late = append(late, l.sent[id].Format(time.TimeOnly)+" +"+took[0].Round(time.Millisecond).String())
		}
	}
	slices.Sort(late)
	if len(late) > 0 {
		t.Errorf("%d of %d arrived later than %s, the first and the last of them %s and %s", len(late), len(ids), within, late[0], late[len(late)-1])
	}
}

// latencies are how long after they were sent the backend accepted the recalls.
func latencies(b *guardtest.Backend, l *steady, ids []string) (took []time.Duration) {
	for _, id := range ids {
		if accepted := b.Of(guardtest.Event(id)); len(accepted) > 0 {
			took = append(took, accepted[0].At.Sub(l.sent[id]))
		}
	}
	return took
}

// wantTwiceOnlyFor fails if an event arrived more than once, unless its attempt, or
// the note that it was accepted, may have died with the process at that time. It
// returns how many did.
func wantTwiceOnlyFor(t *testing.T, b *guardtest.Backend, killed time.Time) (twice int) {
	t.Helper()
	first := make(map[string]time.Time)
	for _, a := range b.All() {
		body := string(a.Body)
		at, again := first[body]
		if !again {
			first[body] = a.At
			continue
		}
		twice++
		if n := b.Times(a.Body); at.Before(killed.Add(-2*time.Second)) || at.After(killed.Add(time.Second)) || n > 2 {
			t.Errorf("%s arrived %d times, the first time %s after the kill", body, n, at.Sub(killed))
		}
	}
	return twice
}

func percentiles(took []time.Duration) string {
	slices.Sort(took)
	at := func(percent int) time.Duration { return took[(len(took)-1)*percent/100].Round(time.Millisecond) }
	return fmt.Sprintf("%s (median), %s (99th percentile), %s (at most)", at(50), at(99), at(100))
}
