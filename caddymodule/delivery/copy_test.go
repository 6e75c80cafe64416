// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/timguard/timguard/caddymodule/callback"
	"github.com/timguard/timguard/caddymodule/internal/guardtest"
	"github.com/timguard/timguard/caddymodule/outbox"
)

// copying returns the directives of a site whose rule for after-callbacks copies
// them to the consumers.
func copying(action string, own *guardtest.Backend, consumers map[string]*guardtest.Backend, options ...string) string {
	subdirectives := []string{"on before forward", "backend " + own.Address()}
	for name, b := range consumers {
		options = append(options, "copy "+name)
		subdirectives = append(subdirectives, "consumer "+name+" "+b.Address())
	}
	return guardtest.Guard(append(subdirectives, "on after "+action+" {\n"+strings.Join(options, "\n")+"\n}")...)
}

// isCopy returns an error unless the attempt is the consumer's first delivery.
func isCopy(a guardtest.Received, consumer string) error {
	if got := a.Header.Get("Tim-Delivery-Consumer"); got != consumer {
		return fmt.Errorf("%s is %q, want %q", "Tim-Delivery-Consumer", got, consumer)
	}
	if got := a.Header.Get("Tim-Delivery-Attempt"); got != "1" {
		return fmt.Errorf("%s is %q, want 1", "Tim-Delivery-Attempt", got)
	}
	return a.IsDelivery("/callback", guardtest.Token)
}

// However the blocks are written, each consumer gets its copy, the backend gets what the
// rule says, and a caller cannot pass for a delivery.
func TestEndToEndCopyRunsTheBlockOfItsConsumer(t *testing.T) {
	t.Parallel()
	for form, blocks := range map[string]string{
		"upstreams": "backend [own]\nconsumer archive [archive]\nconsumer search [search]",
		"blocks": `consumer search {
				reverse_proxy [search]
			}
			backend {
				reverse_proxy [own]
			}
			consumer archive {
				reverse_proxy [archive]
			}`,
		"matchers": `backend {
				@post method POST
				reverse_proxy @post [own]
			}
			consumer archive {
				@archive vars {http.tim_callback.consumer} archive
				handle @archive {
					reverse_proxy [archive]
				}
				handle {
					respond 404
				}
			}
			consumer search {
				@search header Tim-Delivery-Consumer search
				handle @search {
					reverse_proxy [search]
				}
				handle {
					respond 404
				}
			}`,
		"a named route": `backend [own]
			consumer archive {
				invoke archive
			}
			consumer search {
				handle {
					reverse_proxy [search]
				}
			}`,
		"one snippet for all": `backend {
				import all
			}
			consumer archive {
				import all
			}
			consumer search {
				import all
			}`,
	} {
		t.Run(form, func(t *testing.T) {
			t.Parallel()
			testCopies(t, blocks)
		})
	}
}

