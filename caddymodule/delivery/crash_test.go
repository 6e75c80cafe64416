// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/timguard/timguard/caddymodule/callback"
	"github.com/timguard/timguard/caddymodule/internal/guardtest"
)

// storing is a group of concurrent senders of recalls. It records which were answered
// OK.
type storing struct {
	poster  *poster
	stop    atomic.Bool
	senders sync.WaitGroup

	mu         sync.Mutex
	stored     []string // ids
	other      []string // answers that are not OK, and errors
	refused    []string // answers that are not OK
	unanswered int      // connections that ended without an answer
}

// newStoring starts the senders. They repeat callbacks that are not answered, up to the
// given number of times.
func newStoring(p *poster, senders, repeats int, prefix string) *storing {
	l := &storing{poster: p}
	for n := range senders {
		l.senders.Go(func() {
			for i := 0; !l.stop.Load(); i++ {
				l.send(fmt.Sprintf("%s-%d-%d", prefix, n, i), repeats)
			}
		})
	}
	return l
}

func (l *storing) send(id string, repeats int) {
	var status int
	var answer string
	var err error
	for try := range repeats + 1 {
		if try > 0 {
			time.Sleep(5 * time.Millisecond)
		}
		if status, answer, err = l.poster.post("/callback", callback.RecallCommand, event(id)); err == nil {
			break
		}
		l.mu.Lock()
		l.unanswered++
		l.mu.Unlock()
	}
	if err != nil {
		time.Sleep(5 * time.Millisecond) // nobody listens
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err != nil:
		l.other = append(l.other, err.Error())
	case status == http.StatusOK && answer == guardtest.OKJSON:
		l.stored = append(l.stored, id)
	default:
		l.refused = append(l.refused, fmt.Sprint(status, " ", answer))
		l.other = append(l.other, fmt.Sprint(status, " ", answer))
	}
}

func (l *storing) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.stored)
}

// finish stops the senders, and returns the ids of the callbacks that were answered OK,
// and all other answers.
func (l *storing) finish() (stored, other []string) {
	l.stop.Store(true)
	l.senders.Wait()
	return l.stored, l.other
}

// Every callback that was answered OK is delivered, however often the process is
// killed while the backend fails in various ways.
func TestEndToEndDeliverySurvivesKills(t *testing.T) {
	t.Parallel()
	b := newUnsteady(t, refuses)
	s := newDeliverySite(t, delivering(b))
	s.options = "timeout 2s"
	var stored []string
	for cycle := range inLongForm(4, 20) {
		p := s.start(t)
		l := newStoring(newPoster(t, s.listen), 16, 0, fmt.Sprint("cycle", cycle))
		eventually(t, 20*time.Second, "something is stored", func() bool { return l.count() > 0 })
		time.Sleep(time.Duration(rand.Int64N(int64(700 * time.Millisecond)))) //nolint:gosec // a moment need not be unguessable
		p.kill()
		ids, _ := l.finish()
		stored = append(stored, ids...)
	}
	tries := b.tries.Load()
	b.will(accepts)
	killed := time.Now()
	s.start(t)
	b.wantAll(t, time.Minute+time.Duration(len(stored))*10*time.Millisecond, stored)
	t.Logf("%d answered OK, %d attempts before the last kill; the last arrived %s after it", len(stored), tries, time.Since(killed).Round(time.Second))
	if tries == 0 {
		t.Error("nothing was attempted before the kills")
	}
}

// Two instances that share a database deliver each other's callbacks, and deliver an
// event that both receive only once.
func TestEndToEndDeliveryWithASharedDatabase(t *testing.T) {
	t.Parallel()
	dsn := postgresDSN(t, "")
	b := newUnsteady(t, answers(http.StatusServiceUnavailable, ""))
	var guards []*guardProcess
	var senders []*poster
	for range 2 {
		s := newDeliverySite(t, delivering(b))
		s.options = "timeout 2s\nstore postgres " + dsn
		guards = append(guards, s.start(t))
		senders = append(senders, newPoster(t, s.listen))
	}
	var ids []string
	for i := range 30 {
		ids = append(ids, fmt.Sprint("first-", i))
		senders[0].wantOK(t, ids[i])
	}
	guards[0].kill()
	b.will(accepts)
	b.wantAll(t, time.Minute, ids)

	guards[0] = guards[0].start(t)
	var posts sync.WaitGroup
	var same [][]byte
	for i := range 50 {
		id := fmt.Sprint("both-", i)
		same = append(same, event(id))
		for _, s := range senders {
			posts.Go(func() { s.wantOK(t, id) })
		}
	}
	posts.Wait()
	for _, body := range same {
		b.one(t, body)
	}
	time.Sleep(time.Second)
	senders[1].wantOK(t, "both-0") // within the window, long after the delivery
	time.Sleep(500 * time.Millisecond)
	for i, body := range same {
		if n := b.times(body); n != 1 {
			t.Errorf("event %d, which came to both, arrived %d times", i, n)
		}
	}
}

