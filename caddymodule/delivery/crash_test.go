// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/timguard/timguard/caddymodule/callback"
	"github.com/timguard/timguard/caddymodule/internal/guardtest"
	"github.com/timguard/timguard/caddymodule/outbox"
)

// storing is a group of concurrent senders of recalls. It records which were answered
// OK.
type storing struct {
	poster  *guardtest.Poster
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
func newStoring(p *guardtest.Poster, senders, repeats int, prefix string) *storing {
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
		if status, answer, err = l.poster.Post("/callback", callback.RecallCommand, guardtest.Event(id)); err == nil {
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
	b := guardtest.NewBackend(t, guardtest.Refuses)
	s := guardtest.NewSite(t, guardtest.Delivering(b))
	s.Options = "timeout 2s"
	var stored []string
	for cycle := range guardtest.InLongForm(4, 20) {
		p := s.Start(t)
		l := newStoring(guardtest.NewPoster(t, s.Listen), 16, 0, fmt.Sprint("cycle", cycle))
		guardtest.Eventually(t, 20*time.Second, "something is stored", func() bool { return l.count() > 0 })
		time.Sleep(time.Duration(rand.Int64N(int64(700 * time.Millisecond)))) //nolint:gosec // a moment need not be unguessable
		p.Kill()
		ids, _ := l.finish()
		stored = append(stored, ids...)
	}
	tries := b.Tries.Load()
	b.Will(guardtest.Accepts)
	killed := time.Now()
	s.Start(t)
	b.WantAll(t, time.Minute+time.Duration(len(stored))*10*time.Millisecond, stored)
	t.Logf("%d answered OK, %d attempts before the last kill; the last arrived %s after it", len(stored), tries, time.Since(killed).Round(time.Second))
	if tries == 0 {
		t.Error("nothing was attempted before the kills")
	}
}

// Two instances that share a database deliver each other's callbacks, and deliver an
// event that both receive only once.
func TestEndToEndDeliveryWithASharedDatabase(t *testing.T) {
	t.Parallel()
	dsn := guardtest.PostgresDSN(t, "")
	b := guardtest.NewBackend(t, guardtest.Answers(http.StatusServiceUnavailable, ""))
	var guards []*guardtest.Process
	var senders []*guardtest.Poster
	for range 2 {
		s := guardtest.NewSite(t, guardtest.Delivering(b))
		s.Options = "timeout 2s\nstore postgres " + dsn
		guards = append(guards, s.Start(t))
		senders = append(senders, guardtest.NewPoster(t, s.Listen))
	}
	var ids []string
	for i := range 30 {
		ids = append(ids, fmt.Sprint("first-", i))
		senders[0].WantOK(t, ids[i])
	}
	guards[0].Kill()
	b.Will(guardtest.Accepts)
	b.WantAll(t, time.Minute, ids)

	guards[0] = guards[0].Start(t)
	var posts sync.WaitGroup
	var same [][]byte
	for i := range 50 {
		id := fmt.Sprint("both-", i)
		same = append(same, guardtest.Event(id))
		for _, s := range senders {
			posts.Go(func() { s.WantOK(t, id) })
		}
	}
	posts.Wait()
	for _, body := range same {
		b.One(t, body)
	}
	time.Sleep(time.Second)
	senders[1].WantOK(t, "both-0") // within the window, long after the delivery
	time.Sleep(500 * time.Millisecond)
	for i, body := range same {
		if n := b.Times(body); n != 1 {
			t.Errorf("event %d, which came to both, arrived %d times", i, n)
		}
	}
}

// hurry makes attempts that are running look as if they had begun that long ago, and lets
// another process be elected for maintenance at once.
func hurry(t *testing.T, s *guardtest.Site, ago time.Duration, where string) {
	t.Helper()
	began := time.Now().Add(-ago).UTC()
	// River stores times as text in SQLite.
	inStore(t, s, fmt.Sprintf("UPDATE river_job SET attempted_at = '%s' WHERE state = 'running' AND %s", began.Format("2006-01-02 15:04:05.000"), where),
		fmt.Sprintf("UPDATE river_job SET attempted_at = '%s' WHERE state = 'running' AND %s", began.Format(time.RFC3339), where))
	inStore(t, s, "DELETE FROM river_leader", "DELETE FROM river_leader")
}

// A kill during the last attempt is no failure of the backend: the callback does not die, and
// is delivered after the next start.
func TestEndToEndDeliverySurvivesAKillDuringItsLastAttempt(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, store string) {
		t.Helper()
		b := guardtest.NewBackend(t, guardtest.Hangs)
		s := guardtest.NewSite(t, guardtest.Delivering(b))
		s.Options = "max_attempts 1\ntimeout 2s\n" + store
		wait := notingEvents(t, s)
		p := s.Start(t)
		guardtest.NewPoster(t, s.Listen).WantOK(t, "last")
		guardtest.Eventually(t, 10*time.Second, "an attempt", func() bool { return b.Tries.Load() > 0 })
		for range guardtest.InLongForm(2, 5) {
			tries := b.Tries.Load()
			p.Kill()
			if !*guardtest.Long {
				hurry(t, s, time.Minute, "true")
			}
			p = s.Start(t)
			guardtest.Eventually(t, 90*time.Second, "another attempt", func() bool { return b.Tries.Load() > tries })
			if n := s.Status(t).Deliveries[outbox.Dead]; n > 0 {
				t.Fatal("it is dead")
			}
		}
		b.Will(guardtest.Accepts)
		p.Kill()
		if !*guardtest.Long {
			hurry(t, s, time.Minute, "true")
		}
		p = s.Start(t)
		guardtest.Eventually(t, 90*time.Second, "it arrives", func() bool { return b.Times(guardtest.Event("last")) > 0 })
		if n := b.Of(guardtest.Event("last"))[0].Header.Get("Tim-Delivery-Attempt"); n != "1" {
			t.Errorf("it is attempt %s: attempts that were lost with the process count", n)
		}
		s.WantState(t, outbox.Delivered, 1)
		item := s.Items(t)[0]
		for _, f := range item.Failures {
			if f.Error != "the attempt was lost with its process, and is repeated" {
				t.Errorf("%+v", f)
			}
		}
		if lines := p.LogLines(t, "last delivery attempt failed; delivery is dead"); len(lines) > 0 {
			t.Errorf("%v", lines)
		}

		// One that fails is dead, as ever.
		b.Will(guardtest.Answers(http.StatusInternalServerError, ""))
		guardtest.NewPoster(t, s.Listen).WantOK(t, "dies")
		p.WantLog(t, "last delivery attempt failed; delivery is dead", map[string]any{"level": "warn", "error": "the answer has the status 500"})
		wait("tim_delivery.dead")
	})
}

