// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"bytes"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/timguard/timguard/caddymodule/callback"
	"github.com/timguard/timguard/caddymodule/internal/guardtest"
	"github.com/timguard/timguard/caddymodule/outbox"
)

// anonymous is a payload with nothing that distinguishes the event from a later one.
const anonymous = `{"CallbackCommand":"Group.CallbackAfterGroupDestroyed","GroupId":"g","Type":"Public","Owner_Account":"o","MemberList":[]}`

// anonymousCommand is the command of anonymous.
const anonymousCommand = "Group.CallbackAfterGroupDestroyed"

// sites is a configuration of two sites with a guard each, and some backends. Tests change
// it while callbacks are waiting.
type sites struct {
	listen   [2]string
	guards   [2][]string // subdirectives
	token    string
	before   string // sites before them
	after    string // sites after them
	wrap     func(guard string) string
	reversed bool
	without  int // the number of a site that is missing, from 1

	backends map[string]*guardtest.Backend
}

// directives returns the directives of the site with the number.
func (c *sites) directives(n int) string {
	if c.without == n+1 {
		return "respond 404"
	}
	guard := strings.Replace(guardtest.Guard(c.guards[n]...), guardtest.Token, c.token, 1)
	if c.wrap != nil {
		return c.wrap(guard)
	}
	return guard
}

// apply changes the site to the configuration.
func (c *sites) apply(s *guardtest.Site) {
	first, second := 0, 1
	if c.reversed {
		first, second = 1, 0
	}
	s.Listen, s.Directives = c.listen[first], c.directives(first)
	s.Before, s.After = c.before, "http://"+c.listen[second]+" {\n"+c.directives(second)+"\n}\n"+c.after
}

// replace replaces text in the subdirectives of both guards.
func (c *sites) replace(oldnew ...string) {
	for i, guard := range c.guards {
		for j, subdirective := range guard {
			c.guards[i][j] = strings.NewReplacer(oldnew...).Replace(subdirective)
		}
	}
}

