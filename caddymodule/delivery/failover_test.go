// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/timguard/timguard/caddymodule/callback"
	"github.com/timguard/timguard/caddymodule/internal/guardtest"
	"github.com/timguard/timguard/caddymodule/outbox"
)

// acceptsDeliveries accepts what is delivered, and refuses what is only forwarded because it
// cannot be stored, so that an OK stands for a row.
func acceptsDeliveries(b *guardtest.Backend) http.HandlerFunc {
	accept := guardtest.Accepts(b)
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Tim-Delivery-Attempt") == "" {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		accept(w, r)
	}
}

// wantNoErrors fails the test if the log has a line of the level error.
func wantNoErrors(t *testing.T, p *guardtest.Process) {
	t.Helper()
	for text := range strings.Lines(p.Log.String()) {
		if strings.Contains(text, `"level":"error"`) {
			t.Errorf("the log says %.500s", text)
		}
	}
}

// Through PgBouncer in transaction mode, two nodes store and deliver as ever, also while one
// of them reloads its configuration.
func TestEndToEndPgBouncer(t *testing.T) {
	t.Parallel()
	server := guardtest.NewPostgresServer(t)
	bouncer := guardtest.NewPgBouncer(t, server)
	b := guardtest.NewBackend(t, acceptsDeliveries)
	var guards []*guardtest.Process
	var storings []*storing
	for n := range 2 {
		s := guardtest.NewSite(t, guardtest.Delivering(b))
		s.Options = "store postgres " + bouncer.DSN()
		guards = append(guards, s.Start(t))
		guards[n].WantLog(t, "the store is open", nil)
		storings = append(storings, newStoring(guardtest.NewPoster(t, s.Listen), 8, 10, fmt.Sprint("node", n)))
	}
	time.Sleep(time.Second)
	guards[1].Directives = "header X-Generation 2\n" + guards[1].Directives
	guards[1].Reload(t)
	time.Sleep(time.Second)
	var stored []string
	for _, l := range storings {
		ids, other := l.finish()
		if len(other) > 0 {
			t.Errorf("%d callbacks were not answered OK; the first: %s", len(other), other[0])
		}
		stored = append(stored, ids...)
	}
	b.WantAll(t, time.Minute, stored)
	guards[0].WantState(t, outbox.Delivered, len(stored))
	for _, id := range stored {
		if n := b.Times(guardtest.Event(id)); n != 1 {
			t.Errorf("callback %s arrived %d times", id, n)
		}
	}
	for _, p := range guards {
		wantNoErrors(t, p)
	}
	t.Logf("%d answered OK, all of them delivered", len(stored))
}

// PgBouncer refuses a DSN with search_path. The error says what to do, and callbacks are
// forwarded.
func TestEndToEndPgBouncerRefusesSearchPath(t *testing.T) {
	t.Parallel()
	bouncer := guardtest.NewPgBouncer(t, guardtest.NewPostgresServer(t))
	b := guardtest.NewBackend(t, guardtest.Accepts)
	s := guardtest.NewSite(t, guardtest.Delivering(b))
	s.Options, s.Unopened = "store postgres "+bouncer.DSN()+"&search_path=callbacks", true
	p := s.Start(t)
	p.WantLog(t, "the store cannot be opened; callbacks are forwarded instead of stored, until it can; trying again every second", map[string]any{
		"level": "error", "error": "PgBouncer does not pass search_path on; remove it from the DSN, and set it in the database instead: " +
			"ALTER ROLE <user> IN DATABASE <database> SET search_path = <schema>",
	})
	guardtest.NewPoster(t, s.Listen).WantOK(t, "forwarded")
	if !b.Forwarded(guardtest.Event("forwarded")) {
		t.Error("it was not forwarded")
	}
}

// Nodes that start at once on an empty database all work, and say no error.
func TestEndToEndDeliveryOfNodesThatStartAtOnce(t *testing.T) {
	t.Parallel()
	const nodes = 4
	store := storeInPostgres(t)
	b := guardtest.NewBackend(t, acceptsDeliveries)
	sites, guards := make([]*guardtest.Site, nodes), make([]*guardtest.Process, nodes)
	var starts sync.WaitGroup
	for n := range nodes {
		sites[n] = guardtest.NewSite(t, guardtest.Guard("on after deliver", "backend {\nordered\nreverse_proxy "+b.Address()+"\n}"))
		sites[n].Options = store
		starts.Go(func() { guards[n] = sites[n].Start(t) })
	}
	starts.Wait()
	if t.Failed() {
		return
	}
	var ids []string
	for n, s := range sites {
		guards[n].WantLog(t, "the store is open", nil)
		ids = append(ids, fmt.Sprint("node", n))
		guardtest.NewPoster(t, s.Listen).WantOK(t, ids[n])
	}
	b.WantAll(t, 20*time.Second, ids)
	for n, s := range sites {
		s.WantState(t, outbox.Delivered, nodes)
		wantNoErrors(t, guards[n])
	}
}