// The death of a callback is always said, also if its row cannot be read.
func TestEndToEndDeliveryWhoseRowCannotBeReadDiesAloud(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]struct {
		sqlite, postgres string // the damaged arguments
		command          string // as far as it can be read
	}{
		"a field of another type": {"jsonb_set(args, '$.msg_seqs', 'x')", `jsonb_set(args, '{msg_seqs}', '"x"')`, callback.RecallCommand},
		"no object":               {"jsonb('[1]')", "'[1]'", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachStore(t, func(t *testing.T, store string) {
				t.Helper()
				b := guardtest.NewBackend(t, guardtest.Answers(http.StatusServiceUnavailable, ""))
				s := guardtest.NewSite(t, guardtest.Guard("name front", "on after ack {\ncopy archive\n}", "consumer archive "+b.Address()))
				s.Options = "max_attempts 2\n" + store
				wait := notingEvents(t, s)
				p := s.Start(t)
				guardtest.NewPoster(t, s.Listen).WantOK(t, "damaged")
				item := s.WantError(t, "the status 503")
				p.Terminate(t)
				inStore(t, s, "UPDATE river_job SET args = "+damage.sqlite, "UPDATE river_job SET args = "+damage.postgres)
				tries := b.Tries.Load()
				p = s.Start(t)
				p.WantLog(t, "last delivery attempt failed; delivery is dead", map[string]any{
					"level": "warn", "logger": "tim_delivery", "id": float64(item.ID), "guard": "front", "consumer": "archive", "command": damage.command, "attempts": 2.0,
				})
				var data map[string]any
				if err := json.Unmarshal([]byte(strings.TrimPrefix(wait("tim_delivery.dead"), "tim_delivery.dead ")), &data); err != nil {
					t.Fatal(err)
				}
				if data["id"] != float64(item.ID) || data["guard"] != "front" || data["consumer"] != "archive" || data["command"] != damage.command {
					t.Errorf("event %v", data)
				}
				s.WantState(t, outbox.Dead, 1)
				if b.Tries.Load() > tries {
					t.Error("the backend got it")
				}
			})
		})
	}
}

