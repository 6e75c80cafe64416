// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package command

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/timguard/timguard/caddymodule"
	"github.com/timguard/timguard/caddymodule/delivery"
	"github.com/timguard/timguard/caddymodule/internal/guardtest"
	"github.com/timguard/timguard/caddymodule/outbox"
)

// adminAPI is an admin API that responds to each request with the JSON of a value.
func adminAPI(t *testing.T, value any) (address string) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(value); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// reporting is the status of a guard in report mode, which is safe to switch.
func reporting() caddymodule.Status {
	skew := 0.42
	since := time.Date(2026, 11, 26, 8, 0, 0, 0, time.Local)
	return caddymodule.Status{
		Name: "default", Mode: "report", Since: since, SkewSeconds: &skew,
		Apps: []caddymodule.AppStatus{
			{SdkAppID: "1400000000", Tokens: []caddymodule.TokenUse{{Uses: 7, Last: time.Now()}}},
		},
		Commands: []string{"C2C.CallbackAfterSendMsg", "Group.CallbackAfterRecallMsg"},
		Total:    caddymodule.Tally{Actions: map[string]int{"forward": 9}},
		Hour:     caddymodule.Tally{Actions: map[string]int{"forward": 3}},
	}
}

func TestStatusSumsUp(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 26, 9, 30, 0, 0, time.Local)
	report := reporting()
	report.Apps[0].Tokens[0].Last = at
	report.Total.WouldRefuse = map[string]int{"unsigned": 2, "payload": 1}
	behind := -31.5
	enforcing := caddymodule.Status{
		Name: "second", Mode: "enforce", Since: at, SkewSeconds: &behind,
		Apps: []caddymodule.AppStatus{
			{SdkAppID: "1400000001", Tokens: []caddymodule.TokenUse{{}, {Uses: 1, Last: at}}},
			{SdkAppID: "1400000002", Unsigned: true},
		},
		Total: caddymodule.Tally{
			Actions: map[string]int{"forward": 120, "ack": 3, "reject": 14}, Refused: map[string]int{"sign": 10, "app": 4},
			Fallbacks: map[string]int{"allow": 1},
		},
		Hour: caddymodule.Tally{Actions: map[string]int{"forward": 2}},
	}
	output, err := run(t, statusCommand(), "", "--check", "--address", adminAPI(t, delivery.Status{
		Guards: []caddymodule.Status{report, enforcing}, Store: "sqlite", StoreAt: "/var/lib/deliveries.db",
		Deliveries: map[outbox.State]int{outbox.Pending: 3, outbox.Delivered: 40, outbox.Dead: 1},
		Queues: []delivery.QueueStatus{
			{Guard: "second", Deliveries: map[outbox.State]int{outbox.Delivered: 40, outbox.Dead: 1}},
			{Guard: "second", Consumer: "archive", Deliveries: map[outbox.State]int{outbox.Pending: 3}, OldestAgeSeconds: 75.4, Ordered: true, Paused: true},
		},
		Unclaimed: []delivery.Unclaimed{{Guard: "gone", Deliveries: 2}},
	}))
	const want = `guard default
  mode            report, counting since 2026-11-26 08:00:00
  app 1400000000  token 1 used 7 times, last at 2026-11-26 09:30:00
  let through     9, 3 of them in the last hour: forward 9
  refused         none
  would refuse    3, 0 of them in the last hour: unsigned 2, payload 1
  enforce         not yet: no callback with a valid Sign has come in the last hour; is authentication on in the console, with this token?
  fallbacks       none
  clock           0.4 s ahead of Tencent's, which includes the way from there
guard second
  mode            enforce, counting since 2026-11-26 09:30:00
  app 1400000001  token 1 never used; token 2 used once, last at 2026-11-26 09:30:00
  app 1400000002  unsigned
  accepted        123, 2 of them in the last hour: forward 120, ack 3
  refused         14, 0 of them in the last hour: sign 10, app 4
  fallbacks       1, not in the last hour: allow 1
  clock           31.5 s behind Tencent's
store sqlite at /var/lib/deliveries.db
  deliveries  delivered 40, pending 3, dead 1
QUEUE           WAITING  OLDEST  DEAD  NOTE
second          0        -       1     -
second/archive  3        1m15s   0     ordered, paused
look at this: the clock is 31.5 s behind Tencent's, as guard second measures
look at this: 1 delivery is dead: retry or discard it
look at this: 3 wait for guard second and consumer archive, which is paused
look at this: 2 await guard gone, but no running guard of this name has it
`
	asked, output, _ := strings.Cut(output, "\n")
	if !strings.HasPrefix(asked, "asking 127.0.0.1:") {
		t.Errorf("it begins with %q", asked)
	}
	if output, _, _ = strings.Cut(output, "Error: "); output != want || err == nil {
		t.Errorf("error %v, output\n%s\nwant\n%s", err, output, want)
	}
}

