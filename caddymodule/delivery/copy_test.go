// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/timguard/timguard/caddymodule/callback"
	"github.com/timguard/timguard/caddymodule/internal/guardtest"
	"github.com/timguard/timguard/caddymodule/outbox"
)

// eachStore runs the test once for each store, given the option that chooses it.
func eachStore(t *testing.T, test func(t *testing.T, option string)) {
	t.Helper()
	for name, option := range map[string]func(testing.TB) string{
		"sqlite":   func(testing.TB) string { return "" },
		"postgres": storeInPostgres,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, option(t))
		})
	}
}

func storeInPostgres(tb testing.TB) string {
	tb.Helper()
	return "store postgres " + postgresDSN(tb, "")
}

// copying returns the directives of a site whose rule for after-callbacks copies
// them to the consumers.
func copying(action string, own *unsteady, consumers map[string]*unsteady, options ...string) string {
	var routes strings.Builder
	for name, b := range consumers {
		options = append(options, "copy "+name)
		fmt.Fprintf(&routes, "@%[1]s vars {http.tim_callback.consumer} %[1]s\nreverse_proxy @%[1]s %[2]s\n", name, b.address())
	}
	return guardtest.Guard("on after "+action+" {\n"+strings.Join(options, "\n")+"\n}", "on before forward") + "\n" +
		routes.String() + "reverse_proxy " + own.address()
}

// isCopy returns an error unless the attempt is the consumer's first delivery.
func (a attempt) isCopy(consumer string) error {
	if got := a.Header.Get("Tim-Delivery-Consumer"); got != consumer {
		return fmt.Errorf("%s is %q, want %q", "Tim-Delivery-Consumer", got, consumer)
	}
	if got := a.Header.Get("Tim-Delivery-Attempt"); got != "1" {
		return fmt.Errorf("%s is %q, want 1", "Tim-Delivery-Attempt", got)
	}
	return a.isDelivery("/callback", guardtest.Token)
}

// total returns how often any payload was accepted.
func (b *unsteady) total() (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, attempts := range b.accepted {
		n += len(attempts)
	}
	return n
}

// However a site routes by the consumer, each gets its copy, the backend gets what
// the rule says, and a caller cannot pass for a delivery.
func TestEndToEndCopyIsRoutedByItsConsumer(t *testing.T) {
	t.Parallel()
	const guard = "tim_callback {\napp " + guardtest.App + " " + guardtest.Token + "\non after %s {\ncopy archive search\n}\n}\n"
	for form, body := range map[string]string{
		"matchers": guard + `@archive vars {http.tim_callback.consumer} archive
			reverse_proxy @archive [archive]
			@search vars {http.tim_callback.consumer} search
			reverse_proxy @search [search]
			reverse_proxy [own]`,
		"matchers, the backend first": guard + `@archive vars {http.tim_callback.consumer} archive
			@search vars {http.tim_callback.consumer} search
			reverse_proxy [own]
			reverse_proxy @search [search]
			reverse_proxy @archive [archive]`,
		"handle": guard + `@archive vars {http.tim_callback.consumer} archive
			handle @archive {
				reverse_proxy [archive]
			}
			@search vars {http.tim_callback.consumer} search
			handle @search {
				reverse_proxy [search]
			}
			handle {
				reverse_proxy [own]
			}`,
		"all in a handle": "handle /callback {\n" + guard + `@archive vars {http.tim_callback.consumer} archive
			reverse_proxy @archive [archive]
			@search vars {http.tim_callback.consumer} search
			reverse_proxy @search [search]
			reverse_proxy [own]
			}
			handle {
				respond 404
			}`,
		"route": "route {\n" + guard + `@archive vars {http.tim_callback.consumer} archive
			@search vars {http.tim_callback.consumer} search
			reverse_proxy @archive [archive]
			reverse_proxy @search [search]
			reverse_proxy [own]
			}`,
		"header": guard + `@archive header Tim-Delivery-Consumer archive
			reverse_proxy @archive [archive]
			@search header Tim-Delivery-Consumer search
			reverse_proxy @search [search]
			reverse_proxy [own]`,
		"map": guard + `map {http.tim_callback.consumer} {upstream} {
				archive [archive]
				search [search]
				default [own]
			}
			reverse_proxy {upstream}`,
	} {
		for _, action := range []string{"forward", "ack", "deliver"} {
			t.Run(form+"/"+action, func(t *testing.T) {
				t.Parallel()
				testRouting(t, body, action)
			})
		}
	}
}

