// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"bufio"
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
	"testing"
	"time"

	_ "github.com/caddyserver/caddy/v2/modules/standard" // the handlers to compare with

	"github.com/timguard/timguard/caddymodule/callback"
)

var (
	costRounds   = flag.Int("timguard.rounds", 9, "rounds of BenchmarkCost")
	costRequests = flag.Int("timguard.requests", 6000, "small requests in each round of BenchmarkCost, for each kind; a quarter of that large ones")
)

// costTurn is how many requests of one kind come in a row, a quarter of that if
// they are large: so few that when the machine gets slower all kinds do. A round
// has so many turns that each kind pays for the garbage that it makes.
const costTurn = 300

// costKind is one thing to measure: what a site does with a request.
type costKind struct {
	name     string
	baseline string // the kind to divide by
	handlers string // of the site, as JSON
	addr     string
}

const (
	costToken = "xxxxyyyy"
	costProxy = `{"handler":"reverse_proxy","upstreams":[{"dial":"%s"}]}`
	costReply = `{"handler":"static_response","status_code":200,"headers":{"Content-Type":["application/json"]},"body":"{\"ActionStatus\":\"OK\",\"ErrorInfo\":\"\",\"ErrorCode\":0}"}`
	costGuard = `{"handler":"tim_callback","apps":[{"sdk_app_id":"1400000000"%s}],"rules":[{"commands":["after"],"action":"%s"}]}`
)

func costKinds(backend string) []costKind {
	proxy := fmt.Sprintf(costProxy, backend)
	guard := func(tokens, action string) string { return fmt.Sprintf(costGuard, tokens, action) }
	const tokens, open = `,"tokens":["` + costToken + `"]`, `,"unsigned":true`
	return []costKind{
		{name: "proxy", handlers: proxy},
		{name: "guarded", baseline: "proxy", handlers: guard(open, "forward") + "," + proxy},
		{name: "guarded+Sign", baseline: "proxy", handlers: guard(tokens, "forward") + "," + proxy},
		{name: "buffered+Sign", baseline: "proxy", handlers: guard(tokens, "forward") + "," + strings.Replace(proxy, `"upstreams"`, `"request_buffers":1048576,"upstreams"`, 1)},
		{name: "respond", handlers: costReply},
		{name: "ack", baseline: "respond", handlers: guard(open, "ack")},
		{name: "ack+Sign", baseline: "respond", handlers: guard(tokens, "ack")},
	}
}

// costConfig gives each kind a server of its own.
func costConfig(tb testing.TB, kinds []costKind) string {
	tb.Helper()
	var handlers []string
	for _, kind := range kinds {
		handlers = append(handlers, kind.handlers)
	}
	config, addresses := processServers(tb, handlers...)
	for i := range kinds {
		kinds[i].addr = addresses[i]
	}
	return config
}

// costBody is a real payload of about that many bytes.
func costBody(size int) (command string, body []byte) {
	if size < 1000 {
		return callback.RecallCommand, []byte(`{"CallbackCommand":"Group.CallbackAfterRecallMsg","Operator_Account":"admin","Type":"Community","GroupId":"1213456","MsgSeqList":[{"MsgSeq":130}],"TopicId":"@TGS#_@TGS#cQVLVHIM62CJ@TOPIC#_TestTopic","EventTime":"1670574414123"}`)
	}
	command = "C2C.CallbackAfterSendMsg"
	text := strings.Repeat("The quick brown fox jumps over the lazy dog. ", size/45)
	return command, []byte(strings.Replace(string(callback.Sample(command)), "red packet", text, 1))
}

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