// Nodes with different timeouts share a database: none takes the attempt of another for lost
// that may still be running, and all find those that are lost.
func TestEndToEndDeliveryOfNodesWithDifferentTimeouts(t *testing.T) {
	t.Parallel()
	store := storeInPostgres(t)
	release := make(chan struct{})
	long := guardtest.NewBackend(t, func(b *guardtest.Backend) http.HandlerFunc {
		accept := guardtest.Accepts(b)
		return func(w http.ResponseWriter, r *http.Request) {
			select {
			case <-release:
			case <-r.Context().Done():
				return
			}
			accept(w, r)
		}
	})
	lost := guardtest.NewBackend(t, guardtest.Hangs)
	s := guardtest.NewSite(t, "handle /long {\n"+guardtest.Delivering(long, "name long")+"\n}\nhandle {\n"+guardtest.Delivering(lost, "name lost")+"\n}")
	s.Options = "timeout 60s\n" + store
	node := s.Start(t)
	p := guardtest.NewPoster(t, s.Listen)
	if _, answer, err := p.Post("/long", callback.RecallCommand, guardtest.Event("long")); err != nil || answer != guardtest.OKJSON {
		t.Fatal(answer, err)
	}
	p.WantOK(t, "lost")
	s.WantState(t, outbox.Running, 2)
	// The other node, whose timeout is short, is elected for maintenance while this one is
	// frozen. The one attempt began when one of the other node would have been lost for long,
	// and the other when one of this node is lost, too.
	freeze := func(signal os.Signal) {
		t.Helper()
		if err := node.Cmd.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
	}
	freeze(syscall.SIGSTOP)
	hurry(t, s, 50*time.Second, "queue = 'long'")
	hurry(t, s, 3*time.Minute, "queue = 'lost'")
	short := guardtest.NewSite(t, guardtest.Delivering(long, "name short"))
	short.Options = "timeout 1s\n" + store
	short.Start(t)
	of := func(guard string) outbox.Delivery {
		items := short.Items(t)
		return items[slices.IndexFunc(items, func(d outbox.Delivery) bool { return d.Callback.Guard == guard })]
	}
	guardtest.Eventually(t, 90*time.Second, "what is lost is found", func() bool { return len(of("lost").Failures) > 0 })
	if d := of("long"); d.State != outbox.Running || d.Attempt != 1 || len(d.Failures) > 0 {
		t.Errorf("while it is running: %+v", d)
	}
	freeze(syscall.SIGCONT)
	guardtest.Eventually(t, 10*time.Second, "what was lost is attempted", func() bool { return lost.Tries.Load() > 1 })
	close(release)
	long.One(t, guardtest.Event("long"))
	s.WantState(t, outbox.Delivered, 1)
	if d := of("long"); long.Tries.Load() != 1 || d.Attempt != 1 || len(d.Failures) > 0 {
		t.Errorf("%d attempts, %+v", long.Tries.Load(), d)
	}
}

// On termination, a running attempt is finished within the grace period, and not
// repeated.
func TestEndToEndDeliveryFinishesRunningAttemptsOnTermination(t *testing.T) {
	t.Parallel()
	b := guardtest.NewBackend(t, func(b *guardtest.Backend) http.HandlerFunc {
		accept := guardtest.Accepts(b)
		return func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(1500 * time.Millisecond)
			accept(w, r)
		}
	})
	s := guardtest.NewSite(t, guardtest.Delivering(b))
	p := s.Start(t)
	guardtest.NewPoster(t, s.Listen).WantOK(t, "slow")
	guardtest.Eventually(t, 10*time.Second, "an attempt", func() bool { return b.Tries.Load() > 0 })
	if took := p.Terminate(t); took > 5*time.Second {
		t.Errorf("it took %s to stop", took)
	}
	if n := b.Times(guardtest.Event("slow")); n != 1 {
		t.Errorf("accepted %d times, want 1", n)
	}
	db := s.OpenStore(t)
	var state string
	if err := db.QueryRow("SELECT state FROM river_job").Scan(&state); err != nil || state != "completed" {
		t.Errorf("state %q, error %v; want completed", state, err)
	}
}

