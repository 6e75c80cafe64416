// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"

	"github.com/timguard/timguard/caddymodule/callback"
	"github.com/timguard/timguard/caddymodule/internal/guardtest"
)

// metricLabels are the labels of each metric, by name without the common prefix.
var metricLabels = map[string][]string{
	"callbacks_total":    {"sdk_app_id", "command", "action"},
	"rejections_total":   {"sdk_app_id", "reason", "mode"},
	"inspect_seconds":    {},
	"clock_skew_seconds": {},
	"token_uses_total":   {"sdk_app_id", "token"},
	"fallbacks_total":    {"sdk_app_id", "command", "verdict"},
	"drift_total":        {"command"},
}

// deliveryMetricLabels are those of a guard that stores callbacks.
var deliveryMetricLabels = map[string][]string{
	"abandoned_attempts":          {},
	"copy_failures_total":         {"command"},
	"deliveries":                  {"guard", "consumer", "state"},
	"delivery_attempts_total":     {"guard", "consumer", "command", "outcome"},
	"oldest_delivery_age_seconds": {"guard", "consumer"},
	"queue_paused":                {"guard", "consumer"},
	"store_seconds":               {},
	"unclaimed_deliveries":        {},
}

// publishMetricLabels are those of tim_publish.
var publishMetricLabels = map[string][]string{
	"publish_failures_total": {"broker", "cause"},
	"publish_seconds":        {"broker"},
}

// scrape contains the values of the guard's metrics, by name and labels in the
// exposition format, without the common prefix.
type scrape map[string]float64

var sampleLine = regexp.MustCompile(`(?m)^caddy_tim_callback_(\S+|[a-z_]+\{.*\}) (\S+)$`)

func parseScrape(t *testing.T, text string) scrape {
	t.Helper()
	s := make(scrape)
	for _, m := range sampleLine.FindAllStringSubmatch(text, -1) {
		value, err := strconv.ParseFloat(m[2], 64)
		if err != nil {
			t.Fatal(err)
		}
		s[m[1]] = value
	}
	return s
}

// since returns the differences to an earlier scrape, without unchanged values.
func (s scrape) since(earlier scrape) map[string]float64 {
	diff := make(map[string]float64)
	for series, value := range s {
		if value != earlier[series] && !strings.Contains(series, "_bucket") && !strings.HasSuffix(series, "_sum") {
			diff[series] = value - earlier[series]
		}
	}
	return diff
}

// loadedCaddy is a Caddy in this process, with an admin API.
type loadedCaddy struct {
	*guardedServer
	admin string
}

func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	return listener.Addr().String()
}

// newLoadedCaddy returns a Caddy without a configuration. Tests that use it cannot be
// parallel, because there is only one per process.
func newLoadedCaddy(t *testing.T) *loadedCaddy {
	t.Helper()
	transport := &http.Transport{DisableKeepAlives: true}
	t.Cleanup(func() {
		if err := caddy.Stop(); err != nil {
			t.Error(err)
		}
	})
	return &loadedCaddy{
		&guardedServer{address: freeAddress(t), client: &http.Client{Transport: transport, Timeout: 10 * time.Second}}, freeAddress(t),
	}
}

func (c *loadedCaddy) load(t *testing.T, directives string) {
	t.Helper()
	config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt(fmt.Appendf(nil, `{
	admin %s
	auto_https off
	persist_config off
	log {
		output discard
	}
}
http://%s {
	bind 127.0.0.1
	%s
}
`, c.admin, c.address, directives), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := caddy.Load(config, true); err != nil {
		t.Fatal(err)
	}
}

// scrape gets the metrics from the admin API.
func (c *loadedCaddy) scrape(t *testing.T) scrape {
	t.Helper()
	return parseScrape(t, c.scrapeText(t))
}

func (c *loadedCaddy) scrapeText(t *testing.T) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+c.admin+"/metrics", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("scrape: %d, %v: %s", resp.StatusCode, err, text)
	}
	return string(text)
}

// twoTokens is a guard with an app whose token is being rotated.
func twoTokens(subdirectives ...string) string {
	return strings.Replace(guardtest.Guard(subdirectives...), guardtest.Token, guardtest.Token+" "+guardtest.NewToken, 1)
}

