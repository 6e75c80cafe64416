// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	_ "github.com/caddyserver/caddy/v2/modules/standard" // the handlers to compare with

	"github.com/timguard/timguard/caddymodule/callback"
)

var (
	costRounds   = flag.Int("timguard.rounds", 9, "rounds of BenchmarkCost")
	costRequests = flag.Int("timguard.requests", 6000, "small requests in each round of BenchmarkCost, for each kind; a quarter of that large ones, and of those that are stored")
	costMarkdown = flag.Bool("timguard.table", false, "print what BenchmarkCost found as one table in Markdown")
)

// costTurn is how many requests of one kind come in a row, a quarter of that if
// they are large: so few that when the machine gets slower all kinds do. A round
// has so many turns that each kind pays for the garbage that it makes.
const costTurn = 300

// costRequest is the request as bytes, to be sent many times within the window.
// It is signed for all kinds, because Tencent signs for those who do not check too.
func costRequest(command string, body []byte) []byte {
	now := strconv.FormatInt(time.Now().Unix(), 10)
	q := url.Values{
		"SdkAppid": {"1400000000"}, "CallbackCommand": {command}, "contenttype": {"json"},
		"ClientIP": {"127.0.0.1"}, "OptPlatform": {"RESTAPI"},
		"RequestTime": {now}, "Sign": {callback.Sign(costToken, now)},
	}
	return fmt.Appendf(nil, "POST /callback?%s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		q.Encode(), len(body), body)
}

// costClients are a few connections to one server.
type costClients []costClient

type costClient struct {
	net.Conn
	in *bufio.Reader
}

func connect(tb testing.TB, addr string, connections int) costClients {
	tb.Helper()
	var clients costClients
	for range connections {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			tb.Fatal(err)
		}
		clients = append(clients, costClient{conn, bufio.NewReader(conn)})
	}
	return clients
}

func (all costClients) close() {
	for _, client := range all {
		_ = client.Close()
	}
}

// drive sends the request n times, and returns the latencies.
func (all costClients) drive(tb testing.TB, request []byte, n int) []time.Duration {
	tb.Helper()
	var mu sync.Mutex
	var latencies []time.Duration
	var senders sync.WaitGroup
	for _, client := range all {
		senders.Go(func() {
			took, err := client.drive(request, n/len(all))
			if err != nil {
				tb.Error(err)
			}
			mu.Lock()
			latencies = append(latencies, took...)
			mu.Unlock()
		})
	}
	senders.Wait()
	if tb.Failed() {
		tb.FailNow()
	}
	return latencies
}

// drive makes every request another event: one that came before is stored no
// second time.
func (c costClient) drive(request []byte, n int) (took []time.Duration, err error) {
	request = bytes.Clone(request)
	eventTime := request[max(0, bytes.LastIndex(request, []byte(costTime))):]
	for range n {
		if len(eventTime) < len(request) {
			copy(eventTime, strconv.FormatInt(costEvents.Add(1), 10))
		}
		start := time.Now()
		if _, err := c.Write(request); err != nil {
			return nil, err
		}
		resp, err := http.ReadResponse(c.in, nil)
		if err != nil {
			return nil, err
		}
		answer, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("%s: status %d, %s, %w", c.RemoteAddr(), resp.StatusCode, answer, err)
		}
		took = append(took, time.Since(start))
	}
	return took, nil
}

// costEvents is the EventTime of the last request.
var costEvents atomic.Int64

func init() { costEvents.Store(time.Now().UnixMilli()) }

// costSample is one round of one kind, per request.
type costSample struct {
	micros, allocs, rps, p50, p99 float64
}