// Whatever a reload changes, a callback that waits reaches the backend that a guard of its
// name has for it, or waits on if there is none. It reaches no other backend.
func TestEndToEndDeliveryReachesTheBackendOfItsNameAfterAReload(t *testing.T) {
	t.Parallel()
	// The rows are of the guard a, of its consumer archive, and of the guard b, and
	// reach the backends of these names unless it is said otherwise. - is none.
	own := map[string]string{"a": "a", "archive": "archive", "b": "b"}
	unrelated := func(t *testing.T) string { return "http://" + guardtest.FreePort(t) + " {\nrespond unrelated\n}\n" }
	for name, tt := range map[string]struct {
		change func(t *testing.T, c *sites)
		arrive map[string]string
	}{
		"a site before":       {func(t *testing.T, c *sites) { t.Helper(); c.before = unrelated(t) }, nil},
		"a site after":        {func(t *testing.T, c *sites) { t.Helper(); c.after = unrelated(t) }, nil},
		"the order":           {func(_ *testing.T, c *sites) { c.reversed = true }, nil},
		"the addresses":       {func(_ *testing.T, c *sites) { c.listen[0], c.listen[1] = c.listen[1], c.listen[0] }, nil},
		"another address":     {func(t *testing.T, c *sites) { t.Helper(); c.listen[1] = guardtest.FreePort(t) }, nil},
		"a site removed":      {func(_ *testing.T, c *sites) { c.without = 2 }, map[string]string{"b": "-"}},
		"the site of another": {func(_ *testing.T, c *sites) { c.without = 1 }, map[string]string{"a": "-", "archive": "-"}},
		"another name":        {func(_ *testing.T, c *sites) { c.replace("name b", "name c") }, map[string]string{"b": "-"}},
		"the names exchanged": {func(_ *testing.T, c *sites) { c.replace("name a", "name b", "name b", "name a") }, map[string]string{"a": "b", "b": "a", "archive": "-"}},
		"another token":       {func(_ *testing.T, c *sites) { c.token = guardtest.NewToken }, nil},
		"rules that forward":  {func(_ *testing.T, c *sites) { c.replace("deliver", "forward") }, nil},
		"rules that reject":   {func(_ *testing.T, c *sites) { c.replace(" {\ncopy archive\n}", "", "deliver", "reject") }, nil},
		"report mode":         {func(_ *testing.T, c *sites) { c.replace("mode enforce", "mode report") }, nil},
		"another path": {func(_ *testing.T, c *sites) {
			c.wrap = func(g string) string { return "handle /moved {\n" + g + "\n}\nrespond ok" }
		}, nil},
		"another guard before": {func(_ *testing.T, c *sites) { c.wrap = aroundByAnotherGuard }, nil},
		"another backend":      {func(_ *testing.T, c *sites) { c.replace(c.backends["a"].Address(), c.backends["other"].Address()) }, map[string]string{"a": "other"}},
		"backends exchanged": {func(_ *testing.T, c *sites) {
			a, b := c.backends["a"].Address(), c.backends["b"].Address()
			c.replace(a, b, b, a)
		}, map[string]string{"a": "b", "b": "a"}},
		"no backend block": {func(_ *testing.T, c *sites) {
			c.replace("deliver", "forward", "backend "+c.backends["b"].Address(), "")
			c.wrap = func(g string) string { return g + "\nreverse_proxy " + c.backends["b"].Address() }
		}, map[string]string{"b": "-"}},
		"no consumer block": {func(_ *testing.T, c *sites) {
			c.replace(" {\ncopy archive\n}", "", "consumer archive "+c.backends["archive"].Address(), "")
		}, map[string]string{"archive": "-"}},
		"a consumer renamed": {func(_ *testing.T, c *sites) { c.replace("archive ", "search ", "copy archive", "copy search") }, map[string]string{"archive": "-"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachStore(t, func(t *testing.T, store string) {
				t.Helper()
				arrive := maps.Clone(own)
				maps.Copy(arrive, tt.arrive)
				testReload(t, store, tt.change, arrive)
			})
		})
	}
}

// aroundByAnotherGuard puts another storing guard with other apps before the guard.
func aroundByAnotherGuard(guard string) string {
	name := "before-a"
	if strings.Contains(guard, "name b") {
		name = "before-b"
	}
	return "route {\ntim_callback {\napp 1400000009 " + guardtest.NewToken + "\non after deliver\nbackend 127.0.0.1:1\nname " + name + "\n}\n" + guard + "\n}"
}