func TestDeliveriesStatusNamesItsGuards(t *testing.T) {
	t.Parallel()
	second := reporting()
	second.Name = "second"
	for want, guards := range map[string][]caddymodule.Status{"guard default\n": {reporting()}, "guards default, second\n": {reporting(), second}} {
		output, err := run(t, deliveriesCommand(), "", "status", "--address", adminAPI(t, delivery.Status{Guards: guards, Store: "sqlite", StoreAt: "x"}))
		if err != nil || !strings.Contains(output, "store sqlite at x, "+want) {
			t.Errorf("error %v, output\n%s\nwant %q", err, output, want)
		}
	}
}

func TestStatusSaysThatAQueueIsFailing(t *testing.T) {
	t.Parallel()
	failing := delivery.QueueStatus{
		Guard: "default", ConsecutiveFailures: 3, OldestAgeSeconds: 301, Deliveries: map[outbox.State]int{outbox.Retrying: 2},
		LastFailure: &outbox.Failure{Error: "dial tcp 10.0.0.5:9000: connect: connection refused\n" + strings.Repeat("x", 100)},
	}
	for name, tt := range map[string]struct {
		change func(q *delivery.QueueStatus)
		note   string
		fault  bool
	}{
		"failing":                   {func(*delivery.QueueStatus) {}, "failing: dial tcp 10.0.0.5:9000: connect: connection refused\\u000a", true},
		"not for long":              {func(q *delivery.QueueStatus) { q.OldestAgeSeconds = 299 }, "failing: dial tcp", false},
		"ordered":                   {func(q *delivery.QueueStatus) { q.Ordered = true }, "ordered, failing: dial tcp", true},
		"of no known cause":         {func(q *delivery.QueueStatus) { q.LastFailure = nil }, "failing", true},
		"two failures":              {func(q *delivery.QueueStatus) { q.ConsecutiveFailures = 2 }, "-", false},
		"paused":                    {func(q *delivery.QueueStatus) { q.Paused = true }, "paused", false},
		"retried, and all are gone": {func(q *delivery.QueueStatus) { q.OldestAgeSeconds, q.Deliveries = 0, nil }, "failing: dial tcp", false},
	} {
		q := failing
		tt.change(&q)
		if got := traits(q); !strings.HasPrefix(got, tt.note) || len([]rune(got)) > 80 {
			t.Errorf("%s: the note is %q, want %q", name, got, tt.note)
		}
		const want = "the last 3 attempts for guard default failed, and a delivery has waited for 5m1s"
		faults := strings.Join(storeFaults(delivery.Status{Queues: []delivery.QueueStatus{q}}), "; ")
		if strings.Contains(faults, want) != tt.fault {
			t.Errorf("%s: faults %q, want %q: %t", name, faults, want, tt.fault)
		}
	}
}