func (c costClient) drive(request []byte, n int) (took []time.Duration, err error) {
	for range n {
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

// costSample is one round of one kind, per request.
type costSample struct {
	micros, allocs, rps, p50, p99 float64
}

// BenchmarkCost prints what the guard adds to a request. It measures the CPU
// time of a Caddy in a process of its own, in which the kinds take turns, and
// prints each figure with the median of its ratios to the baseline, round by round.
func BenchmarkCost(b *testing.B) {
	backend := httptest.NewServer(http.HandlerFunc(answering))
	defer backend.Close()
	kinds := costKinds(strings.TrimPrefix(backend.URL, "http://"))
	for _, size := range []int{230, 64 << 10} {
		b.Run(fmt.Sprintf("%dB", size), func(b *testing.B) {
			samples := make(map[string][]costSample)
			for range *costRounds {
				measureCosts(b, kinds, size, samples)
			}
			printCosts(b, kinds, samples, size)
		})
	}
}

// measureCosts adds one round to the samples. It has a process to itself, because
// one may be some percent faster at one thing than the next.
func measureCosts(b *testing.B, kinds []costKind, size int, samples map[string][]costSample) {
	b.Helper()
	command, body := costBody(size)
	const connections = 4
	n := costTurn
	if size > 1000 {
		n /= 4
	}
	server := startProcess(b, costConfig(b, kinds))
	defer server.stop()
	sums := make([]costSum, len(kinds))
	defer func() {
		for _, sum := range sums {
			sum.clients.close()
		}
	}()
	for i, kind := range kinds {
		sums[i].clients = connect(b, kind.addr, connections)
		sums[i].clients.drive(b, costRequest(command, body), 2*n) // warms up
	}
	for range max(1, *costRequests/costTurn) {
		// In a fixed order it would always be the same kinds that pay for the garbage.
		for _, i := range rand.Perm(len(kinds)) { //nolint:gosec // an order need not be unguessable
			sums[i].add(b, server, costRequest(command, body), n)
		}
	}
	for i, kind := range kinds {
		samples[kind.name] = append(samples[kind.name], sums[i].sample())
	}
}

// costSum is what one kind used in one round.
type costSum struct {
	clients   costClients
	cpu, wall time.Duration
	mallocs   uint64
	latencies []time.Duration
}

func (s *costSum) add(tb testing.TB, server *process, request []byte, n int) {
	tb.Helper()
	before, start := server.ask(askNothing), time.Now()
	s.latencies = append(s.latencies, s.clients.drive(tb, request, n)...)
	s.wall += time.Since(start)
	after := server.ask(askNothing)
	s.cpu += after.CPU - before.CPU
	s.mallocs += after.Mallocs - before.Mallocs
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

func printCosts(b *testing.B, kinds []costKind, samples map[string][]costSample, size int) {
	b.Helper()
	figures := []struct {
		name string
		of   func(costSample) float64
	}{
		{"CPU µs", func(s costSample) float64 { return s.micros }},
		{"allocs", func(s costSample) float64 { return s.allocs }},
		{"req/s", func(s costSample) float64 { return s.rps }},
		{"p50 µs", func(s costSample) float64 { return s.p50 }},
		{"p99 µs", func(s costSample) float64 { return s.p99 }},
	}
	var table strings.Builder
	fmt.Fprintf(&table, "\n%d bytes      ", size)
	for _, f := range figures {
		fmt.Fprintf(&table, "%9s  ratio", f.name)
	}
	for _, kind := range kinds {
		fmt.Fprintf(&table, "\n%-14s", kind.name)
		for _, f := range figures {
			var own, ratios []float64
			for i, s := range samples[kind.name] {
				own = append(own, f.of(s))
				if kind.baseline != "" {
					ratios = append(ratios, f.of(s)/f.of(samples[kind.baseline][i]))
				}
			}
			fmt.Fprintf(&table, "%9.1f", median(own))
			if kind.baseline == "" {
				table.WriteString("      -")
				continue
			}
			ratio := median(ratios)
			fmt.Fprintf(&table, "  %5.3f", ratio)
			if f.name == "CPU µs" {
				b.ReportMetric(ratio, kind.name+"/"+kind.baseline)
			}
		}
	}
	b.ReportMetric(0, "ns/op") // says nothing here
	fmt.Fprintln(os.Stderr, table.String())
}
