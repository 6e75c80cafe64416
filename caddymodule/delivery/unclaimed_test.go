// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/timguard/timguard/caddymodule/internal/guardtest"
	"github.com/timguard/timguard/caddymodule/outbox"
)

// Callbacks whose guard, backend or consumer is no longer configured when Caddy starts are
// kept, and reported in the log, in status and by a gauge. They are delivered when it is
// configured again.
func TestEndToEndDeliveryReportsWhatNobodyClaims(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		change    func(site string, b *guardtest.Backend) string
		unclaimed []guardtest.Unclaimed // of two
	}{
		"another name": {
			func(site string, _ *guardtest.Backend) string {
				return strings.Replace(site, "name old", "name new", 1)
			},
			[]guardtest.Unclaimed{{Guard: "old", Deliveries: 1}, {Guard: "old", Consumer: "archive", Deliveries: 1}},
		},
		"no backend block": {
			func(site string, b *guardtest.Backend) string {
				return strings.NewReplacer("backend "+b.Address(), "", "deliver", "forward").Replace(site) + "\nreverse_proxy " + b.Address()
			},
			[]guardtest.Unclaimed{{Guard: "old", Deliveries: 1}},
		},
		"no consumer block": {
			func(site string, b *guardtest.Backend) string {
				return strings.NewReplacer("consumer archive "+b.Address(), "", "copy archive", "").Replace(site)
			},
			[]guardtest.Unclaimed{{Guard: "old", Consumer: "archive", Deliveries: 1}},
		},
		"no guard": {
			func(_ string, b *guardtest.Backend) string { return "reverse_proxy " + b.Address() },
			[]guardtest.Unclaimed{{Guard: "old", Deliveries: 1}, {Guard: "old", Consumer: "archive", Deliveries: 1}},
		},
		"a guard without any block": {
			func(_ string, b *guardtest.Backend) string {
				return guardtest.Guard("name old") + "\nreverse_proxy " + b.Address()
			},
			[]guardtest.Unclaimed{{Guard: "old", Deliveries: 1}, {Guard: "old", Consumer: "archive", Deliveries: 1}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := guardtest.NewBackend(t, guardtest.Answers(http.StatusServiceUnavailable, ""))
			site := guardtest.Guard("name old", "on after deliver {\ncopy archive\n}", "backend "+b.Address(), "consumer archive "+b.Address())
			s := guardtest.NewSite(t, site)
			s.Options = "max_attempts 100"
			p := s.Start(t)
			guardtest.NewPoster(t, s.Listen).WantOK(t, "unclaimed")
			s.WantState(t, outbox.Retrying, 2)
			p.Terminate(t)
			b.Will(guardtest.Accepts)

			s.Directives = tt.change(site, b)
			p = s.Start(t)
			wantUnclaimed(t, p, len(tt.unclaimed))
			for _, u := range tt.unclaimed {
				what := "backend"
				if u.Consumer != "" {
					what = "consumer"
				}
				p.WantLog(t, "deliveries await a guard of this name with this "+what+"; configure it again, or discard them",
					map[string]any{"level": "warn", "logger": "tim_delivery", "guard": u.Guard, "consumer": u.Consumer, "deliveries": float64(u.Deliveries)})
			}
			if got := s.Status(t).Unclaimed; !slices.Equal(got, tt.unclaimed) {
				t.Errorf("status says %v, want %v", got, tt.unclaimed)
			}
			text := s.CLI(t, false, "status")
			for _, u := range tt.unclaimed {
				if want := "1 awaits guard old" + strings.Repeat(" and consumer "+u.Consumer, min(1, len(u.Consumer))); !strings.Contains(text, want) {
					t.Errorf("deliveries status prints\n%s, without %s", text, want)
				}
			}
			claimed := 2 - len(tt.unclaimed)
			s.WantState(t, outbox.Delivered, claimed)
			time.Sleep(500 * time.Millisecond) // for what must not come
			if n := b.Total(); n != claimed {
				t.Errorf("%d arrived without anybody who claims them, want %d", n, claimed)
			}
			p.Terminate(t)

			s.Directives = site
			s.Start(t)
			s.WantState(t, outbox.Delivered, 2)
		})
	}
}

// Nothing but a guard tells that there may be a store, if it is the default one and the guard
// has lost its backend.
func TestEndToEndDeliveryReportsWhatNobodyClaimsInTheDefaultStore(t *testing.T) {
	t.Parallel()
	b := guardtest.NewBackend(t, guardtest.Answers(http.StatusServiceUnavailable, ""))
	s := guardtest.NewSite(t, guardtest.Delivering(b))
	s.App = false
	p := s.Start(t)
	guardtest.NewPoster(t, s.Listen).WantOK(t, "unclaimed")
	s.WantState(t, outbox.Retrying, 1)
	p.Terminate(t)

	s.Directives = guardtest.Guard() + "\nreverse_proxy " + b.Address()
	p = s.Start(t)
	wantUnclaimed(t, p, 1)
	p.WantLog(t, "deliveries await a guard of this name with this backend; configure it again, or discard them",
		map[string]any{"level": "warn", "guard": "default", "deliveries": 1.0})
}

