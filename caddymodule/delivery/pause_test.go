// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/timguard/timguard/caddymodule/internal/guardtest"
)

// change pauses or resumes a queue.
type change func(t *testing.T, s *guardtest.Site, queue, verb string)

func byCommand(t *testing.T, s *guardtest.Site, queue, verb string) {
	t.Helper()
	if text := s.CLI(t, false, verb, queue); text != queue+": "+verb+"d\n" {
		t.Errorf("%s prints %q", verb, text)
	}
}

func byAdminAPI(t *testing.T, s *guardtest.Site, queue, verb string) {
	t.Helper()
	if code, text := guardtest.Get(t, http.MethodPost, "http://"+s.Admin+"/tim_callback/queues/"+queue+"/"+verb); code != http.StatusOK {
		t.Fatalf("%s: %d %s", verb, code, text)
	}
}

// A paused queue begins no attempts on any node until it is resumed, also after a restart.
// Others go on, and callbacks are stored as ever.
func TestEndToEndDeliveryPauses(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		change   change
		consumer string // of the queue
	}{
		"backend, by the admin API": {byAdminAPI, ""}, "consumer, by the command line": {byCommand, "archive"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachStore(t, func(t *testing.T, store string) {
				t.Helper()
				testPause(t, store, tt.change, tt.consumer)
			})
		})
	}
}

func testPause(t *testing.T, store string, change change, consumer string) {
	t.Helper()
	paused, other := guardtest.NewBackend(t, guardtest.Accepts), guardtest.NewBackend(t, guardtest.Accepts)
	backend, archive, queue := paused, other, "front"
	if consumer != "" {
		backend, archive, queue = other, paused, "front/"+consumer
	}
	directives := guardtest.Guard("name front", "on after deliver {\ncopy archive\n}", "backend "+backend.Address(), "consumer archive "+archive.Address())
	var nodes []*guardtest.Process
	for range 1 + min(1, len(store)) { // two nodes share PostgreSQL
		s := guardtest.NewSite(t, directives)
		s.Options, s.Global = store, s.Global+"\nmetrics"
		nodes = append(nodes, s.Start(t))
	}
	first, last := nodes[0], nodes[len(nodes)-1]
	n := 0
	post := func() {
		t.Helper()
		for _, node := range nodes {
			n++
			guardtest.NewPoster(t, node.Listen).WantOK(t, fmt.Sprint("pause-", n))
		}
	}
	post()
	guardtest.Eventually(t, 10*time.Second, "both queues deliver", func() bool { return paused.Total() == n && other.Total() == n })

	change(t, first.Site, queue, "pause")
	time.Sleep(3 * time.Second) // nodes notice by polling
	before := n
	post()
	guardtest.Eventually(t, 10*time.Second, "the other queue goes on", func() bool { return other.Total() == n })
	guard := fmt.Sprintf("{consumer=%q,guard=\"front\"}", consumer)
	for _, node := range nodes {
		wantPaused(t, node.Site, consumer, n-before)
	}
	guardtest.Eventually(t, 10*time.Second, "the gauge says so", func() bool { return last.Metric(t, "caddy_tim_callback_queue_paused"+guard) == 1 })

	for i := range nodes {
		nodes[i].Terminate(t)
	}
	for i := range nodes {
		nodes[i] = nodes[i].Start(t)
		nodes[i].WantLog(t, "deliveries wait in a queue that is paused; resume it to deliver them",
			map[string]any{"level": "warn", "logger": "tim_delivery", "guard": "front", "consumer": consumer, "deliveries": float64(n - before)})
	}
	time.Sleep(500 * time.Millisecond)
	if got := paused.Total(); got != before {
		t.Errorf("%d attempts were begun in the pause", got-before)
	}
	change(t, last.Site, queue, "resume")
	guardtest.Eventually(t, 10*time.Second, "what was waiting is delivered", func() bool { return paused.Total() == n })
	guardtest.Eventually(t, 10*time.Second, "the gauge says so", func() bool { return last.Metric(t, "caddy_tim_callback_queue_paused"+guard) == 0 })
	if text := last.CLI(t, true, "pause", "nobody"); !strings.Contains(text, "no running guard has this queue, and nothing is stored in it; the queues are: front, front/archive") {
		t.Errorf("pausing a queue that is not there prints %s", text)
	}
}

// wantPaused fails the test unless status says that one queue is paused, in which so many
// wait.
func wantPaused(t *testing.T, s *guardtest.Site, consumer string, waiting int) {
	t.Helper()
	var status Status
	if _, text := guardtest.Get(t, http.MethodGet, "http://"+s.Admin+"/tim_callback/status"); json.Unmarshal([]byte(text), &status) != nil || len(status.Queues) != 2 {
		t.Fatalf("status %s", text)
	}
	for _, q := range status.Queues {
		if want := q.Consumer == consumer; q.Paused != want || want && q.Waiting() != waiting {
			t.Errorf("status says %+v", q)
		}
	}
	output, err := guardtest.Timguard(s.Dir, "tim-callback", "status", "--check", "--address", s.Admin).CombinedOutput()
	if want := fmt.Sprintf("%s for guard front%s, which is paused", map[int]string{1: "1 waits", 2: "2 wait"}[waiting], map[bool]string{true: " and consumer archive"}[consumer != ""]); err == nil || !strings.Contains(string(output), want) {
		t.Errorf("status --check: %v\n%s, want it to fail and say %s", err, output, want)
	}
}