func testCopies(t *testing.T, blocks string) {
	t.Helper()
	actions := []string{"forward", "ack", "deliver"}
	var site strings.Builder
	var addresses []string
	own, archive, search := guardtest.NewBackend(t, guardtest.Accepts), guardtest.NewBackend(t, guardtest.Accepts), guardtest.NewBackend(t, guardtest.Accepts)
	for name, b := range map[string]*guardtest.Backend{"own": own, "archive": archive, "search": search} {
		addresses = append(addresses, "["+name+"]", b.Address())
	}
	for _, action := range actions {
		guard := guardtest.Guard("name "+action, "on after "+action+" {\ncopy archive search\n}", blocks)
		fmt.Fprintf(&site, "handle_path /%s/* {\n%s\nrespond 404\n}\n", action, guard)
	}
	s := guardtest.NewSite(t, strings.NewReplacer(addresses...).Replace(site.String()))
	s.Before = strings.NewReplacer(addresses...).Replace(`&(archive) {
			reverse_proxy [archive]
		}
		(all) {
			map {http.tim_callback.consumer} {upstream} {
				archive [archive]
				search [search]
				default [own]
			}
			reverse_proxy {upstream}
		}`)
	s.Start(t)
	p := guardtest.NewPoster(t, s.Listen)
	p.Header = http.Header{"Tim-Delivery-Consumer": {"archive"}, "Tim-Delivery-Attempt": {"7"}, "Tim-Event-Id": {"7"}}
	stored := 0
	for _, action := range actions {
		event := guardtest.Event(action)
		if status, answer, err := p.Post("/"+action+"/callback", callback.RecallCommand, event); err != nil || status != http.StatusOK || answer != guardtest.OKJSON {
			t.Fatalf("%s: answer %d %s, %v; want OK", action, status, answer, err)
		}
		if action == "forward" && own.Times(event) != 1 {
			t.Error("it was answered before the backend had it")
		}
		for consumer, b := range map[string]*guardtest.Backend{"archive": archive, "search": search} {
			if err := isCopy(b.One(t, event), consumer); err != nil {
				t.Errorf("%s to %s: %v", action, consumer, err)
			}
		}
		stored += 2
		switch action {
		case "forward":
			if a := own.One(t, event); !a.AtOnce() || a.Header.Get("Tim-Delivery-Consumer") != "" || a.Header.Get("Tim-Event-Id") != "" {
				t.Errorf("forwarded with %v", a.Header)
			}
		case "deliver":
			stored++
			if err := isCopy(own.One(t, event), ""); err != nil {
				t.Error(err)
			}
		}
	}
	s.WantState(t, outbox.Delivered, stored)
	if n := own.Total() + archive.Total() + search.Total(); n != stored+1 {
		t.Errorf("%d requests arrived, want %d deliveries and one forwarded", n, stored)
	}
}

// A callback is stored once for each, in one commit, and the same event is a
// duplicate for each by itself.
func TestEndToEndCopyIsStoredInOneCommit(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, store string) {
		t.Helper()
		own, archive, search := guardtest.NewBackend(t, guardtest.Accepts), guardtest.NewBackend(t, guardtest.Accepts), guardtest.NewBackend(t, guardtest.Accepts)
		s := guardtest.NewSite(t, copying("deliver", own, map[string]*guardtest.Backend{"archive": archive, "search": search}))
		s.Global += "\nmetrics"
		s.Options = store
		s.Start(t)
		p := guardtest.NewPoster(t, s.Listen)
		p.WantOK(t, "commit")
		if n := s.Metric(t, "caddy_tim_callback_store_seconds_count"); n != 1 {
			t.Errorf("the store was asked %v times to store", n)
		}
		s.WantState(t, outbox.Delivered, 3)
		for range 3 {
			p.WantOK(t, "commit") // within the window
		}
		time.Sleep(500 * time.Millisecond)
		for _, b := range []*guardtest.Backend{own, archive, search} {
			if n := b.Times(guardtest.Event("commit")); n != 1 {
				t.Errorf("an event that came four times arrived %d times", n)
			}
		}
		if items := s.Items(t); len(items) != 3 {
			t.Errorf("%d are stored, want 3", len(items))
		}
	})
}