func testRouting(t *testing.T, body, action string) {
	t.Helper()
	own, archive, search := newUnsteady(t, accepts), newUnsteady(t, accepts), newUnsteady(t, accepts)
	body = strings.NewReplacer("%s", action, "[own]", own.address(), "[archive]", archive.address(), "[search]", search.address()).Replace(body)
	s := newDeliverySite(t, body)
	s.start(t)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+s.listen+"/callback?"+
		guardtest.Query(guardtest.App, callback.RecallCommand, guardtest.Signed(guardtest.Token, time.Now().Add(-30*time.Second))), bytes.NewReader(event("routed")))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Tim-Delivery-Consumer", "archive")
	req.Header.Set("Tim-Delivery-Attempt", "7")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if answer, err := io.ReadAll(resp.Body); err != nil || string(answer) != guardtest.OKJSON {
		t.Fatalf("answer %d %s, %v; want OK", resp.StatusCode, answer, err)
	}
	if action == "forward" && own.times(event("routed")) != 1 {
		t.Error("it was answered before the backend had it")
	}
	for consumer, b := range map[string]*unsteady{"archive": archive, "search": search} {
		if err := b.one(t, event("routed")).isCopy(consumer); err != nil {
			t.Errorf("%s: %v", consumer, err)
		}
	}
	stored := 2
	switch action {
	case "forward":
		if a := own.one(t, event("routed")); !a.atOnce() || a.Header.Get("Tim-Delivery-Consumer") != "" {
			t.Errorf("forwarded with %v", a.Header)
		}
	case "deliver":
		stored = 3
		if err := own.one(t, event("routed")).isCopy(""); err != nil {
			t.Error(err)
		}
	}
	s.wantState(t, outbox.Delivered, stored)
	if n := own.total() + archive.total() + search.total(); n != stored+1 && action == "forward" || n != stored && action != "forward" {
		t.Errorf("%d requests arrived", n)
	}
}

// A callback is stored once for each, in one commit, and the same event is a
// duplicate for each by itself.
func TestEndToEndCopyIsStoredInOneCommit(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, store string) {
		t.Helper()
		own, archive, search := newUnsteady(t, accepts), newUnsteady(t, accepts), newUnsteady(t, accepts)
		s := newDeliverySite(t, copying("deliver", own, map[string]*unsteady{"archive": archive, "search": search}))
		s.global += "\nmetrics"
		s.options = store
		s.start(t)
		p := newPoster(t, s.listen)
		p.wantOK(t, "commit")
		if n := s.metric(t, "caddy_tim_callback_store_seconds_count"); n != 1 {
			t.Errorf("the store was asked %v times to store", n)
		}
		s.wantState(t, outbox.Delivered, 3)
		for range 3 {
			p.wantOK(t, "commit") // within the window
		}
		time.Sleep(500 * time.Millisecond)
		for _, b := range []*unsteady{own, archive, search} {
			if n := b.times(event("commit")); n != 1 {
				t.Errorf("an event that came four times arrived %d times", n)
			}
		}
		if items := s.items(t); len(items) != 3 {
			t.Errorf("%d are stored, want 3", len(items))
		}
	})
}

// The access log, the admin API, the command line and the metrics tell consumers
// apart.
func TestEndToEndCopyShowsItsConsumer(t *testing.T) {
	t.Parallel()
	own, archive, search := newUnsteady(t, accepts), newUnsteady(t, answers(http.StatusInternalServerError, "")), newUnsteady(t, accepts)
	s := newDeliverySite(t, "log\n"+copying("deliver", own, map[string]*unsteady{"archive": archive, "search": search}))
	s.global += "\nmetrics"
	s.options = "max_attempts 1"
	p := s.start(t)
	newPoster(t, s.listen).wantOK(t, "shown")
	s.wantState(t, outbox.Delivered, 2)
	s.wantState(t, outbox.Dead, 1)

	for consumer, outcome := range map[string]string{"archive": "failed", "search": "delivered", "": "delivered"} {
		sample := fmt.Sprintf(`caddy_tim_callback_delivery_attempts_total{command="Group.CallbackAfterRecallMsg",consumer=%q,outcome=%q}`, consumer, outcome)
		if n := s.metric(t, sample); n != 1 {
			t.Errorf("%s is %v, want 1", sample, n)
		}
	}
	for _, consumer := range []string{"archive", "search"} {
		code, body := get(t, http.MethodGet, "http://"+s.admin+"/tim_callback/deliveries?consumer="+consumer)
		if code != http.StatusOK || strings.Count(body, `"state"`) != 1 || !strings.Contains(body, `"consumer":"`+consumer+`"`) {
			t.Errorf("deliveries of %s: %d %s", consumer, code, body)
		}
		if output := s.cli(t, false, "list", "--consumer", consumer); strings.Count(output, "Group.") != 1 || !strings.Contains(output, " "+consumer+" ") {
			t.Errorf("the list of %s is\n%s", consumer, output)
		}
		if log := p.log.String(); !strings.Contains(log, `"action":"deliver","consumer":"`+consumer+`"`) && !strings.Contains(log, `"action": "deliver", "consumer": "`+consumer+`"`) {
			t.Errorf("the access log does not name %s:\n%s", consumer, log)
		}
	}
}