// BenchmarkCost prints what the guard adds to a request. It measures the CPU
// time of a Caddy in a process of its own, in which the kinds take turns, and
// prints each figure with the median of its ratios to another kind's, round by
// round. The table of the documentation is made by
//
//	go test -run '^$' -bench Cost -benchtime 1x ./caddymodule -timguard.rounds 21 -timguard.table
func BenchmarkCost(b *testing.B) {
	backend := new(costBackend)
	server := httptest.NewServer(backend)
	defer server.Close()
	kinds := costKinds(strings.TrimPrefix(server.URL, "http://"))
	var runs []costRun
	for _, payload := range costPayloads(b) {
		b.Run(payload.name, func(b *testing.B) {
			run := costRun{payload, kinds, make(map[string][]costSample)}
			for range *costRounds {
				run.measure(b, backend)
			}
			run.report(b)
			runs = append(runs, run)
			if !*costMarkdown {
				run.print(os.Stderr)
			}
		})
	}
	if *costMarkdown {
		printMarkdown(os.Stdout, kinds, runs)
	}
}

// costBackend answers OK, and knows how often.
type costBackend struct{ answered atomic.Int64 }

func (b *costBackend) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	answering(w, r)
	b.answered.Add(1)
}

// costRun is what was measured with one payload.
type costRun struct {
	payload costPayload
	kinds   []costKind
	samples map[string][]costSample // by kind, round by round
}

// measure adds one round to the samples. It has a process to itself, because one
// may be some percent faster at one thing than the next.
func (run *costRun) measure(b *testing.B, backend *costBackend) {
	b.Helper()
	var handlers []string
	for _, kind := range run.kinds {
		handlers = append(handlers, kind.handlers)
	}
	config, addresses := processServers(b, handlers...)
	server := startProcess(b, config)
	defer server.stop()
	sums := make([]costSum, len(run.kinds))
	defer func() {
		for _, sum := range sums {
			sum.clients.close()
		}
	}()
	const connections = 4
	for i, kind := range run.kinds {
		sums[i] = costSum{server: server, backend: backend, kind: kind, clients: connect(b, addresses[i], connections), turn: costTurn}
		if kind.stores || len(run.payload.after.body) > 1000 {
			sums[i].turn /= 4
		}
		sums[i].add(b, run.payload.of(kind), 2*sums[i].turn) // warms up
		sums[i].forget()
	}
	for range max(1, *costRequests/costTurn) {
		// In a fixed order it would always be the same kinds that pay for the garbage.
		for _, i := range rand.Perm(len(run.kinds)) { //nolint:gosec // an order need not be unguessable
			sums[i].add(b, run.payload.of(run.kinds[i]), sums[i].turn)
		}
	}
	for _, sum := range sums {
		run.samples[sum.kind.name] = append(run.samples[sum.kind.name], sum.sample())
	}
}

// costSum is what one kind used in one round.
type costSum struct {
	server  *process
	backend *costBackend
	kind    costKind
	clients costClients
	turn    int // requests in a row

	cpu, wall time.Duration
	mallocs   uint64
	latencies []time.Duration
}

func (s *costSum) forget() { s.cpu, s.wall, s.mallocs, s.latencies = 0, 0, 0, nil }

func (s *costSum) add(tb testing.TB, c costCallback, n int) {
	tb.Helper()
	request := costRequest(c.command, c.body)
	answered := s.backend.answered.Load()
	before, start := s.server.ask(askNothing), time.Now()
	took := s.clients.drive(tb, request, n)
	s.latencies = append(s.latencies, took...)
	s.wall += time.Since(start)
	if s.kind.stores {
		s.settle(tb, answered+int64(len(took)))
	}
	after := s.server.ask(askNothing)
	s.cpu += after.CPU - before.CPU
	s.mallocs += after.Mallocs - before.Mallocs
}

// settle waits until the backend has answered what was stored, and that is noted.
func (s *costSum) settle(tb testing.TB, answered int64) {
	tb.Helper()
	for deadline := time.Now().Add(time.Minute); s.backend.answered.Load() < answered; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			tb.Fatalf("%s: %d callbacks are still stored", s.kind.name, answered-s.backend.answered.Load())
		}
	}
	for used := time.Duration(0); ; time.Sleep(50 * time.Millisecond) {
		now := s.server.ask(askNothing).CPU
		if now-used < 2*time.Millisecond {
			return
		}
		used = now
	}
}

