// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/timguard/timguard/caddymodule/callback"
	"github.com/timguard/timguard/caddymodule/internal/guardtest"
	"github.com/timguard/timguard/caddymodule/outbox"
)

// concurrency counts requests that are served at the same time.
type concurrency struct {
	mu        sync.Mutex
	now, most int
}

func (c *concurrency) add(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now += n
	c.most = max(c.most, c.now)
}

// durations are how long requests took, by name.
type durations struct {
	mu sync.Mutex
	of map[string][]time.Duration
}

func (d *durations) add(name string, took time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.of[name] = append(d.of[name], took)
}

func (d *durations) get(name string) []time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.of[name])
}

// Each queue has options of its own, and those of tim_delivery where it has none.
func TestEndToEndDeliveryHasTheOptionsOfItsQueue(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, store string) {
		t.Helper()
		queues := map[string]struct{ options, consumer string }{
			"two-workers": {"workers 2", ""}, "one-worker": {"workers 1", "archive"}, "default-workers": {"", ""},
			"short-timeout": {"timeout 300ms", ""}, "short-timeout-copies": {"timeout 300ms", "archive"}, "default-timeout": {"", ""},
			"one-attempt": {"max_attempts 1", ""}, "one-attempt-copies": {"max_attempts 1", "archive"}, "default-attempts": {"", ""},
			"limited": {"rate 5/s", ""}, "limited-copies": {"rate 2.5/s", "archive"},
		}
		slow := make(map[string]*concurrency)
		for name := range queues {
			slow[name] = new(concurrency)
		}
		hung := durations{of: make(map[string][]time.Duration)}
		b := guardtest.NewBackend(t, func(b *guardtest.Backend) http.HandlerFunc {
			accept, hang := guardtest.Accepts(b), guardtest.Hangs(b)
			return func(w http.ResponseWriter, r *http.Request) {
				switch name := r.URL.Path[1:]; name {
				case "two-workers", "one-worker", "default-workers":
					slow[name].add(1)
					time.Sleep(1200 * time.Millisecond) // in which a busy machine begins as many as may
					slow[name].add(-1)
					accept(w, r)
				case "short-timeout", "short-timeout-copies", "default-timeout":
					begun := time.Now()
					hang(w, r)
					hung.add(name, time.Since(begun))
				case "limited", "limited-copies":
					accept(w, r)
				default:
					w.WriteHeader(http.StatusInternalServerError)
				}
			}
		})
		directives := ""
		for name, q := range queues {
			block := "{\n" + q.options + "\nreverse_proxy " + b.Address() + "\n}"
			rule := []string{"name " + name, "on after deliver", "backend " + block}
			if q.consumer != "" {
				rule = []string{"name " + name, "on after ack {\ncopy " + q.consumer + "\n}", "consumer " + q.consumer + " " + block}
			}
			directives += "handle /" + name + " {\n" + guardtest.Guard(rule...) + "\n}\n"
		}
		s := guardtest.NewSite(t, directives)
		s.Options = "timeout 2s\nmax_attempts 2\nworkers 5\n" + store
		s.Start(t)
		p := guardtest.NewPoster(t, s.Listen)
		const events = 8
		for i := range events {
			var posts sync.WaitGroup
			for name := range queues {
				posts.Go(func() { // fast, so that there are enough for all workers
					if _, answer, err := p.Post("/"+name, callback.RecallCommand, guardtest.Event(fmt.Sprint(name, i))); err != nil || answer != guardtest.OKJSON {
						t.Error(answer, err)
					}
				})
			}
			posts.Wait()
		}
		if t.Failed() {
			t.FailNow()
		}
		of := func(guard string) (items []outbox.Delivery) {
			for _, item := range s.Items(t) {
				if item.Callback.Guard == guard {
					items = append(items, item)
				}
			}
			return items
		}
		ended := func(names ...string) func() bool {
			return func() bool {
				for _, name := range names {
					for _, item := range of(name) {
						if item.State != outbox.Delivered && item.State != outbox.Dead {
							return false
						}
					}
				}
				return true
			}
		}
		guardtest.Eventually(t, 20*time.Second, "all end, but those with the default timeout", ended("two-workers", "one-worker", "default-workers",
			"short-timeout", "short-timeout-copies", "one-attempt", "one-attempt-copies", "default-attempts", "limited", "limited-copies"))
		for name, want := range map[string]int{"two-workers": 2, "one-worker": 1, "default-workers": 5} {
			if n := slow[name].most; n != want {
				t.Errorf("%s: %d attempts at the same time, want %d", name, n, want)
			}
		}
		for name, want := range map[string]int{"one-attempt": 1, "one-attempt-copies": 1, "default-attempts": 2, "short-timeout": 2} {
			for _, item := range of(name) {
				if len(item.Failures) != want || item.MaxAttempts != want || item.State != outbox.Dead {
					t.Errorf("%s: %s after %d attempts of %d, want %d", name, item.State, len(item.Failures), item.MaxAttempts, want)
				}
			}
		}
		for name, want := range map[string]int{"one-attempt": 1, "default-attempts": 2} { // which are made again by retry
			item := of(name)[0]
			if code, body := guardtest.Get(t, http.MethodPost, fmt.Sprintf("http://%s/tim_callback/deliveries/%d/retry", s.Admin, item.ID)); code != http.StatusOK {
				t.Fatal(code, body)
			}
			guardtest.Eventually(t, 10*time.Second, "it is dead again", func() bool { item = of(name)[0]; return item.State == outbox.Dead && len(item.Failures) == 2*want })
			if item.MaxAttempts != want || item.Attempt != want {
				t.Errorf("%s: %d attempts of %d after a retry, want %d", name, item.Attempt, item.MaxAttempts, want)
			}
		}
		for name, interval := range map[string]time.Duration{"limited": 200 * time.Millisecond, "limited-copies": 400 * time.Millisecond} {
			var first, last time.Time
			for i := range events {
				a := b.One(t, guardtest.Event(fmt.Sprint(name, i)))
				if n := a.Header.Get("Tim-Delivery-Attempt"); n != "1" {
					t.Errorf("%s: waiting counts as an attempt: %s", name, n)
				}
				if first.IsZero() || a.At.Before(first) {
					first = a.At
				}
				if a.At.After(last) {
					last = a.At
				}
			}
			if took, least := last.Sub(first), (events-1)*interval; took < least-100*time.Millisecond || took > least+5*time.Second {
				t.Errorf("%s: %d took %s, want %s", name, events, took, least)
			}
		}
		guardtest.Eventually(t, 20*time.Second, "the others end too", ended("default-timeout"))
		for name, want := range map[string]time.Duration{
			"short-timeout": 300 * time.Millisecond, "short-timeout-copies": 300 * time.Millisecond, "default-timeout": 2 * time.Second,
		} {
			guardtest.Eventually(t, 10*time.Second, "the backend notices", func() bool { return len(hung.get(name)) == 2*events })
			// On a busy machine, the backend notices an attempt late, or its end.
			shortest, longest := slices.Min(hung.get(name)), slices.Max(hung.get(name))
			if longest < want-100*time.Millisecond || shortest > want+time.Second {
				t.Errorf("%s: attempts took %s to %s, want %s", name, shortest, longest, want)
			}
			for _, item := range of(name) {
				if item.Failures[0].Error != "the backend did not answer in time" {
					t.Errorf("%s: %+v", name, item.Failures)
				}
			}
		}
	})
}