func testReload(t *testing.T, store string, change func(*testing.T, *sites), arrive map[string]string) {
	t.Helper()
	c := &sites{listen: [2]string{guardtest.FreePort(t), guardtest.FreePort(t)}, token: guardtest.Token, backends: make(map[string]*guardtest.Backend)}
	for _, name := range []string{"a", "archive", "b", "other"} {
		c.backends[name] = guardtest.NewBackend(t, guardtest.Answers(http.StatusServiceUnavailable, ""))
	}
	c.guards[0] = []string{
		"name a", "mode enforce", "on after deliver {\ncopy archive\n}", "backend " + c.backends["a"].Address(),
		"consumer archive " + c.backends["archive"].Address(),
	}
	c.guards[1] = []string{"name b", "mode enforce", "on after deliver", "backend " + c.backends["b"].Address()}
	s := guardtest.NewSite(t, "")
	s.Options = store
	c.apply(s)
	p := s.Start(t)
	guardtest.NewPoster(t, c.listen[0]).WantOK(t, "a")
	guardtest.NewPoster(t, c.listen[1]).WantOK(t, "b")
	s.WantState(t, outbox.Retrying, 3)

	change(t, c)
	c.apply(s)
	s.Reload(t)
	for _, b := range c.backends {
		b.Will(guardtest.Accepts)
	}
	events := map[string][]byte{"a": guardtest.Event("a"), "archive": guardtest.Event("a"), "b": guardtest.Event("b")}
	var want []string // row and backend
	waiting := 0
	for row, backend := range arrive {
		if backend == "-" {
			waiting++
			continue
		}
		want = append(want, row+" to "+backend)
		a := c.backends[backend].One(t, events[row])
		if err := a.IsDelivery("/callback", c.token); err != nil {
			t.Errorf("row %s: %v", row, err)
		}
	}
	s.WantState(t, outbox.Delivered, len(want))
	var got []string
	for backend, b := range c.backends {
		for _, a := range b.All() {
			row := "a"
			if consumer := a.Header.Get("Tim-Delivery-Consumer"); consumer != "" {
				row = consumer
			} else if bytes.Equal(a.Body, events["b"]) {
				row = "b"
			}
			got = append(got, row+" to "+backend)
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("arrived: %v, want %v", got, want)
	}
	if waiting > 0 {
		wantUnclaimed(t, p, waiting)
	} else if u := s.Status(t).Unclaimed; len(u) > 0 {
		t.Errorf("%+v are unclaimed, want none", u)
	}
}

// wantUnclaimed fails the test unless the log, the status and the gauge say that so many
// deliveries wait for something that is not configured.
func wantUnclaimed(t *testing.T, p *guardtest.Process, n int) {
	t.Helper()
	said := func() (sum int) {
		for _, what := range []string{"backend", "consumer"} {
			for _, line := range p.LogLines(t, "deliveries await a guard of this name with this "+what+"; configure it again, or discard them") {
				count, _ := line["deliveries"].(float64)
				sum += int(count)
			}
		}
		return sum
	}
	guardtest.Eventually(t, 10*time.Second, "warnings", func() bool { return said() >= n })
	time.Sleep(100 * time.Millisecond) // for what must not be said
	if got := said(); got != n {
		t.Errorf("the log says that %d are unclaimed, want %d", got, n)
	}
	in := 0
	for _, u := range p.Status(t).Unclaimed {
		in += u.Deliveries
	}
	if in != n {
		t.Errorf("status says that %d are unclaimed, want %d", in, n)
	}
	guardtest.Eventually(t, 10*time.Second, "the gauge", func() bool { return p.Metric(t, "caddy_tim_callback_unclaimed_deliveries") == float64(n) })
}

// Equal guards of two listeners are one guard, whether they are one directive or two. Whatever
// changes around them, each callback is delivered once.
func TestEndToEndDeliveryOfEqualGuardsOnTwoListeners(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"one site", "two sites"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := guardtest.NewBackend(t, guardtest.Answers(http.StatusServiceUnavailable, ""))
			s := guardtest.NewSite(t, guardtest.Delivering(b))
			first, second := s.Listen, guardtest.FreePort(t)
			if name == "one site" {
				s.Listen = first + ", http://" + second
			} else {
				s.After = "http://" + second + " {\n" + s.Directives + "\n}"
			}
			s.Start(t)
			guardtest.NewPoster(t, first).WantOK(t, "first")
			guardtest.NewPoster(t, second).WantOK(t, "second")
			s.WantState(t, outbox.Retrying, 2)
			s.Before = "http://" + guardtest.FreePort(t) + " {\nrespond unrelated\n}"
			s.Reload(t)
			b.Will(guardtest.Accepts)
			s.WantState(t, outbox.Delivered, 2)
			for _, id := range []string{"first", "second"} {
				if err := b.One(t, guardtest.Event(id)).IsDelivery("/callback", guardtest.Token); err != nil {
					t.Error(err)
				}
			}
			if b.Total() != 2 {
				t.Errorf("%d deliveries, want 2", b.Total())
			}
		})
	}
}