// sample returns the round's figures for one request.
func (s *costSum) sample() costSample {
	slices.Sort(s.latencies)
	sent := len(s.latencies)
	return costSample{
		micros: float64(s.cpu.Microseconds()) / float64(sent),
		allocs: float64(s.mallocs) / float64(sent),
		rps:    float64(sent) / s.wall.Seconds(),
		p50:    float64(s.latencies[sent/2].Microseconds()),
		p99:    float64(s.latencies[sent*99/100].Microseconds()),
	}
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}

// costFigures are the columns of a run's table.
var costFigures = []struct {
	name string
	of   func(costSample) float64
}{
	{"CPU µs", costSample.cpu},
	{"allocs", func(s costSample) float64 { return s.allocs }},
	{"req/s", func(s costSample) float64 { return s.rps }},
	{"p50 µs", func(s costSample) float64 { return s.p50 }},
	{"p99 µs", func(s costSample) float64 { return s.p99 }},
}

func (s costSample) cpu() float64 { return s.micros }

// figure returns the median of a kind's figure.
func (run *costRun) figure(kind string, of func(costSample) float64) float64 {
	var all []float64
	for _, s := range run.samples[kind] {
		all = append(all, of(s))
	}
	return median(all)
}

// ratio returns the median of a kind's figure divided by another kind's.
func (run *costRun) ratio(kind, other string, of func(costSample) float64) float64 {
	var all []float64
	for i, s := range run.samples[kind] {
		all = append(all, of(s)/of(run.samples[other][i]))
	}
	return median(all)
}

// report gives the ratios of CPU time to the benchmark.
func (run *costRun) report(b *testing.B) {
	b.Helper()
	unit := strings.NewReplacer(", ", "+", " ", "-")
	for _, kind := range run.kinds {
		for _, other := range kind.against {
			b.ReportMetric(run.ratio(kind.name, other, costSample.cpu), unit.Replace(kind.name+"/"+other))
		}
	}
	b.ReportMetric(0, "ns/op") // says nothing here
}

// print writes all figures, each with its ratio to the first kind to compare with.
func (run *costRun) print(w io.Writer) {
	fmt.Fprintf(w, "\n%-27s", run.payload.name)
	for _, f := range costFigures {
		fmt.Fprintf(w, "%9s  ratio", f.name)
	}
	for _, kind := range run.kinds {
		fmt.Fprintf(w, "\n%-27s", kind.name)
		for _, f := range costFigures {
			fmt.Fprintf(w, "%9.1f", run.figure(kind.name, f.of))
			if len(kind.against) == 0 {
				fmt.Fprint(w, "      -")
				continue
			}
			fmt.Fprintf(w, "  %5.3f", run.ratio(kind.name, kind.against[0], f.of))
		}
	}
	fmt.Fprintln(w)
}

// printMarkdown writes the CPU time of all kinds, and what it is of others'.
func printMarkdown(w io.Writer, kinds []costKind, runs []costRun) {
	fmt.Fprint(w, "\n| Site |")
	for _, run := range runs {
		fmt.Fprintf(w, " %s |", run.payload.name)
	}
	fmt.Fprint(w, "\n|---|", strings.Repeat("---|", len(runs)))
	for _, kind := range kinds {
		fmt.Fprintf(w, "\n| %s |", kind.name)
		for _, run := range runs {
			fmt.Fprintf(w, " %.0f µs |", run.figure(kind.name, costSample.cpu))
		}
		for _, other := range kind.against {
			fmt.Fprintf(w, "\n| %s ÷ %s |", kind.name, other)
			for _, run := range runs {
				fmt.Fprintf(w, " %.2f |", run.ratio(kind.name, other, costSample.cpu))
			}
		}
	}
	fmt.Fprintln(w)
}