// The rate of a queue is kept over reloads, and what waits for it holds up no termination.
func TestEndToEndDeliveryKeepsItsRate(t *testing.T) {
	t.Parallel()
	const rate = 2
	limited := func(t *testing.T) (*guardtest.Backend, *guardtest.Process) {
		t.Helper()
		b := guardtest.NewBackend(t, guardtest.Accepts)
		s := guardtest.NewSite(t, guardtest.Guard("on after deliver", fmt.Sprintf("backend {\nrate %d/s\nreverse_proxy %s\n}", rate, b.Address())))
		s.Global = "" // no grace_period
		guard := s.Start(t)
		p := guardtest.NewPoster(t, s.Listen)
		for i := range 100 {
			p.WantOK(t, fmt.Sprint("limited-", i))
		}
		guardtest.Eventually(t, 10*time.Second, "others wait for their turn", func() bool { return b.Total() > 1 })
		return b, guard
	}
	t.Run("reloads", func(t *testing.T) {
		t.Parallel()
		b, guard := limited(t)
		directives, start, before := guard.Directives, time.Now(), b.Total()
		const reloads = 5
		for n := range reloads {
			time.Sleep(600 * time.Millisecond)
			guard.Directives = fmt.Sprintf("header X-Generation %d\n%s", n, directives)
			guard.Reload(t)
		}
		arrived := b.Total() - before
		if most := int(time.Since(start).Seconds()*rate) + 1 + reloads; arrived > most || arrived < 3 {
			t.Errorf("%d arrived in %s at a rate of %d/s, want at most %d", arrived, time.Since(start).Round(time.Millisecond), rate, most)
		}
	})
	t.Run("termination", func(t *testing.T) {
		t.Parallel()
		b, guard := limited(t)
		arrived := b.Total()
		took := guard.Terminate(t)
		if took > 3*time.Second {
			t.Errorf("it took %s to stop", took)
		}
		if n := b.Total() - arrived; n > 2 {
			t.Errorf("%d attempts were begun after the stop", n)
		}
		guard.Start(t)
		guardtest.Eventually(t, 3*time.Second, "deliveries go on", func() bool { return b.Total() > arrived+2 })
		for _, a := range b.All() {
			if n := a.Header.Get("Tim-Delivery-Attempt"); n != "1" {
				t.Errorf("waiting counts as an attempt: %s", n)
			}
		}
	})
}