// A configuration that does not load changes nothing: the one before goes on delivering, and
// none of what waits reaches a backend of the new one.
func TestEndToEndDeliveryGoesOnIfAReloadFails(t *testing.T) {
	t.Parallel()
	used, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = used.Close() })
	for name, tt := range map[string]struct {
		after func(other *guardtest.Backend) string
		want  string
	}{
		"another guard of the name": {
			func(other *guardtest.Backend) string {
				return "http://" + guardtest.FreePort(t) + " {\n" + guardtest.Delivering(other) + "\n}"
			}, "stores callbacks, and another one",
		},
		"an address in use": {
			func(other *guardtest.Backend) string {
				return "http://" + used.Addr().String() + " {\nbind 127.0.0.1\n" + guardtest.Delivering(other, "name other") + "\n}"
			}, "address already in use",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachStore(t, func(t *testing.T, store string) {
				t.Helper()
				b, other := guardtest.NewBackend(t, guardtest.Answers(http.StatusServiceUnavailable, "")), guardtest.NewBackend(t, guardtest.Accepts)
				s := guardtest.NewSite(t, guardtest.Delivering(b))
				s.Options = store
				p := s.Start(t)
				guardtest.NewPoster(t, s.Listen).WantOK(t, "before")
				s.WantState(t, outbox.Retrying, 1)
				s.Before = tt.after(other)
				for range 3 {
					if status, text := s.Load(t); status != http.StatusBadRequest || !strings.Contains(text, tt.want) {
						t.Errorf("the reload: %d %s, want 400 and %s", status, text, tt.want)
					}
				}
				guardtest.NewPoster(t, s.Listen).WantOK(t, "after")
				b.Will(guardtest.Accepts)
				s.WantState(t, outbox.Delivered, 2)
				if b.Total() != 2 || other.Total() != 0 {
					t.Errorf("%d reached the backend, and %d another, want 2 and 0", b.Total(), other.Total())
				}
				if took := p.Terminate(t); took > 3*time.Second {
					t.Errorf("it took %s to stop", took)
				}
			})
		})
	}
}

// If guards of one name have different blocks, which is possible as long as none stores, it
// cannot be known whose callbacks wait: they reach no wrong backend.
func TestEndToEndDeliveryReachesNoOtherGuardOfTheName(t *testing.T) {
	t.Parallel()
	for _, place := range []string{"before", "after"} {
		t.Run(place, func(t *testing.T) {
			t.Parallel()
			own, other := guardtest.NewBackend(t, guardtest.Answers(http.StatusServiceUnavailable, "")), guardtest.NewBackend(t, guardtest.Accepts)
			s := guardtest.NewSite(t, guardtest.Delivering(own))
			s.Start(t)
			guardtest.NewPoster(t, s.Listen).WantOK(t, "own")
			s.WantState(t, outbox.Retrying, 1)
			site := "http://" + guardtest.FreePort(t) + " {\n" + guardtest.Guard("on after forward", "backend "+other.Address()) + "\n}"
			if place == "before" {
				s.Before = site
			} else {
				s.After = site
			}
			for n := range 8 { // which of them is first is random
				s.Directives = fmt.Sprintf("header X-Generation %d\n%s", n, guardtest.Guard("on after forward", "backend "+own.Address()))
				if status, _ := s.Load(t); status != http.StatusOK {
					return // which is safe too
				}
				if code, body := guardtest.Get(t, http.MethodPost, "http://"+s.Admin+"/tim_callback/deliveries/retry?guard=default"); code != http.StatusOK {
					t.Fatal(code, body)
				}
				time.Sleep(500 * time.Millisecond) // for the next attempt
				if other.Total() > 0 {
					t.Fatal("it reached the backend of another guard of the name")
				}
			}
		})
	}
}