// A consumer that is removed keeps what is stored for it, and that is said; one that
// is added gets what comes from then on.
func TestEndToEndCopyFollowsTheConfiguration(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, store string) {
		t.Helper()
		own, archive, search := newUnsteady(t, accepts), newUnsteady(t, answers(http.StatusServiceUnavailable, "")), newUnsteady(t, accepts)
		s := newDeliverySite(t, copying("forward", own, map[string]*unsteady{"archive": archive}))
		s.global += "\nmetrics"
		s.options = store
		p := s.start(t)
		post := func(id string) { // the server of the old configuration may accept a connection, and drop it
			t.Helper()
			eventually(t, 10*time.Second, "an answer", func() bool {
				_, answer, err := newPoster(t, s.listen).post("/callback", callback.RecallCommand, event(id))
				return err == nil && answer == guardtest.OKJSON
			})
		}
		post("first")
		s.wantError(t, "the status 503")
		const unclaimed = `caddy_tim_callback_unclaimed_deliveries{consumer="archive",guard="default"}`
		if status := s.status(t); len(status.Unclaimed) != 0 || s.metric(t, unclaimed) != 0 {
			t.Errorf("unclaimed deliveries of a consumer that is there: %+v", status)
		}

		s.body = copying("forward", own, map[string]*unsteady{"search": search})
		s.reload(t)
		eventually(t, 10*time.Second, "a warning", func() bool {
			return strings.Contains(p.log.String(), "deliveries await a guard or consumer that is not configured")
		})
		post("second")
		if a := search.one(t, event("second")); a.Header.Get("Tim-Delivery-Consumer") != "search" {
			t.Errorf("a consumer that was added got %v", a.Header)
		}
		if search.times(event("first")) != 0 {
			t.Error("a consumer that was added got what came before")
		}
		if status := s.status(t); len(status.Unclaimed) != 1 || status.Unclaimed[0].Consumer != "archive" || status.Unclaimed[0].Deliveries != 1 {
			t.Errorf("status %+v, want 1 unclaimed of archive", status)
		}
		eventually(t, 10*time.Second, "the gauge", func() bool { return s.metric(t, unclaimed) == 1 })
		if output := s.cli(t, false, "status"); !strings.Contains(output, "1 await guard default and consumer archive") {
			t.Errorf("the status is\n%s", output)
		}

		archive.will(accepts)
		s.body = copying("forward", own, map[string]*unsteady{"search": search, "archive": archive})
		s.reload(t)
		archive.one(t, event("first"))
		if archive.times(event("second")) != 0 {
			t.Error("a consumer got what came while it was not there")
		}
	})
}

// A consumer that lost what it had accepted gets it again, and no other does.
func TestEndToEndCopyIsReplayedToOneConsumerAlone(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, store string) {
		t.Helper()
		own, archive, search := newUnsteady(t, accepts), newUnsteady(t, accepts), newUnsteady(t, accepts)
		s := newDeliverySite(t, copying("deliver", own, map[string]*unsteady{"archive": archive, "archive2": search}))
		s.options = store
		s.start(t)
		p := newPoster(t, s.listen)
		const events = 150 // more than are retried in one transaction
		for i := range events {
			p.wantOK(t, fmt.Sprint("replay-", i))
		}
		eventually(t, 20*time.Second, "all arrive", func() bool { return archive.total() == events && search.total() == events })
		s.wantState(t, outbox.Delivered, 3*events)
		backend, other := own.total(), search.total() // a busy machine forwards some at once
		if output := s.cli(t, false, "retry", "--consumer", "archive", "--since", "2h", "--state", "delivered"); output != fmt.Sprintf("%d retried\n", events) {
			t.Errorf("retry printed %s", output)
		}
		eventually(t, 20*time.Second, "all arrive again", func() bool { return archive.total() == 2*events })
		s.wantState(t, outbox.Pending, 0)
		if own.total() != backend || search.total() != other {
			t.Errorf("the backend got %d more and another consumer %d, want none", own.total()-backend, search.total()-other)
		}
		for i := range events {
			if n := archive.times(event(fmt.Sprint("replay-", i))); n != 2 {
				t.Errorf("event %d arrived %d times", i, n)
			}
		}
		if output := s.cli(t, false, "retry", "--consumer", "archive", "--since", time.Now().Add(time.Hour).Format(time.RFC3339)); output != "0 retried\n" {
			t.Errorf("retry of what will come printed %s", output)
		}
	})
}