func TestStatusSaysWhetherEnforceIsSafe(t *testing.T) {
	t.Parallel()
	late := 45.0
	for name, tt := range map[string]struct {
		change func(g *caddymodule.Status)
		want   string
	}{
		"nothing counted": {func(*caddymodule.Status) {}, "safe to switch, as far as the last hour shows; counting for 27s, 2 commands seen"},
		"one command": {
			func(g *caddymodule.Status) { g.Since, g.Commands = g.Since.Add(-time.Hour), g.Commands[:1] },
			"safe to switch, as far as the last hour shows; counting for 1h0m27s, 1 command seen",
		},
		"strangers": {
			func(g *caddymodule.Status) { g.Hour.WouldRefuse = map[string]int{"sign": 2, "unsigned": 3} },
			"safe to switch, if Tencent did not send what it would have refused in the last hour: unsigned 3, sign 2",
		},
		"genuine ones": {
			func(g *caddymodule.Status) { g.Hour.WouldRefuse = map[string]int{"sign": 2, "command": 1} },
			"not yet: it would have refused genuine callbacks in the last hour: command 1",
		},
		"genuine ones before": {
			func(g *caddymodule.Status) { g.Total.WouldRefuse = map[string]int{"sign": 2, "command": 1} },
			"safe to switch, as far as the last hour shows; before, it would have refused genuine callbacks: command 1",
		},
		"no calls":   {func(g *caddymodule.Status) { g.Hour.Actions = nil }, "not yet: no callback has come in the last hour"},
		"no tokens":  {func(g *caddymodule.Status) { g.Apps = []caddymodule.AppStatus{{Unsigned: true}} }, "safe to switch, as far as the last hour shows"},
		"old tokens": {func(g *caddymodule.Status) { g.Apps[0].Tokens[0].Last = time.Now().Add(-2 * time.Hour) }, "not yet: no callback with a valid Sign"},
		"the clock":  {func(g *caddymodule.Status) { g.SkewSeconds = &late }, "not yet: the clock is off"},
	} {
		g := reporting()
		g.Since = time.Now().Add(-27 * time.Second)
		tt.change(&g)
		if got := advice(g); !strings.HasPrefix(got, tt.want) {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}

func TestStatusChecks(t *testing.T) {
	t.Parallel()
	fine := []caddymodule.Status{reporting()}
	late := reporting()
	skew := 31.0
	late.SkewSeconds = &skew
	waiting := map[outbox.State]int{outbox.Retrying: 1}
	refusing, interrupted := reporting(), reporting()
	refusing.Mode, refusing.Hour.RefusedSigned = "enforce", map[string]int{"json": 2, "payload": 3, "body": 1}
	interrupted.Mode, interrupted.Hour.RefusedSigned = "enforce", map[string]int{"body": 1}
	reportingAgain := refusing
	reportingAgain.Mode = "report"
	for name, tt := range map[string]struct {
		status delivery.Status
		want   string // in the error, or "" if there is none
	}{
		"nothing stored": {delivery.Status{Guards: fine}, ""},
		"deliveries wait": {
			delivery.Status{Guards: fine, Store: "sqlite", Deliveries: waiting, Queues: []delivery.QueueStatus{{Guard: "default", Deliveries: waiting}}}, "",
		},
		"an empty queue is paused": {delivery.Status{Guards: fine, Store: "sqlite", Queues: []delivery.QueueStatus{{Guard: "default", Paused: true}}}, ""},
		"a queue is paused": {
			delivery.Status{Guards: fine, Store: "sqlite", Queues: []delivery.QueueStatus{{Guard: "default", Paused: true, Deliveries: waiting}}}, "1 waits for guard default, which is paused",
		},
		"no guard":              {delivery.Status{Guards: []caddymodule.Status{}}, "no guard runs"},
		"the clock":             {delivery.Status{Guards: []caddymodule.Status{late}}, "the clock is 31.0 s ahead"},
		"the store":             {delivery.Status{Guards: fine, Store: "sqlite", StoreError: "disk full"}, "the store does not work: disk full"},
		"refusing genuine ones": {delivery.Status{Guards: []caddymodule.Status{refusing}}, "guard default refused 5 genuine callbacks in the last hour: payload 3, json 2"},
		"refused genuine ones, before the mode is report": {delivery.Status{Guards: []caddymodule.Status{reportingAgain}}, ""},
		"a body was cut off":                              {delivery.Status{Guards: []caddymodule.Status{interrupted}}, ""},
		"dead":                                            {delivery.Status{Guards: fine, Store: "sqlite", Deliveries: map[outbox.State]int{outbox.Dead: 2}}, "2 deliveries are dead: retry or discard them"},
		"unclaimed":                                       {delivery.Status{Guards: fine, Store: "sqlite", Unclaimed: []delivery.Unclaimed{{Guard: "gone", Deliveries: 1}}}, "1 awaits guard gone"},
		"not an API":                                      {delivery.Status{}, "is not Caddy's admin API with tim_callback"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, format := range [][]string{nil, {"--json"}} {
				_, err := run(t, statusCommand(), "", append(format, "--check", "--address", adminAPI(t, tt.status))...)
				if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
					t.Errorf("%v: error %v, want %q", format, err, tt.want)
				}
			}
		})
	}
}