// If the store cannot be opened when Caddy starts, what nobody claims is reported as soon as
// it can.
func TestEndToEndDeliveryReportsWhatNobodyClaimsWhenTheStoreIsOpen(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]storeFault{"postgres gone": postgresGone(), "postgres hangs": postgresHangs()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := guardtest.NewBackend(t, guardtest.Answers(http.StatusServiceUnavailable, ""))
			s := guardtest.NewSite(t, guardtest.Delivering(b, "name old"))
			fault.prepare(t, s)
			p := s.Start(t)
			guardtest.NewPoster(t, s.Listen).WantOK(t, "unclaimed")
			s.WantState(t, outbox.Retrying, 1)
			p.Terminate(t)
			fault.begin(t, s)
			s.Unopened = true
			s.Directives = guardtest.Delivering(b, "name new")
			p = s.Start(t)
			p.WantLog(t, "the store cannot be opened; callbacks are forwarded instead of stored, until it can; trying again every second", nil)
			fault.end(t, s)
			p.WantLog(t, "the store works again", nil)
			wantUnclaimed(t, p, 1)
		})
	}
}

// What is left in a store that a reload replaces is said, and delivered when the store is
// configured again.
func TestEndToEndDeliveryReportsWhatIsLeftInAnotherStore(t *testing.T) {
	t.Parallel()
	other := func(t *testing.T) string { t.Helper(); return "store sqlite " + filepath.Join(t.TempDir(), "other.db") }
	for name, tt := range map[string]struct {
		before func(testing.TB) string
		change func(t *testing.T, s *guardtest.Site)
	}{
		"another file":     {func(testing.TB) string { return "" }, func(t *testing.T, s *guardtest.Site) { t.Helper(); s.Options = other(t) }},
		"to postgres":      {func(testing.TB) string { return "" }, func(t *testing.T, s *guardtest.Site) { t.Helper(); s.Options = storeInPostgres(t) }},
		"from postgres":    {storeInPostgres, func(t *testing.T, s *guardtest.Site) { t.Helper(); s.Options = other(t) }},
		"another database": {storeInPostgres, func(t *testing.T, s *guardtest.Site) { t.Helper(); s.Options = storeInPostgres(t) }},
		"no tim_delivery":  {storeInPostgres, func(_ *testing.T, s *guardtest.Site) { s.App, s.Directives = false, guardtest.Guard()+"\nrespond 200" }},
		"no guard either":  {func(testing.TB) string { return "" }, func(_ *testing.T, s *guardtest.Site) { s.App, s.Directives = false, "respond 200" }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := guardtest.NewBackend(t, guardtest.Answers(http.StatusServiceUnavailable, ""))
			site := guardtest.Delivering(b)
			s := guardtest.NewSite(t, site)
			s.Options = tt.before(t)
			before := s.Options
			p := s.Start(t)
			poster := guardtest.NewPoster(t, s.Listen)
			for _, id := range []string{"left1", "left2"} {
				poster.WantOK(t, id)
			}
			s.WantState(t, outbox.Retrying, 2)

			tt.change(t, s)
			s.Reload(t)
			b.Will(guardtest.Accepts)
			p.WantLog(t, "deliveries are left in a store that is no longer configured; configure it again to deliver them",
				map[string]any{"level": "warn", "logger": "tim_delivery", "deliveries": 2.0})
			if n := len(p.LogLines(t, "deliveries are left in a store that is no longer configured; configure it again to deliver them")); n != 1 {
				t.Errorf("it is said %d times", n)
			}
			time.Sleep(500 * time.Millisecond) // for what must not come
			if b.Total() != 0 {
				t.Error("they were delivered from a store that is not configured")
			}

			s.App, s.Options, s.Directives = true, before, site
			s.Reload(t)
			b.WantAll(t, 20*time.Second, []string{"left1", "left2"})
			s.WantState(t, outbox.Delivered, 2)
		})
	}
}

// A callback that a server of the replaced configuration is still forwarding is stored if the
// backend does not accept it, in the store that its configuration has.
func TestEndToEndDeliveryStoresWhatAReloadToAnotherStoreFindsInProgress(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(t *testing.T, s *guardtest.Site){
		"another file": func(t *testing.T, s *guardtest.Site) {
			t.Helper()
			s.Options = "store sqlite " + filepath.Join(t.TempDir(), "other.db")
		},
		"no store": func(_ *testing.T, s *guardtest.Site) { s.App, s.Directives = false, "respond 200" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			arrived, answer := make(chan struct{}), make(chan struct{})
			b := guardtest.NewBackend(t, func(*guardtest.Backend) http.HandlerFunc {
				return func(w http.ResponseWriter, _ *http.Request) {
					close(arrived)
					<-answer
					w.WriteHeader(http.StatusInternalServerError)
				}
			})
			site := guardtest.Guard("on after forward {\nfallback deliver\n}", "backend "+b.Address())
			s := guardtest.NewSite(t, site)
			p := s.Start(t)
			var posted sync.WaitGroup
			posted.Go(func() { guardtest.NewPoster(t, s.Listen).WantOK(t, "inside") })
			<-arrived
			change(t, s)
			s.Reload(t)
			close(answer)
			posted.Wait()
			p.WantLog(t, "deliveries are left in a store that is no longer configured; configure it again to deliver them",
				map[string]any{"deliveries": 1.0})

			b.Will(guardtest.Accepts)
			s.App, s.Options, s.Directives = true, "", site
			s.Reload(t)
			b.WantAll(t, 20*time.Second, []string{"inside"})
		})
	}
}