// The log, the admin API, the command line and the metrics tell consumers apart, and the
// access log has only the request of the caller.
func TestEndToEndCopyShowsItsConsumer(t *testing.T) {
	t.Parallel()
	own, archive, search := guardtest.NewBackend(t, guardtest.Accepts), guardtest.NewBackend(t, guardtest.Answers(http.StatusInternalServerError, "")), guardtest.NewBackend(t, guardtest.Accepts)
	s := guardtest.NewSite(t, "log\n"+copying("deliver", own, map[string]*guardtest.Backend{"archive": archive, "search": search}))
	s.Global += "\nmetrics"
	s.Options = "max_attempts 1"
	p := s.Start(t)
	guardtest.NewPoster(t, s.Listen).WantOK(t, "shown")
	s.WantState(t, outbox.Delivered, 2)
	s.WantState(t, outbox.Dead, 1)

	for consumer, outcome := range map[string]string{"archive": "failed", "search": "delivered", "": "delivered"} {
		sample := fmt.Sprintf(`caddy_tim_callback_delivery_attempts_total{command="Group.CallbackAfterRecallMsg",consumer=%q,guard="default",outcome=%q}`, consumer, outcome)
		if n := s.Metric(t, sample); n != 1 {
			t.Errorf("%s is %v, want 1", sample, n)
		}
	}
	for _, consumer := range []string{"archive", "search"} {
		code, body := guardtest.Get(t, http.MethodGet, "http://"+s.Admin+"/tim_callback/deliveries?consumer="+consumer)
		if code != http.StatusOK || strings.Count(body, `"state"`) != 1 || !strings.Contains(body, `"consumer":"`+consumer+`"`) {
			t.Errorf("deliveries of %s: %d %s", consumer, code, body)
		}
		if output := s.CLI(t, false, "list", "--consumer", consumer); strings.Count(output, "Group.") != 1 || !strings.Contains(output, " "+consumer+" ") {
			t.Errorf("the list of %s is\n%s", consumer, output)
		}
	}
	for consumer, message := range map[string]string{"": "delivered", "search": "delivered", "archive": "last delivery attempt failed; delivery is dead"} {
		lines := p.LogLines(t, message)
		i := slices.IndexFunc(lines, func(line map[string]any) bool { return line["consumer"] == consumer })
		if i < 0 {
			t.Errorf("no line %q of the consumer %q:\n%s", message, consumer, p.Log)
			continue
		}
		want := map[string]any{"logger": "tim_delivery", "guard": "default", "command": callback.RecallCommand, "level": "info"}
		if consumer == "archive" {
			want["level"], want["attempts"], want["error"] = "warn", 1.0, "the answer has the status 500"
		} else {
			want["attempt"], want["event_id"] = 1.0, search.One(t, guardtest.Event("shown")).Header.Get("Tim-Event-Id")
		}
		for name, value := range want {
			if lines[i][name] != value {
				t.Errorf("consumer %q: %s is %v, want %v", consumer, name, lines[i][name], value)
			}
		}
	}
	if lines := p.LogLines(t, "handled request"); len(lines) != 1 {
		t.Errorf("the access log has %d lines, want that of the caller", len(lines))
	}
}

// A consumer that is removed keeps what is stored for it, and that is said; one that
// is added gets what comes from then on.
func TestEndToEndCopyFollowsTheConfiguration(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, store string) {
		t.Helper()
		own, archive, search := guardtest.NewBackend(t, guardtest.Accepts), guardtest.NewBackend(t, guardtest.Answers(http.StatusServiceUnavailable, "")), guardtest.NewBackend(t, guardtest.Accepts)
		s := guardtest.NewSite(t, copying("forward", own, map[string]*guardtest.Backend{"archive": archive}))
		s.Global += "\nmetrics"
		s.Options = store
		p := s.Start(t)
		post := func(id string) { // the server of the old configuration may accept a connection, and drop it
			t.Helper()
			guardtest.Eventually(t, 10*time.Second, "an answer", func() bool {
				_, answer, err := guardtest.NewPoster(t, s.Listen).Post("/callback", callback.RecallCommand, guardtest.Event(id))
				return err == nil && answer == guardtest.OKJSON
			})
		}
		post("first")
		s.WantError(t, "the status 503")
		const unclaimed = `caddy_tim_callback_unclaimed_deliveries`
		if status := s.Status(t); len(status.Unclaimed) != 0 || s.Metric(t, unclaimed) != 0 {
			t.Errorf("unclaimed deliveries of a consumer that is there: %+v", status)
		}

		s.Directives = copying("forward", own, map[string]*guardtest.Backend{"search": search})
		s.Reload(t)
		p.WantLog(t, "deliveries await a guard of this name with this consumer; configure it again, or discard them",
			map[string]any{"level": "warn", "logger": "tim_delivery", "guard": "default", "consumer": "archive", "deliveries": 1.0})
		post("second")
		if a := search.One(t, guardtest.Event("second")); a.Header.Get("Tim-Delivery-Consumer") != "search" {
			t.Errorf("a consumer that was added got %v", a.Header)
		}
		if search.Times(guardtest.Event("first")) != 0 {
			t.Error("a consumer that was added got what came before")
		}
		if status := s.Status(t); len(status.Unclaimed) != 1 || status.Unclaimed[0].Consumer != "archive" || status.Unclaimed[0].Deliveries != 1 {
			t.Errorf("status %+v, want 1 unclaimed of archive", status)
		}
		guardtest.Eventually(t, 10*time.Second, "the gauge", func() bool { return s.Metric(t, unclaimed) == 1 })
		if output := s.CLI(t, false, "status"); !strings.Contains(output, "1 awaits guard default and consumer archive") {
			t.Errorf("the status is\n%s", output)
		}

		archive.Will(guardtest.Accepts)
		s.Directives = copying("forward", own, map[string]*guardtest.Backend{"search": search, "archive": archive})
		s.Reload(t)
		archive.One(t, guardtest.Event("first"))
		if archive.Times(guardtest.Event("second")) != 0 {
			t.Error("a consumer got what came while it was not there")
		}
	})
}