// With 10,000 callbacks in one queue, what an operator does takes less than two seconds, and
// holds up those who store for less than 100 ms. A busy machine gets more time here.
func TestEndToEndDeliveryManagesLongQueues(t *testing.T) {
	t.Parallel()
	for name, ordered := range map[string]string{"unordered": "", "ordered": "ordered"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachStore(t, func(t *testing.T, store string) {
				t.Helper()
				testLongQueue(t, store, ordered)
			})
		})
	}
}

func testLongQueue(t *testing.T, store, ordered string) {
	t.Helper()
	callbacks := guardtest.InLongForm(2_000, 10_000)
	b := guardtest.NewBackend(t, guardtest.Accepts)
	s := guardtest.NewSite(t, guardtest.Guard("on after deliver", "backend {\n"+ordered+"\nreverse_proxy "+b.Address()+"\n}"))
	s.Options = store
	s.Start(t).WantLog(t, "the store is open", nil)
	byAdminAPI(t, s, "default", "pause")
	time.Sleep(3 * time.Second)
	guardtest.NewPoster(t, s.Listen).WantOK(t, "long")
	fill(t, s, callbacks, ordered != "")

	var slowest atomic.Int64
	stop := storeAllAlong(t, s, &slowest)
	defer stop()
	api := "http://" + s.Admin + "/tim_callback/"
	for _, tt := range []struct{ name, method, path, has string }{
		{"nothing", "", "", ""},
		{"pause", http.MethodPost, "queues/default/pause", `"paused":true`},
		{"list", http.MethodGet, "deliveries?limit=1000&guard=default", `[{"id":`},
		{"list a conversation", http.MethodGet, "deliveries?conversation=c-7", `[{"id":`},
		{"status", http.MethodGet, "status", `"paused":true`},
		{"bulk retry", http.MethodPost, "deliveries/retry?conversation=c-7&guard=default", fmt.Sprintf(`{"deliveries":%d}`, callbacks/200)},
		{"bulk retry of all", http.MethodPost, "deliveries/retry?guard=default", `{"deliveries":` + fmt.Sprint(callbacks)[:1]},
		{"resume", http.MethodPost, "queues/default/resume", `"paused":false`},
	} {
		slowest.Store(0)
		start := time.Now()
		if tt.name == "nothing" {
			time.Sleep(time.Second)
		} else if code, text := guardtest.Get(t, tt.method, api+tt.path); code != http.StatusOK || !strings.Contains(text, tt.has) {
			t.Errorf("%s: %d %.200s", tt.name, code, text)
		}
		took, held := time.Since(start), time.Duration(slowest.Load())
		t.Logf("%s: %s; storing took %s at most", tt.name, took.Round(time.Millisecond), held.Round(time.Millisecond))
		if most := time.Duration(guardtest.InLongForm(30, 2)) * time.Second; took > most {
			t.Errorf("%s took %s", tt.name, took)
		}
		if most := time.Duration(guardtest.InLongForm(2000, 100)) * time.Millisecond; held > most {
			t.Errorf("%s held up those who store for %s", tt.name, held)
		}
	}
	stop()
	guardtest.Eventually(t, 20*time.Second, "deliveries go on", func() bool { return b.Total() > 100 })
}

// fill copies the only callback in the store until there are so many, in 200 conversations.
func fill(t *testing.T, s *guardtest.Site, callbacks int, ordered bool) {
	t.Helper()
	const conversations = 200
	const columns = "kind, max_attempts, metadata, priority, queue, scheduled_at, tags"
	later := "available" // all but the first of each conversation
	if ordered {
		later = "pending"
	}
	state := fmt.Sprintf("CASE WHEN i > %d THEN '%s' ELSE 'available' END", conversations, later)
	inStore(t, s, fmt.Sprintf("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d - 1) INSERT INTO river_job (args, state, %s)"+
		" SELECT jsonb_set(args, '$.conversation', 'c-' || (i %% %d)), %s, %s FROM river_job, n", callbacks, columns, conversations, state, columns),
		fmt.Sprintf("INSERT INTO river_job (args, state, %s) SELECT jsonb_set(args, '{conversation}', to_jsonb('c-' || (i %% %d))), (%s)::river_job_state, %s"+
			" FROM river_job, generate_series(1, %d - 1) i", columns, conversations, state, columns, callbacks))
}

// storeAllAlong posts callbacks one after the other until the returned function is called,
// and notes how long the slowest answer takes.
func storeAllAlong(t *testing.T, s *guardtest.Site, slowest *atomic.Int64) (stop func()) {
	t.Helper()
	p := guardtest.NewPoster(t, s.Listen)
	p.WantOK(t, "connect")
	var stopped atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := 0; !stopped.Load(); n++ {
			start := time.Now()
			p.WantOK(t, fmt.Sprint("along-", n))
			took := int64(time.Since(start))
			if took > slowest.Load() { // a value of the step before is lost at worst
				slowest.Store(took)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	return func() {
		stopped.Store(true)
		<-done
	}
}