// A backend that is busy says when it is to be called again, in seconds or by a date, which
// is respected for up to an hour.
func TestEndToEndDeliveryRespectsRetryAfter(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		status      int
		after       func() string
		least, most time.Duration
	}{
		"seconds":              {http.StatusTooManyRequests, func() string { return "3" }, 3 * time.Second, 5 * time.Second},
		"seconds, 503":         {http.StatusServiceUnavailable, func() string { return "3" }, 3 * time.Second, 5 * time.Second},
		"a date":               {http.StatusServiceUnavailable, func() string { return time.Now().Add(4 * time.Second).UTC().Format(http.TimeFormat) }, 3 * time.Second, 6 * time.Second},
		"a date, 429":          {http.StatusTooManyRequests, func() string { return time.Now().Add(4 * time.Second).UTC().Format(http.TimeFormat) }, 3 * time.Second, 6 * time.Second},
		"another status":       {http.StatusInternalServerError, func() string { return "600" }, 700 * time.Millisecond, 3 * time.Second},
		"nonsense":             {http.StatusTooManyRequests, func() string { return "soon" }, 700 * time.Millisecond, 3 * time.Second},
		"a date that is over":  {http.StatusTooManyRequests, func() string { return "Mon, 01 Jan 2024 00:00:00 GMT" }, 700 * time.Millisecond, 3 * time.Second},
		"none":                 {http.StatusTooManyRequests, func() string { return "" }, 700 * time.Millisecond, 3 * time.Second},
		"a day":                {http.StatusTooManyRequests, func() string { return "86400" }, 59 * time.Minute, 61 * time.Minute},
		"more than a time has": {http.StatusServiceUnavailable, func() string { return "99999999999999" }, 59 * time.Minute, 61 * time.Minute},
		"a date far away":      {http.StatusServiceUnavailable, func() string { return "Fri, 01 Jan 2100 00:00:00 GMT" }, 59 * time.Minute, 61 * time.Minute},
	}
	eachStore(t, func(t *testing.T, store string) {
		t.Helper()
		b := guardtest.NewBackend(t, func(b *guardtest.Backend) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				tt := cases[r.URL.Query().Get("case")]
				if r.Header.Get("Tim-Delivery-Attempt") == "1" {
					w.Header().Set("Retry-After", tt.after())
					guardtest.AcceptsWith(tt.status, guardtest.OKJSON)(b)(w, r)
					return
				}
				guardtest.Accepts(b)(w, r)
			}
		})
		s := guardtest.NewSite(t, guardtest.Delivering(b))
		s.Options = store
		s.Start(t)
		p := guardtest.NewPoster(t, s.Listen)
		long := 0
		for name, tt := range cases {
			query := "case=" + url.QueryEscape(name) + "&" + guardtest.Query(guardtest.App, callback.RecallCommand, guardtest.Signed(guardtest.Token, time.Now()))
			if _, answer, err := p.PostQuery("/callback", query, guardtest.Event(name)); err != nil || answer != guardtest.OKJSON {
				t.Fatal(answer, err)
			}
			if tt.least > time.Minute {
				long++
			}
		}
		s.WantState(t, outbox.Delivered, len(cases)-long)
		due := make(map[string]time.Time) // of those that are not attempted again for long
		for _, item := range s.Items(t) {
			if len(item.Failures) != 1 {
				t.Errorf("%d failures of %s, want 1", len(item.Failures), item.Callback.URI)
			}
			if u, err := url.Parse(item.Callback.URI); err != nil {
				t.Error(err)
			} else if item.State == outbox.Retrying {
				due[u.Query().Get("case")] = item.Due
			}
		}
		for name, tt := range cases {
			attempts, next := b.Of(guardtest.Event(name)), due[name]
			if len(attempts) > 1 {
				next = attempts[1].At
			}
			waited := next.Sub(attempts[0].At)
			if waited < tt.least || waited > tt.most {
				t.Errorf("%s: the next attempt is after %s, want %s to %s", name, waited, tt.least, tt.most)
			}
		}
	})
}