// A consumer that lost what it had accepted gets it again, and no other does.
func TestEndToEndCopyIsReplayedToOneConsumerAlone(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, store string) {
		t.Helper()
		own, archive, search := guardtest.NewBackend(t, guardtest.Accepts), guardtest.NewBackend(t, guardtest.Accepts), guardtest.NewBackend(t, guardtest.Accepts)
		s := guardtest.NewSite(t, copying("deliver", own, map[string]*guardtest.Backend{"archive": archive, "archive2": search}))
		s.Options = store
		s.Start(t)
		p := guardtest.NewPoster(t, s.Listen)
		const events = 150 // more than are retried in one transaction
		for i := range events {
			p.WantOK(t, fmt.Sprint("replay-", i))
		}
		guardtest.Eventually(t, 20*time.Second, "all arrive", func() bool { return archive.Total() == events && search.Total() == events })
		s.WantState(t, outbox.Delivered, 3*events)
		backend, other := own.Total(), search.Total() // a busy machine forwards some at once
		if output := s.CLI(t, false, "retry", "--consumer", "archive", "--since", "2h", "--state", "delivered"); output != fmt.Sprintf("%d retried\n", events) {
			t.Errorf("retry printed %s", output)
		}
		guardtest.Eventually(t, 20*time.Second, "all arrive again", func() bool { return archive.Total() == 2*events })
		s.WantState(t, outbox.Pending, 0)
		if own.Total() != backend || search.Total() != other {
			t.Errorf("the backend got %d more and another consumer %d, want none", own.Total()-backend, search.Total()-other)
		}
		for i := range events {
			if n := archive.Times(guardtest.Event(fmt.Sprint("replay-", i))); n != 2 {
				t.Errorf("event %d arrived %d times", i, n)
			}
		}
		if output := s.CLI(t, false, "retry", "--consumer", "archive", "--since", time.Now().Add(time.Hour).Format(time.RFC3339)); output != "0 retried\n" {
			t.Errorf("retry of what will come printed %s", output)
		}
	})
}

// fallback deliver stores for the backend what it did not answer; the consumers have
// their copies already.
func TestEndToEndCopyIsNotStoredAgainByTheFallback(t *testing.T) {
	t.Parallel()
	own, archive := guardtest.NewBackend(t, guardtest.Answers(http.StatusServiceUnavailable, "")), guardtest.NewBackend(t, guardtest.Accepts)
	s := guardtest.NewSite(t, copying("forward", own, map[string]*guardtest.Backend{"archive": archive}, "fallback deliver"))
	s.Start(t)
	// What nothing tells from a later one just like it is no duplicate.
	body := []byte(`{"CallbackCommand":"Group.CallbackAfterGroupDestroyed","GroupId":"g","Type":"Public","Owner_Account":"o","MemberList":[]}`)
	status, answer, err := guardtest.NewPoster(t, s.Listen).Post("/callback", "Group.CallbackAfterGroupDestroyed", body)
	if err != nil || status != http.StatusOK || answer != guardtest.OKJSON {
		t.Fatalf("answer %d %s, %v", status, answer, err)
	}
	if items := s.Items(t); len(items) != 2 {
		t.Errorf("%d are stored, want one for each", len(items))
	}
	own.Will(guardtest.Accepts)
	own.One(t, body)
	s.WantState(t, outbox.Delivered, 2)
	if own.Total() != 1 || archive.Total() != 1 {
		t.Errorf("the backend got %d and the consumer %d, want 1 each", own.Total(), archive.Total())
	}
}