func TestEndToEndMetricsHaveTheirNamesAndLabels(t *testing.T) {
	c := newLoadedCaddy(t)
	c.load(t, twoTokens("on Group.CallbackBeforeSendMsg forward {\n fallback forbid\n}", "on before ack", "on after forward")+"\nrespond 404")
	c.post(t, sampleOf(callback.RecallCommand))
	c.post(t, sampleOf(beforeSend))
	c.post(t, request{query: goodQuery(), body: []byte("[]")})
	c.post(t, request{query: goodQuery(), body: bytes.Replace(recallBody(t), []byte("{"), []byte(`{"NewField":1,`), 1)})
	text := c.scrapeText(t)
	got := make(map[string][]string)
	for series := range parseScrape(t, text) {
		name, labels, _ := strings.Cut(strings.TrimSuffix(series, "}"), "{")
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			name = strings.TrimSuffix(name, suffix)
		}
		got[name] = append(got[name], "")[:0]
		for label := range strings.SplitSeq(labels, ",") {
			if label, _, _ = strings.Cut(label, "="); label != "" && label != "le" {
				got[name] = append(got[name], label)
			}
		}
		if _, known := metricLabels[name]; !known && deliveryMetricLabels[name] == nil {
			t.Errorf("a metric %s, which is not among those that are documented", name)
		}
	}
	for name, labels := range metricLabels {
		have := slices.Clone(got[name])
		slices.Sort(have)
		want := slices.Sorted(slices.Values(labels))
		if got[name] == nil || !slices.Equal(have, want) {
			t.Errorf("%s has the labels %v, want %v", name, have, want)
		}
		kind := "counter"
		if strings.HasSuffix(name, "_seconds") {
			kind = "histogram"
		}
		if !strings.Contains(text, "# TYPE caddy_tim_callback_"+name+" "+kind+"\n") || !strings.Contains(text, "# HELP caddy_tim_callback_"+name+" ") {
			t.Errorf("%s is no %s with a help", name, kind)
		}
	}
}

func TestEndToEndMetricsCountWhatTheGuardDoes(t *testing.T) {
	s := newLoadedCaddy(t)
	const rules = `on Group.CallbackBeforeSendMsg forward {
		deadline 200ms
		fallback forbid
	}
	on C2C.CallbackBefore* forward {
		fallback allow
	}
	on Group.CallbackBefore* forbid
	on State.* ack
	on Group.CallbackAfterRecallMsg New.* forward`
	const app = `sdk_app_id="` + guardtest.App + `"`
	callbacks := func(command, action string) string {
		return fmt.Sprintf(`callbacks_total{action=%q,command=%q,%s}`, action, command, app)
	}
	rejections := func(reason string) string {
		return fmt.Sprintf(`rejections_total{mode="enforce",reason=%q,%s}`, reason, app)
	}
	first, second := `token_uses_total{`+app+`,token="1"}`, `token_uses_total{`+app+`,token="2"}`
	broken := func(command string) request { return request{query: sampleOf(command).query, body: []byte("{]")} }
	now := time.Now()
	tests := map[string]struct {
		request request
		want    []string // counters that go up by one, beside inspect_seconds
	}{
		"forwarded":           {sampleOf(callback.RecallCommand), []string{callbacks(callback.RecallCommand, "forward"), first}},
		"by the second token": {request{query: guardtest.Query(guardtest.App, callback.RecallCommand, guardtest.Signed(guardtest.NewToken, now)), body: recallBody(t)}, []string{callbacks(callback.RecallCommand, "forward"), second}},
		"unknown command":     {sampleOf("New.Anything"), []string{callbacks("other", "forward"), first}},
		"ack":                 {sampleOf("State.StateChange"), []string{callbacks("State.StateChange", "ack"), first}},
		"forbid":              {sampleOf("Group.CallbackBeforeCreateGroup"), []string{callbacks("Group.CallbackBeforeCreateGroup", "forbid"), first}},
		"fallback":            {sampleOf(beforeSend), []string{callbacks(beforeSend, "forward"), first, `fallbacks_total{command="` + beforeSend + `",` + app + `,verdict="forbid"}`}},
		"fallback of a refused payload": {broken("C2C.CallbackBeforeSendMsg"), []string{
			callbacks("C2C.CallbackBeforeSendMsg", "ack"), first, rejections("json"), `fallbacks_total{command="C2C.CallbackBeforeSendMsg",` + app + `,verdict="allow"}`,
		}},
		"refused payload": {broken(callback.RecallCommand), []string{callbacks(callback.RecallCommand, "reject"), first, rejections("json")}},
		"no rule":         {sampleOf("Push.OfflinePush"), []string{callbacks("Push.OfflinePush", "reject"), first, rejections("command")}},
		"forged":          {request{query: guardtest.Query(guardtest.App, callback.RecallCommand, guardtest.Signed("guess", now))}, []string{callbacks(callback.RecallCommand, "reject"), rejections("sign")}},
		"forged and stale": {
			request{query: guardtest.Query(guardtest.App, callback.RecallCommand, guardtest.Signed("guess", now.Add(-time.Hour)))},
			[]string{callbacks(callback.RecallCommand, "reject"), rejections("stale")},
		},
		"stale": {
			request{query: guardtest.Query(guardtest.App, callback.RecallCommand, guardtest.Signed(guardtest.NewToken, now.Add(-time.Hour)))},
			[]string{callbacks(callback.RecallCommand, "reject"), rejections("stale"), second},
		},
		"another app": {
			request{query: guardtest.Query("7", callback.RecallCommand, guardtest.Signed(guardtest.Token, now))},
			[]string{`callbacks_total{action="reject",command="` + callback.RecallCommand + `",sdk_app_id="other"}`, `rejections_total{mode="enforce",reason="app",sdk_app_id="other"}`},
		},
		"console check": {request{query: goodQuery(), body: []byte("{}")}, []string{callbacks(callback.RecallCommand, "console_check"), first}},
	}
	s.load(t, twoTokens(rules)+"\nrespond 404")
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if name == "another app" {
				tt.request.body = []byte(`{"a":1}`) // or it would be a console check
			}
			before := s.scrape(t)
			s.post(t, tt.request)
			want := map[string]float64{"inspect_seconds_count": 1}
			for _, series := range tt.want {
				want[series] = 1
				if strings.HasPrefix(series, "token_uses_total") {
					want["clock_skew_seconds_count"] = 1
				}
			}
			if got := s.scrape(t).since(before); !maps.Equal(got, want) {
				t.Errorf("counted  %v\nwant     %v", got, want)
			}
		})
	}
}