// The same goes for an attempt that began before a reload.
func TestEndToEndDeliveryFinishesAttemptsOfTheConfigurationBeforeOnTermination(t *testing.T) {
	t.Parallel()
	b := guardtest.NewBackend(t, func(b *guardtest.Backend) http.HandlerFunc {
		accept := guardtest.Accepts(b)
		return func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(1500 * time.Millisecond)
			accept(w, r)
		}
	})
	s := guardtest.NewSite(t, guardtest.Delivering(b))
	p := s.Start(t)
	guardtest.NewPoster(t, s.Listen).WantOK(t, "slow")
	guardtest.Eventually(t, 10*time.Second, "an attempt", func() bool { return b.Tries.Load() > 0 })
	s.Directives = "header X-Generation 2\n" + guardtest.Delivering(b)
	s.Reload(t)
	if took := p.Terminate(t); took > 5*time.Second {
		t.Errorf("it took %s to stop", took)
	}
	s.Start(t)
	s.WantState(t, outbox.Delivered, 1)
	if n := b.Times(guardtest.Event("slow")); n != 1 {
		t.Errorf("accepted %d times, want 1", n)
	}
}

// An attempt that does not end within the grace period is canceled, and repeated after
// the next start.
func TestEndToEndDeliveryIsCanceledAfterTheGracePeriod(t *testing.T) {
	t.Parallel()
	b := guardtest.NewBackend(t, guardtest.Hangs)
	s := guardtest.NewSite(t, guardtest.Delivering(b))
	s.Global = "grace_period 1s"
	p := s.Start(t)
	guardtest.NewPoster(t, s.Listen).WantOK(t, "hanging")
	guardtest.Eventually(t, 10*time.Second, "an attempt", func() bool { return b.Tries.Load() > 0 })
	if took := p.Terminate(t); took > 8*time.Second {
		t.Errorf("it took %s to stop, with a grace period of 1s", took)
	}
	b.Will(guardtest.Accepts)
	start := time.Now()
	s.Start(t)
	a := b.One(t, guardtest.Event("hanging"))
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
	b := guardtest.NewBackend(t, guardtest.Answers(http.StatusServiceUnavailable, ""))
	s := guardtest.NewSite(t, guardtest.Delivering(b))
	p := s.Start(t)
	guardtest.NewPoster(t, s.Listen).WantOK(t, "kept")
	s.WantError(t, "503")
	p.Terminate(t)
	db := s.OpenStore(t)
	for _, statement := range []string{
		// The least that makes a request, and something that nobody knows yet.
		`UPDATE river_job SET args = json_remove(args, '$.msg_seqs', '$.key', '$.received', '$.event_id', '$.conversation', '$.proto', '$.tls', '$.remote_addr', '$.group_id'),
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
	b.Will(guardtest.Accepts)
	s.Start(t)
	if err := b.One(t, guardtest.Event("kept")).IsDelivery("/callback", guardtest.Token); err != nil {
		t.Error(err)
	}
}

// During termination by SIGTERM, under load and with the backend down, a callback is
// either stored and answered OK, or its connection is closed; none is refused. All that
// were answered OK are delivered after the next start.
func TestEndToEndDeliveryRefusesNothingOnTermination(t *testing.T) {
	t.Parallel()
	b := guardtest.NewBackend(t, guardtest.Answers(http.StatusServiceUnavailable, ""))
	s := guardtest.NewSite(t, guardtest.Delivering(b))
	s.Global = "grace_period 1s"
	var stored []string
	terminations := guardtest.InLongForm(5, 200)
	for n := range terminations {
		p := s.Start(t)
		l := newStoring(guardtest.NewPoster(t, s.Listen), 8, 0, fmt.Sprint("term", n))
		guardtest.Eventually(t, 20*time.Second, "something is stored", func() bool { return l.count() > 0 })
		time.Sleep(time.Duration(rand.Int64N(int64(300 * time.Millisecond)))) //nolint:gosec // a moment need not be unguessable
		p.Terminate(t)
		ids, _ := l.finish()
		if len(l.refused) > 0 {
			t.Fatalf("termination %d: %d callbacks were refused; the first: %s", n, len(l.refused), l.refused[0])
		}
		stored = append(stored, ids...)
	}
	b.Will(guardtest.Accepts)
	s.Start(t)
	b.WantAll(t, time.Minute+time.Duration(len(stored))*10*time.Millisecond, stored)
	t.Logf("%d terminations, %d answered OK, all of them delivered", terminations, len(stored))
}