// On termination, a running attempt is finished within the grace period, and not
// repeated.
func TestEndToEndDeliveryFinishesRunningAttemptsOnTermination(t *testing.T) {
	t.Parallel()
	b := newUnsteady(t, func(b *unsteady) http.HandlerFunc {
		accept := accepts(b)
		return func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(1500 * time.Millisecond)
			accept(w, r)
		}
	})
	s := newDeliverySite(t, delivering(b))
	p := s.start(t)
	newPoster(t, s.listen).wantOK(t, "slow")
	eventually(t, 10*time.Second, "an attempt", func() bool { return b.tries.Load() > 0 })
	if took := p.terminate(t); took > 5*time.Second {
		t.Errorf("it took %s to stop", took)
	}
	if n := b.times(event("slow")); n != 1 {
		t.Errorf("accepted %d times, want 1", n)
	}
	db := s.stored(t)
	var state string
	if err := db.QueryRow("SELECT state FROM river_job").Scan(&state); err != nil || state != "completed" {
		t.Errorf("state %q, error %v; want completed", state, err)
	}
}

// An attempt that does not end within the grace period is canceled, and repeated after
// the next start.
func TestEndToEndDeliveryIsCanceledAfterTheGracePeriod(t *testing.T) {
	t.Parallel()
	b := newUnsteady(t, hangs)
	s := newDeliverySite(t, delivering(b))
	s.global = "grace_period 1s"
	p := s.start(t)
	newPoster(t, s.listen).wantOK(t, "hanging")
	eventually(t, 10*time.Second, "an attempt", func() bool { return b.tries.Load() > 0 })
	if took := p.terminate(t); took > 8*time.Second {
		t.Errorf("it took %s to stop, with a grace period of 1s", took)
	}
	b.will(accepts)
	start := time.Now()
	s.start(t)
	a := b.one(t, event("hanging"))
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("it came %s after the start: it was not put back", took)
	}
	if n := a.Header.Get("Tim-Delivery-Attempt"); n != "1" {
		t.Errorf("%s is %s: an attempt that was cut off counts", "Tim-Delivery-Attempt", n)
	}
}

// Rows of older versions, with fewer fields, and of newer ones, with more, are
// delivered.
func TestEndToEndDeliveryOfRowsOfOtherVersions(t *testing.T) {
	t.Parallel()
	b := newUnsteady(t, answers(http.StatusServiceUnavailable, ""))
	s := newDeliverySite(t, delivering(b))
	p := s.start(t)
	newPoster(t, s.listen).wantOK(t, "kept")
	s.wantError(t, "503")
	p.terminate(t)
	db := s.stored(t)
	for _, statement := range []string{
		// The least that makes a request, and something that nobody knows yet.
		`UPDATE river_job SET args = json_remove(args, '$.msg_seqs', '$.key', '$.received', '$.server', '$.proto', '$.tls', '$.remote_addr', '$.group_id'),
			state = 'available', scheduled_at = '2020-01-01 00:00:00'`,
		`UPDATE river_job SET args = json_set(args, '$.zone', json_object('a', 1))`,
	} {
		if _, err := db.Exec(statement); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	b.will(accepts)
	s.start(t)
	if err := b.one(t, event("kept")).isDelivery("/callback", guardtest.Token); err != nil {
		t.Error(err)
	}
}

// During termination by SIGTERM, under load and with the backend down, a callback is
// either stored and answered OK, or its connection is closed; none is refused. All that
// were answered OK are delivered after the next start.
func TestEndToEndDeliveryRefusesNothingOnTermination(t *testing.T) {
	t.Parallel()
	b := newUnsteady(t, answers(http.StatusServiceUnavailable, ""))
	s := newDeliverySite(t, delivering(b))
	s.global = "grace_period 1s"
	var stored []string
	terminations := inLongForm(5, 200)
	for n := range terminations {
		p := s.start(t)
		l := newStoring(newPoster(t, s.listen), 8, 0, fmt.Sprint("term", n))
		eventually(t, 20*time.Second, "something is stored", func() bool { return l.count() > 0 })
		time.Sleep(time.Duration(rand.Int64N(int64(300 * time.Millisecond)))) //nolint:gosec // a moment need not be unguessable
		p.terminate(t)
		ids, _ := l.finish()
		if len(l.refused) > 0 {
			t.Fatalf("termination %d: %d callbacks were refused; the first: %s", n, len(l.refused), l.refused[0])
		}
		stored = append(stored, ids...)
	}
	b.will(accepts)
	s.start(t)
	b.wantAll(t, time.Minute+time.Duration(len(stored))*10*time.Millisecond, stored)
	t.Logf("%d terminations, %d answered OK, all of them delivered", terminations, len(stored))
}