// fallback deliver stores for the backend what it did not answer; the consumers have
// their copies already.
func TestEndToEndCopyIsNotStoredAgainByTheFallback(t *testing.T) {
	t.Parallel()
	own, archive := newUnsteady(t, answers(http.StatusServiceUnavailable, "")), newUnsteady(t, accepts)
	s := newDeliverySite(t, copying("forward", own, map[string]*unsteady{"archive": archive}, "fallback deliver"))
	s.start(t)
	// What nothing tells from a later one just like it is no duplicate.
	body := []byte(`{"CallbackCommand":"Group.CallbackAfterGroupDestroyed","GroupId":"g","Type":"Public","Owner_Account":"o","MemberList":[]}`)
	status, answer, err := newPoster(t, s.listen).post("/callback", "Group.CallbackAfterGroupDestroyed", body)
	if err != nil || status != http.StatusOK || answer != guardtest.OKJSON {
		t.Fatalf("answer %d %s, %v", status, answer, err)
	}
	if items := s.items(t); len(items) != 2 {
		t.Errorf("%d are stored, want one for each", len(items))
	}
	own.will(accepts)
	own.one(t, body)
	s.wantState(t, outbox.Delivered, 2)
	if own.total() != 1 || archive.total() != 1 {
		t.Errorf("the backend got %d and the consumer %d, want 1 each", own.total(), archive.total())
	}
}

// In report mode everything is forwarded, and nothing else is done.
func TestEndToEndCopyStoresNothingInReportMode(t *testing.T) {
	t.Parallel()
	own, archive := newUnsteady(t, accepts), newUnsteady(t, accepts)
	s := newDeliverySite(t, strings.Replace(copying("ack", own, map[string]*unsteady{"archive": archive}), "on after", "mode report\non after", 1))
	s.start(t)
	newPoster(t, s.listen).wantOK(t, "reported")
	if n := own.times(event("reported")); n != 1 {
		t.Errorf("it was forwarded %d times", n)
	}
	if now, ever := s.rows(t); now != 0 || ever != 0 {
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
	own, archive := newUnsteady(t, acceptsWith(http.StatusOK, backends)), newUnsteady(t, accepts)
	s := newDeliverySite(t, guardtest.Guard("on "+recall+" forward {\ncopy archive\n}", "on "+state+" ack {\ncopy archive\n}", "on "+destroyed+" deliver {\ncopy archive\n}")+
		"\n@archive vars {http.tim_callback.consumer} archive\nreverse_proxy @archive "+archive.address()+"\nreverse_proxy "+own.address())
	s.global += "\nmetrics"
	fault.prepare(t, s)
	guard := s.start(t)
	p := newPoster(t, s.listen)
	want := func(command, body string, status int, has string) {
		t.Helper()
		start := time.Now()
		if code, answer, err := p.post("/callback", command, []byte(body)); err != nil || code != status || !strings.Contains(answer, has) {
			t.Errorf("%s: %d %s, %v; want %d with %s", command, code, answer, err, status, has)
		}
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("%s: the answer took %s; Tencent gives up after 2s", command, took)
		}
	}
	want(recall, string(event("before")), http.StatusOK, backends)
	archive.one(t, event("before"))

	fault.begin(t, s)
	want(recall, string(event("during")), http.StatusOK, backends)
	want(destroyed, destroy, http.StatusOK, backends)
	want(state, login, http.StatusServiceUnavailable, `"ActionStatus":"FAIL"`)
	if own.times(event("during")) != 1 || own.times([]byte(destroy)) != 1 || own.times([]byte(login)) != 0 {
		t.Error("the backend did not get what it should, once, or what it should not")
	}
	for _, command := range []string{recall, destroyed, state} {
		if n := s.metric(t, fmt.Sprintf("caddy_tim_callback_copy_failures_total{command=%q}", command)); n != 1 {
			t.Errorf("%v failures of %s are counted, want 1", n, command)
		}
	}
	for _, line := range []string{"storing callback for consumers failed", "storing callback failed; forwarding it"} {
		if !strings.Contains(guard.log.String(), line) {
			t.Errorf("the log does not say %q", line)
		}
	}

	fault.end(t, s)
	eventually(t, 30*time.Second, "callbacks are stored again", func() bool {
		code, _, err := p.post("/callback", state, []byte(login))
		return err == nil && code == http.StatusOK
	})
	want(recall, string(event("after")), http.StatusOK, backends)
	archive.one(t, event("after"))
}