func TestStatusOfARunningGuard(t *testing.T) {
	t.Parallel()
	s := guardtest.NewSite(t, guardtest.Guard("mode report")+"\nrespond `"+guardtest.OKJSON+"`")
	s.App = false
	s.Start(t)
	for _, token := range []string{guardtest.Token, guardtest.NewToken} {
		if output, err := run(t, sendCommand(), "", "http://"+s.Listen, "--token", token, "--timeout", "20s"); err != nil {
			t.Fatal(err, output)
		}
	}
	output, err := run(t, statusCommand(), "", "--check", "--address", s.Admin)
	for _, want := range []string{
		"guard default\n", "token 1 used once, last at 2", "let through     2, all in the last hour: forward 2\n",
		"would refuse    1, in the last hour: sign 1\n", "safe to switch, if Tencent did not send", ", 1 command seen\n", "\nnothing is stored\n",
	} {
		if err != nil || !strings.Contains(output, want) {
			t.Errorf("error %v, output\n%s\nwant %q", err, output, want)
		}
	}
}

func TestAdminAPIErrorsSayWhatIsThere(t *testing.T) {
	t.Parallel()
	b := guardtest.NewBackend(t, guardtest.Accepts)
	s := guardtest.NewSite(t, "handle /tim_callback/* {\nrespond \"<html>\"\n}\nhandle {\n"+guardtest.Delivering(b)+"\n}")
	guarded := guardtest.FreePort(t)
	s.After = "http://" + guarded + " {\n" + strings.Replace(guardtest.Guard(), "{", "{\nname other\n", 1) + "\n}"
	s.Start(t)
	nobody := guardtest.FreePort(t)
	for name, tt := range map[string]struct {
		args []string
		want []string
	}{
		"a page":            {[]string{"list", "--address", s.Listen}, []string{"the address " + s.Listen + " answers, but is not Caddy's admin API with tim_callback"}},
		"a guard":           {[]string{"list", "--address", guarded}, []string{"the address " + guarded + " answers, but is not Caddy's admin API with tim_callback"}},
		"a backend":         {[]string{"list", "--address", b.Address()}, []string{"answers, but is not Caddy's admin API with tim_callback"}},
		"nobody":            {[]string{"list", "--address", nobody}, []string{"does not answer at " + nobody + ": dial tcp " + nobody + ": connect: connection refused", "--address", "--config"}},
		"no socket":         {[]string{"list", "--address", "unix//no/such.sock"}, []string{"does not answer at unix//no/such.sock", "no such file"}},
		"unknown guard":     {[]string{"list", "--address", s.Admin, "--guard", "x"}, []string{"the admin API at " + s.Admin + `: no queue of guard "x"`, "the queues are: default"}},
		"unknown consumer":  {[]string{"retry", "--address", s.Admin, "--consumer", "x"}, []string{`consumer "x"`}},
		"unknown state":     {[]string{"list", "--address", s.Admin, "--state", "x"}, []string{"state: want one of [pending"}},
		"unknown delivery":  {[]string{"show", "--address", s.Admin, "1234"}, []string{"delivery 1234: ", "no such delivery"}},
		"status of a page":  {[]string{"status", "--address", s.Listen}, []string{"is not Caddy's admin API"}},
		"no such Caddyfile": {[]string{"list", "--config", "no-such-file"}, []string{"no-such-file"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := run(t, deliveriesCommand(), "", tt.args...)
			for _, want := range tt.want {
				if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "HTTP ") {
					t.Errorf("error %v, want %q", err, want)
				}
			}
		})
	}
}