func TestEndToEndMetricsShowTheClockSkewOfCorrectlySignedCalls(t *testing.T) {
	c := newLoadedCaddy(t)
	c.load(t, guardtest.Guard())
	now := time.Now()
	for _, skew := range []time.Duration{-2 * time.Hour, -20 * time.Second, 20 * time.Second, 2 * time.Hour} {
		before := c.scrape(t)
		c.post(t, request{query: guardtest.Query(guardtest.App, callback.RecallCommand, guardtest.Signed(guardtest.Token, now.Add(-skew))), body: recallBody(t)})
		c.post(t, request{query: guardtest.Query(guardtest.App, callback.RecallCommand, guardtest.Signed("guess", now.Add(-skew))), body: recallBody(t)})
		after := c.scrape(t)
		got := after["clock_skew_seconds_sum"] - before["clock_skew_seconds_sum"]
		if n := after["clock_skew_seconds_count"] - before["clock_skew_seconds_count"]; n != 1 || got < skew.Seconds() || got > skew.Seconds()+10 {
			t.Errorf("%v calls with %v s, want one with %v", n, got, skew.Seconds())
		}
	}
}

// Callers cannot create series: unknown labels are "other".
func TestEndToEndMetricsAreBounded(t *testing.T) {
	c := newLoadedCaddy(t)
	c.load(t, guardtest.Guard("on * forward")+"\nrespond 404")
	stranger := func(i int) []request {
		made := fmt.Sprintf("Made.Up%d", i)
		return []request{
			{query: guardtest.Query(fmt.Sprint(2000000000+i), made, ""), body: []byte(`{"a":1}`)},
			{query: guardtest.Query(guardtest.App, made, guardtest.Signed("guess", time.Now()))},
			{query: guardtest.Query(guardtest.App, made, "")},
			{query: "SdkAppid=" + made},
			{query: "CallbackCommand=" + made + "&SdkAppid=%zz" + made},
			{query: guardtest.Query(guardtest.App, made, guardtest.Signed(guardtest.Token, time.Now())), body: []byte("[]")},
			{query: guardtest.Query(guardtest.App, made, guardtest.Signed(guardtest.Token, time.Now())), body: []byte(`{"GroupId":"` + made + `"}`)},
		}
	}
	send := func(i int) {
		for _, q := range stranger(i) {
			c.post(t, q)
		}
	}
	send(0)
	before := c.scrape(t)
	for i := range 150 {
		send(1 + i)
	}
	after := c.scrape(t)
	if len(after) != len(before) {
		t.Errorf("%d series, and after 1,050 calls %d", len(before), len(after))
	}
	for series := range after {
		if strings.Contains(series, "Made") || strings.Contains(series, "20000") {
			t.Errorf("a caller has made the series %s", series)
		}
	}
	if n := after["inspect_seconds_count"] - before["inspect_seconds_count"]; n != 1050 {
		t.Errorf("%v calls are counted, want 1050", n)
	}
}

