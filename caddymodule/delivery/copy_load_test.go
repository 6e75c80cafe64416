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

// consumersRate is how many recalls a second come in. With the race detector, SQLite
// in Go stores fewer than it would get.
func consumersRate() int {
	if raceDetector() {
		return 20
	}
	return 200
}

// soon is when a consumer that is well has an event: within a second, but not on a
// machine where other tests run beside this one. If it waited for a consumer that
// hangs, it would be most of a minute.
func soon() time.Duration { return time.Duration(inLongForm(10, 1)) * time.Second }

// Of three consumers one hangs, one fails and one is well. The one that is well gets
// every event soon; the others get all once they are well too, also what
// came before a kill.
func TestEndToEndCopyToOneConsumerDoesNotWaitForAnother(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		option func(testing.TB) string
		nodes  int
	}{
		"sqlite":                {func(testing.TB) string { return "" }, 1},
		"postgres":              {storeInPostgres, 1},
		"two nodes on postgres": {storeInPostgres, 2},
	} {
		t.Run(name, func(t *testing.T) {
			if !*longDeliveries { // which has the machine to itself
				t.Parallel()
			}
			testThreeConsumers(t, tt.option(t), tt.nodes)
		})
	}
}

func testThreeConsumers(t *testing.T, store string, nodes int) {
	t.Helper()
	own := newUnsteady(t, accepts)
	well, failing, hanging := newUnsteady(t, accepts), newUnsteady(t, answers(http.StatusServiceUnavailable, "")), newUnsteady(t, hangs)
	body := copying("ack", own, map[string]*unsteady{"well": well, "failing": failing, "hanging": hanging})
	l := &steady{sent: make(map[string]time.Time)}
	var guards []*guardProcess
	for range nodes {
		s := newDeliverySite(t, body)
		s.options = "timeout 2s\n" + store
		guards = append(guards, s.start(t))
		l.posters = append(l.posters, newPoster(t, s.listen))
	}
	before := l.send("before", time.Duration(inLongForm(2, 30))*time.Second)
	well.wantWithin(t, l, before, soon())
	late := well.latencies(l, before)

	refused := l.refused
	var atKill []string
	var load sync.WaitGroup
	load.Go(func() { atKill = l.send("at the kill", time.Second) })
	time.Sleep(500 * time.Millisecond)
	killed := time.Now()
	guards[0].kill()
	load.Wait()
	used := guards[0].cmd.ProcessState
	guards[0].start(t)
	l.refused = refused // the connections broke

	after := l.send("after", time.Duration(inLongForm(2, 30))*time.Second)
	well.wantWithin(t, l, after, soon())
	late = append(late, well.latencies(l, after)...)

	if failing.tries.Load() == 0 || hanging.tries.Load() == 0 || failing.total() > 0 || hanging.total() > 0 {
		t.Error("no consumer was ill")
	}
	tries := failing.tries.Load()
	failing.will(accepts)
	hanging.will(accepts)
	recovered := time.Now()
	all := slices.Concat(before, atKill, after)
	for name, b := range map[string]*unsteady{"well": well, "failing": failing, "hanging": hanging} {
		b.wantAll(t, time.Duration(inLongForm(90, 240))*time.Second, all)
		t.Logf("%s has all %d events %s after the recovery, %d of them twice", name, len(all), time.Since(recovered).Round(time.Second), b.wantTwiceOnlyFor(t, killed))
	}
	if *longDeliveries && l.refused > 0 {
		t.Errorf("%d were not answered OK", l.refused)
	}
	t.Logf("until the kill, the guard used %s of the CPU", used.UserTime()+used.SystemTime())
	t.Logf("answered after %s", percentiles(l.took))
	t.Logf("the one that is well had them after %s, beside %d attempts of the one that failed", percentiles(late), tries)
	if own.tries.Load() > 0 {
		t.Errorf("the backend got %d of what is acknowledged", own.tries.Load())
	}
}

// steady is recalls that come at a steady rate.
type steady struct {
	posters []*poster // by turns
	refused int       // that were not answered OK

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
			status, answer, err := l.posters[i%len(l.posters)].post("/callback", callback.RecallCommand, event(id))
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
func (b *unsteady) wantWithin(t *testing.T, l *steady, ids []string, within time.Duration) {
	t.Helper()
	if len(ids) < consumersRate()/2 {
		t.Fatalf("%d were answered OK, too few to show anything", len(ids))
	}
	b.wantAll(t, 20*time.Second, ids)
	var late []string
	for _, id := range ids {
		if took := b.latencies(l, []string{id}); len(took) > 0 && took[0] > within {
			late = append(late, l.sent[id].Format(time.TimeOnly)+" +"+took[0].Round(time.Millisecond).String())
		}
	}
	slices.Sort(late)
	if len(late) > 0 {
		t.Errorf("%d of %d arrived later than %s, the first and the last of them %s and %s", len(late), len(ids), within, late[0], late[len(late)-1])
	}
}

// latencies are how long after they were sent the backend accepted the recalls.
func (b *unsteady) latencies(l *steady, ids []string) (took []time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, id := range ids {
		if accepted := b.accepted[string(event(id))]; len(accepted) > 0 {
			took = append(took, accepted[0].at.Sub(l.sent[id]))
		}
	}
	return took
}

// wantTwiceOnlyFor fails if an event arrived more than once, unless its attempt, or
// the note that it was accepted, may have died with the process at that time. It
// returns how many did.
func (b *unsteady) wantTwiceOnlyFor(t *testing.T, killed time.Time) (twice int) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for body, accepted := range b.accepted {
		if len(accepted) == 1 {
			continue
		}
		twice++
		if first := accepted[0].at; first.Before(killed.Add(-2*time.Second)) || first.After(killed.Add(time.Second)) || len(accepted) > 2 {
			t.Errorf("%s arrived %d times, the first time %s after the kill", body, len(accepted), first.Sub(killed))
		}
	}
	return twice
}

func percentiles(took []time.Duration) string {
	slices.Sort(took)
	at := func(percent int) time.Duration { return took[(len(took)-1)*percent/100].Round(time.Millisecond) }
	return fmt.Sprintf("%s (median), %s (99th percentile), %s (at most)", at(50), at(99), at(100))
}