// Two guards that store in one way of a request: each delivers what it has stored to its own
// block, and none of it comes to the other.
func TestEndToEndDeliveryOfTwoGuardsInOneRoute(t *testing.T) {
	t.Parallel()
	const (
		copies   = "on after forward {\ncopy archive\n}"
		fallsTo  = "on after forward {\nfallback deliver\ncopy archive\n}"
		delivers = "on after deliver"
	)
	outer := func(subdirectives ...string) string { return guardtest.Guard(append(subdirectives, "name outer")...) }
	inner := func(subdirectives ...string) string { return guardtest.Guard(append(subdirectives, "name inner")...) }
	for name, tt := range map[string]struct {
		directives string
		arrive     map[string]int // by backend
	}{
		"the outer copies, the inner delivers": {
			"route {\n" + outer(copies, "consumer archive [archive]") + "\n" + inner(delivers, "backend [inner]") + "\n}",
			map[string]int{"archive": 1, "inner": 1},
		},
		"both copy": {
			"route {\n" + outer(copies, "consumer archive [archive]") + "\n" + inner(copies, "consumer archive [inner]") + "\nreverse_proxy [outer]\n}",
			map[string]int{"archive": 1, "inner": 1, "outer": 1},
		},
		"the inner is in the block of the outer": {
			outer(delivers, "backend {\n"+inner(delivers, "backend [inner]")+"\n}"),
			map[string]int{"inner": 1},
		},
		"the outer copies and falls back, the inner copies": {
			outer(fallsTo, "consumer archive [archive]", "backend {\n"+inner(copies, "consumer archive [inner]")+"\nreverse_proxy [outer]\n}"),
			map[string]int{"archive": 1, "inner": 1, "outer": 1},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			backends := make(map[string]*guardtest.Backend)
			var addresses []string
			for _, backend := range []string{"outer", "inner", "archive"} {
				backends[backend] = guardtest.NewBackend(t, guardtest.Accepts)
				addresses = append(addresses, "["+backend+"]", backends[backend].Address())
			}
			s := guardtest.NewSite(t, strings.NewReplacer(addresses...).Replace(tt.directives))
			s.Start(t)
			status, answer, err := guardtest.NewPoster(t, s.Listen).Post("/callback", anonymousCommand, []byte(anonymous))
			if err != nil || status != http.StatusOK || answer != guardtest.OKJSON {
				t.Fatalf("answer %d %s, %v; want OK", status, answer, err)
			}
			for backend := range tt.arrive {
				backends[backend].One(t, []byte(anonymous))
			}
			time.Sleep(1500 * time.Millisecond) // for what must not come
			for backend, b := range backends {
				if n := b.Total(); n != tt.arrive[backend] {
					t.Errorf("%s got %d, want %d", backend, n, tt.arrive[backend])
				}
			}
			queues := make(map[string]int)
			for _, item := range s.Items(t) {
				queues[item.Callback.Guard+" "+item.Callback.Consumer]++
			}
			for queue, n := range queues {
				if n != 1 {
					t.Errorf("%d rows of %s, want 1", n, queue)
				}
			}
			if len(queues) != 2 {
				t.Errorf("rows of %v, want of each guard", queues)
			}
		})
	}
}

// A path that Caddy cleans to another is the same: the event is stored once.
func TestEndToEndDeliveryStoresAnEventOnceHoweverItsPathIsWritten(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, store string) {
		t.Helper()
		b := guardtest.NewBackend(t, guardtest.Accepts)
		s := guardtest.NewSite(t, guardtest.Delivering(b))
		s.Options = store
		s.Start(t)
		p := guardtest.NewPoster(t, s.Listen)
		post := func(path, command string, body []byte) {
			t.Helper()
			if status, answer, err := p.Post(path, command, body); err != nil || status != http.StatusOK || answer != guardtest.OKJSON {
				t.Errorf("%s: %d %s, %v; want OK", path, status, answer, err)
			}
		}
		for _, path := range []string{
			"/callback", "//callback", "///callback", "/./callback", "/x/../callback", "/x/y/../../callback", "/%63allback", "/x/%2e%2e/callback",
		} {
			post(path, callback.RecallCommand, guardtest.Event("path"))
			if n := len(s.Items(t)); n != 1 {
				t.Fatalf("%d are stored after %s, want 1", n, path)
			}
		}
		for n, path := range []string{"/callback/", "/Callback", "/x/callback"} { // which are others
			post(path, callback.RecallCommand, guardtest.Event("path"))
			if stored := len(s.Items(t)); stored != n+2 {
				t.Errorf("%d are stored after %s, want %d", stored, path, n+2)
			}
		}
		s.WantState(t, outbox.Delivered, 4)
		if n := b.Times(guardtest.Event("path")); n != 4 {
			t.Errorf("the backend got it %d times, want 4", n)
		}
		for n := range 3 { // nothing tells one from the next
			post("/callback", anonymousCommand, []byte(anonymous))
			if stored := len(s.Items(t)); stored != n+5 {
				t.Errorf("%d are stored after anonymous event %d, want %d", stored, n, n+5)
			}
		}
		guardtest.Eventually(t, 10*time.Second, "each arrives", func() bool { return b.Times([]byte(anonymous)) == 3 })
	})
}