func TestEndToEndMetricsSurviveReloads(t *testing.T) {
	c := newLoadedCaddy(t)
	configs := []string{
		guardtest.Guard("name one"),
		guardtest.Guard("name two", "mode report", "on Group.CallbackAfterRecallMsg ack") + "\nhandle /x {\n" + guardtest.Guard() + "\n}",
	}
	for i := range 4 {
		c.load(t, configs[i%2]+"\nrespond 204")
	}
	goroutines := settledGoroutines(0)
	before := c.scrape(t)
	for i := range 100 {
		c.load(t, configs[i%2]+"\nrespond 204")
		c.postUntilServed(t, sampleOf(callback.RecallCommand))
	}
	const series = `callbacks_total{action="forward",command="` + callback.RecallCommand + `",sdk_app_id="` + guardtest.App + `"}`
	if got := c.scrape(t).since(before); got[series] != 100 || got["inspect_seconds_count"] != 100 {
		t.Errorf("counted %v, want 100 callbacks", got)
	}
	if now := settledGoroutines(goroutines + 3); now > goroutines+3 {
		t.Errorf("%d goroutines before 100 reloads, %d after", goroutines, now)
	}
}

// postUntilServed repeats the call while the listener of the previous configuration
// accepts connections that it no longer serves.
func (c *loadedCaddy) postUntilServed(t *testing.T, q request) {
	t.Helper()
	var err error
	for range 10 {
		if _, _, err = c.call(t.Context(), q); err == nil {
			return
		}
	}
	t.Fatal(err)
}

// settledGoroutines waits until there are at most that many goroutines, or until their
// number has stopped falling.
func settledGoroutines(enough int) (n int) {
	n = runtime.NumGoroutine()
	for still := 0; still < 20 && n > enough; still++ {
		time.Sleep(50 * time.Millisecond)
		if now := runtime.NumGoroutine(); now < n {
			n, still = now, 0
		}
	}
	return n
}

func TestTwoGuardsShareTheirMetrics(t *testing.T) {
	t.Parallel()
	s := serve(t, "handle /a {\n"+guardtest.Guard("name a")+"\n}\nhandle /b {\n"+guardtest.Guard("name b", "mode report")+"\n}\nhandle /c {\n tim_callback 7\n}\nrespond 404", nil)
	for _, path := range []string{"/a", "/b", "/c"} {
		q := sampleOf(callback.RecallCommand)
		q.path = path
		s.post(t, q)
	}
	families, err := s.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]int)
	for _, family := range families {
		seen[family.GetName()]++
	}
	for _, name := range []string{"callbacks_total", "rejections_total", "inspect_seconds"} {
		if seen["caddy_tim_callback_"+name] != 1 {
			t.Errorf("%s is there %d times, want once", name, seen["caddy_tim_callback_"+name])
		}
	}
}

var (
	selector = regexp.MustCompile(`caddy_tim_callback_([a-z_]+)(\{[^}]*\})?`)
	matcher  = regexp.MustCompile(`([a-z_]+)\s*(?:=~|!~|!=|=)`)
	grouping = regexp.MustCompile(`\b(?:by|on|without|ignoring)\s*\(([a-z_, ]*)\)`)
)

func TestDashboardsAskForMetricsThatExist(t *testing.T) {
	t.Parallel()
	known := maps.Clone(metricLabels)
	maps.Copy(known, deliveryMetricLabels)
	maps.Copy(known, publishMetricLabels)
	for _, file := range []string{"alerts.yml", "alerts_test.yml", "grafana.json"} {
		data, err := os.ReadFile(filepath.Join("..", "dashboards", file))
		if err != nil {
			t.Fatal(err)
		}
		text := strings.ReplaceAll(string(data), `\"`, `"`)
		used := 0
		labels := []string{"instance", "job", "le"}
		for _, m := range selector.FindAllStringSubmatch(text, -1) {
			name := m[1]
			for _, suffix := range []string{"_bucket", "_sum", "_count"} {
				if base, ok := strings.CutSuffix(name, suffix); ok && strings.HasSuffix(base, "_seconds") {
					name = base
				}
			}
			of, ok := known[name]
			if !ok {
				t.Errorf("%s: caddy_tim_callback_%s does not exist", file, m[1])
				continue
			}
			used++
			labels = append(labels, of...)
			for _, label := range matcher.FindAllStringSubmatch(m[2], -1) {
				if !slices.Contains(of, label[1]) && !slices.Contains(labels[:3], label[1]) {
					t.Errorf("%s: caddy_tim_callback_%s has no label %s", file, m[1], label[1])
				}
			}
		}
		if used == 0 {
			t.Errorf("%s: no metric of the guard's", file)
		}
		for _, m := range grouping.FindAllStringSubmatch(text, -1) {
			for label := range strings.SplitSeq(m[1], ",") {
				if label = strings.TrimSpace(label); label != "" && !slices.Contains(labels, label) {
					t.Errorf("%s: no metric in it has the label %s", file, label)
				}
			}
		}
	}
}