// failover is how a guard finds the primary.
type failover struct {
	dsn    func(t *testing.T, primary, standby *guardtest.PostgresServer) string
	change func(t *testing.T, standby *guardtest.PostgresServer) // after the promotion; may be nil
}

// The primary and one of two guards are killed under load, and the standby is promoted: no
// callback that was answered OK is lost, and callbacks are stored again at once.
func TestEndToEndFailoverLosesNothing(t *testing.T) {
	t.Parallel()
	var bouncer *guardtest.PgBouncer
	for name, f := range map[string]failover{
		"PgBouncer": {
			func(t *testing.T, primary, _ *guardtest.PostgresServer) string {
				t.Helper()
				bouncer = guardtest.NewPgBouncer(t, primary)
				return bouncer.DSN()
			},
			func(t *testing.T, standby *guardtest.PostgresServer) { t.Helper(); bouncer.PointTo(t, standby) },
		},
		"two hosts": {
			func(_ *testing.T, primary, standby *guardtest.PostgresServer) string {
				return strings.Replace(primary.DSN(), primary.Address, primary.Address+","+standby.Address, 1) + "&target_session_attrs=read-write"
			}, nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f.test(t)
		})
	}
}

func (f failover) test(t *testing.T) {
	t.Helper()
	primary := guardtest.NewPostgresServer(t)
	standby := primary.NewStandby(t)
	dsn := f.dsn(t, primary, standby)
	b := guardtest.NewBackend(t, acceptsDeliveries)
	var guards []*guardtest.Process
	for range 2 {
		s := guardtest.NewSite(t, guardtest.Delivering(b))
		s.Options = "timeout 2s\nstore postgres " + dsn
		guards = append(guards, s.Start(t))
		guards[len(guards)-1].WantLog(t, "the store is open", nil)
	}
	l := newInsisting(t, 16, guards...)
	hold := time.Duration(guardtest.InLongForm(2, 15)) * time.Second
	time.Sleep(hold)

	killed := time.Now()
	primary.Kill()
	guards[0].Kill()
	time.Sleep(time.Second) // until somebody notices
	standby.Promote(t)
	if f.change != nil {
		f.change(t, standby)
	}
	promotion := time.Since(killed)
	time.Sleep(hold)
	stored, longest := l.finish()
	if !*guardtest.Long { // what was lost with the guard is found soon
		standby.Query(t, "UPDATE river_job SET attempted_at = now() - interval '1 minute' WHERE id IN ("+
			"SELECT id FROM river_job WHERE state = 'running' AND attempted_at < now() - interval '3 seconds' FOR UPDATE SKIP LOCKED)")
		standby.Query(t, "DELETE FROM river_leader")
	}
	b.WantAll(t, 2*time.Minute, stored)
	delivered := time.Since(killed)
	repeated := 0
	for _, id := range stored {
		if b.Times(guardtest.Event(id)) > 1 {
			repeated++
		}
	}
	t.Logf("%d answered OK, 0 lost, %d repeated; the promotion took %s, and the longest time without an OK was %s; the last was delivered after %s", len(stored), repeated,
		promotion.Round(time.Millisecond), longest.Round(time.Millisecond), delivered.Round(time.Millisecond))
	if most := promotion + time.Duration(guardtest.InLongForm(4, 2))*time.Second; longest > most {
		t.Errorf("the longest time without an OK was %s, want %s at most", longest, most)
	}
}

// insisting is a group of senders that repeat each recall at the guards in turn until it is
// answered OK, and note the time.
type insisting struct {
	stop    atomic.Bool
	senders sync.WaitGroup

	mu      sync.Mutex
	stored  []string // ids
	last    time.Time
	longest time.Duration // between two OKs
}

func newInsisting(t *testing.T, senders int, guards ...*guardtest.Process) *insisting {
	t.Helper()
	var posters []*guardtest.Poster
	for _, p := range guards {
		posters = append(posters, guardtest.NewPoster(t, p.Listen))
		posters[len(posters)-1].Client.Timeout = 2 * time.Second // as Tencent's
	}
	l := &insisting{last: time.Now()}
	for n := range senders {
		l.senders.Go(func() {
			for i, node := 0, n; !l.stop.Load(); i++ {
				id := fmt.Sprintf("sender-%d-%d", n, i)
				for !l.send(posters[node%len(posters)], id) && !l.stop.Load() {
					node++
					time.Sleep(20 * time.Millisecond)
				}
				time.Sleep(20 * time.Millisecond)
			}
		})
	}
	return l
}

func (l *insisting) send(p *guardtest.Poster, id string) bool {
	_, answer, err := p.Post("/callback", callback.RecallCommand, guardtest.Event(id))
	if err != nil || answer != guardtest.OKJSON {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.longest = max(l.longest, time.Since(l.last))
	l.last, l.stored = time.Now(), append(l.stored, id)
	return true
}

// finish stops the senders. It returns the ids of the callbacks that were answered OK, and
// the longest time without an OK.
func (l *insisting) finish() (stored []string, longest time.Duration) {
	l.stop.Store(true)
	l.senders.Wait()
	return l.stored, max(l.longest, time.Since(l.last))
}