// The ID of an event is the same in the placeholder of what is forwarded, and in each copy
// and attempt.
func TestEndToEndDeliveryTellsTheIDOfTheEvent(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, store string) {
		t.Helper()
		own, archive, later := guardtest.NewBackend(t, guardtest.Accepts), guardtest.NewBackend(t, guardtest.Accepts), guardtest.NewBackend(t, recordsAndFails)
		directives := func(action string) string {
			return guardtest.Guard("name "+action, "on after "+action+" {\ncopy archive later\n}", fmt.Sprintf(`backend {
				reverse_proxy %s {
					header_up X-Event-Id {http.tim_callback.event_id}
				}
			}
			consumer archive {
				reverse_proxy %s {
					header_up X-Event-Id {http.tim_callback.event_id}
				}
			}
			consumer later {
				reverse_proxy %s {
					header_up X-Event-Id {http.tim_callback.event_id}
				}
			}`, own.Address(), archive.Address(), later.Address()))
		}
		s := guardtest.NewSite(t, "handle /forward {\n"+directives("forward")+"\n}\nhandle {\n"+directives("deliver")+"\n}")
		s.Options = store
		s.Start(t)
		p := guardtest.NewPoster(t, s.Listen)
		for _, path := range []string{"/forward", "/deliver"} {
			for name, post := range map[string]struct {
				command string
				body    []byte
			}{
				"recall": {callback.RecallCommand, guardtest.Event(path)}, "anonymous": {anonymousCommand, []byte(strings.Replace(anonymous, `"g"`, `"`+path+`"`, 1))},
			} {
				if status, answer, err := p.Post(path, post.command, post.body); err != nil || answer != guardtest.OKJSON {
					t.Fatalf("%s %s: %d %s, %v", path, name, status, answer, err)
				}
				guardtest.Eventually(t, 10*time.Second, "two attempts that fail", func() bool { return later.Times(post.body) >= 2 })
				got := slices.Concat([]guardtest.Received{own.One(t, post.body), archive.One(t, post.body)}, later.Of(post.body))
				want := got[0].Header.Get("X-Event-Id")
				for i, a := range got {
					if id := a.Header.Get("X-Event-Id"); id != want || len(id) < 16 {
						t.Errorf("%s %s: request %d has the ID %q, want %q", path, name, i, id, want)
					}
					if id := a.Header.Get("Tim-Event-Id"); !a.AtOnce() && id != want || a.AtOnce() && id != "" {
						t.Errorf("%s %s: request %d has Tim-Event-Id %q, want %q", path, name, i, id, want)
					}
				}
				for _, item := range s.Items(t) {
					if strings.Contains(item.Callback.URI, path) && item.Callback.Command == post.command && item.Callback.EventID != want {
						t.Errorf("%s %s: the ID is stored as %q, want %q", path, name, item.Callback.EventID, want)
					}
				}
			}
		}
	})
}

// recordsAndFails records the callback and asks for another attempt.
func recordsAndFails(b *guardtest.Backend) http.HandlerFunc {
	return guardtest.AcceptsWith(http.StatusInternalServerError, "")(b)
}