func TestShowSaysWhenTheNextAttemptIs(t *testing.T) {
	t.Parallel()
	past := time.Date(2026, 11, 26, 9, 30, 0, 0, time.Local)
	future := time.Now().Add(time.Hour)
	for want, d := range map[string]outbox.Delivery{
		"next attempt at " + future.Format(time.DateTime) + "\n": {ID: 1, State: outbox.Retrying, Due: future},
		"next attempt due since 2026-11-26 09:30:00\n":           {ID: 1, State: outbox.Pending, Due: past},
		"": {ID: 1, State: outbox.Delivered},
	} {
		output, err := run(t, deliveriesCommand(), "", "show", "1", "--address", adminAPI(t, d))
		if err != nil || !strings.Contains(output, want) || strings.Contains(output, "next attempt") != (want != "") {
			t.Errorf("error %v, output\n%s\nwant %q", err, output, want)
		}
	}
}

// Scripts read the table, which stays the same on standard output.
func TestListSaysThatItFoundNothing(t *testing.T) {
	t.Parallel()
	for format, want := range map[string][2]string{"": {"ID  STATE", "nothing is listed"}, "--json": {"[]\n", ""}} {
		cmd := deliveriesCommand()
		var out, log bytes.Buffer
		cmd.SetArgs(slices.DeleteFunc([]string{"list", "--state", "dead", "--address", adminAPI(t, []outbox.Delivery{}), format}, func(arg string) bool { return arg == "" }))
		cmd.SetOut(&out)
		cmd.SetErr(&log)
		if err := cmd.ExecuteContext(t.Context()); err != nil || !strings.HasPrefix(log.String(), "asking ") || !strings.HasPrefix(out.String(), want[0]) || strings.Count(out.String(), "\n") != 1 {
			t.Errorf("%s: error %v, output %q, want %q", format, err, out.String(), want[0])
		}
		if strings.Contains(log.String(), "nothing") != (want[1] != "") || !strings.Contains(log.String(), want[1]) {
			t.Errorf("%s: it says %q, want %q", format, log.String(), want[1])
		}
	}
}

func TestListShowsTheLastErrorOfWhatIsNotDelivered(t *testing.T) {
	t.Parallel()
	failed := []outbox.Failure{{Attempt: 1, Error: "the status 500"}}
	row := func(id int64, state outbox.State) outbox.Delivery {
		return outbox.Delivery{ID: id, State: state, Attempt: 2, MaxAttempts: 20, Failures: failed}
	}
	output, err := run(t, deliveriesCommand(), "", "list", "--address", adminAPI(t, []outbox.Delivery{row(2, outbox.Retrying), row(1, outbox.Delivered)}))
	lines := strings.Split(output, "\n")
	if err != nil || !strings.HasSuffix(lines[2], "the status 500") || strings.Contains(lines[3], "500") {
		t.Errorf("error %v, output\n%s", err, output)
	}
	output, err = run(t, deliveriesCommand(), "", "show", "1", "--address", adminAPI(t, row(1, outbox.Delivered)))
	if err != nil || strings.Count(output, "the status 500") != 1 || !strings.Contains(output, "attempt 1 at ") {
		t.Errorf("error %v, output\n%s", err, output)
	}
}