// In report mode everything is forwarded, and nothing else is done.
func TestEndToEndCopyStoresNothingInReportMode(t *testing.T) {
	t.Parallel()
	own, archive := guardtest.NewBackend(t, guardtest.Accepts), guardtest.NewBackend(t, guardtest.Accepts)
	s := guardtest.NewSite(t, strings.Replace(copying("ack", own, map[string]*guardtest.Backend{"archive": archive}), "on after", "mode report\non after", 1))
	s.Start(t)
	guardtest.NewPoster(t, s.Listen).WantOK(t, "reported")
	if n := own.Times(guardtest.Event("reported")); n != 1 {
		t.Errorf("it was forwarded %d times", n)
	}
	if now, ever := rows(t, s); now != 0 || ever != 0 {
		t.Errorf("the store holds %d rows and has held %d, want none", now, ever)
	}
}

// While the store is at fault, what is forwarded is forwarded all the same, with the
// backend's own answer, and what would be acknowledged is not. The failures are
// logged and counted.
func TestEndToEndCopyDegradesWithItsStore(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]func() storeFault{
		"full": full, "locked": locked, "postgres gone": postgresGone,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testCopyWithStoreFault(t, fault())
		})
	}
}

func testCopyWithStoreFault(t *testing.T, fault storeFault) {
	t.Helper()
	const (
		recall    = callback.RecallCommand
		destroyed = "Group.CallbackAfterGroupDestroyed"
		state     = "State.StateChange"
		destroy   = `{"CallbackCommand":"Group.CallbackAfterGroupDestroyed","GroupId":"g","Type":"Public","Owner_Account":"o","MemberList":[]}`
		login     = `{"CallbackCommand":"State.StateChange","Info":{"Action":"Login","To_Account":"a","Reason":"Register"}}`
		backends  = `{"ActionStatus":"OK","ErrorInfo":"","ErrorCode":0,"of":"the backend"}`
	)
	own, archive := guardtest.NewBackend(t, guardtest.AcceptsWith(http.StatusOK, backends)), guardtest.NewBackend(t, guardtest.Accepts)
	s := guardtest.NewSite(t, guardtest.Guard("on "+recall+" forward {\ncopy archive\n}", "on "+state+" ack {\ncopy archive\n}", "on "+destroyed+" deliver {\ncopy archive\n}",
		"backend "+own.Address(), "consumer archive "+archive.Address()))
	s.Global += "\nmetrics"
	fault.prepare(t, s)
	guard := s.Start(t)
	p := guardtest.NewPoster(t, s.Listen)
	want := func(command, body string, status int, has string) {
		t.Helper()
		start := time.Now()
		if code, answer, err := p.Post("/callback", command, []byte(body)); err != nil || code != status || !strings.Contains(answer, has) {
			t.Errorf("%s: %d %s, %v; want %d with %s", command, code, answer, err, status, has)
		}
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("%s: the answer took %s; Tencent gives up after 2s", command, took)
		}
	}
	want(recall, string(guardtest.Event("before")), http.StatusOK, backends)
	archive.One(t, guardtest.Event("before"))

	fault.begin(t, s)
	want(recall, string(guardtest.Event("during")), http.StatusOK, backends)
	want(destroyed, destroy, http.StatusOK, backends)
	want(state, login, http.StatusServiceUnavailable, `"ActionStatus":"FAIL"`)
	if own.Times(guardtest.Event("during")) != 1 || own.Times([]byte(destroy)) != 1 || own.Times([]byte(login)) != 0 {
		t.Error("the backend did not get what it should, once, or what it should not")
	}
	for _, command := range []string{recall, destroyed, state} {
		if n := s.Metric(t, fmt.Sprintf("caddy_tim_callback_copy_failures_total{command=%q}", command)); n != 1 {
			t.Errorf("%v failures of %s are counted, want 1", n, command)
		}
	}
	for _, line := range []string{"storing callback for consumers failed", "storing callback failed; forwarding it"} {
		if !strings.Contains(guard.Log.String(), line) {
			t.Errorf("the log does not say %q", line)
		}
	}

	fault.end(t, s)
	guardtest.Eventually(t, 30*time.Second, "callbacks are stored again", func() bool {
		code, _, err := p.Post("/callback", state, []byte(login))
		return err == nil && code == http.StatusOK
	})
	want(recall, string(guardtest.Event("after")), http.StatusOK, backends)
	archive.One(t, guardtest.Event("after"))
}
