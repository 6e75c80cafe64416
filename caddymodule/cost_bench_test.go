// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"bufio"
	"flag"
	"fmt"
	"io"
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
	costRequests = flag.Int("timguard.requests", 3000, "requests in each round of BenchmarkCost, for each kind")
)

// costKind is one thing to measure: what a site does with a request.
type costKind struct {
	name     string
	baseline string // the kind to divide by
	handlers string // of the site, as JSON
	signed   bool
	addr     string
}

const (
	costToken = "xxxxyyyy"
	costProxy = `{"handler":"reverse_proxy","upstreams":[{"dial":"%s"}]}`
	costReply = `{"handler":"static_response","status_code":200,"headers":{"Content-Type":["application/json"]},"body":"{\"ActionStatus\":\"OK\",\"ErrorInfo\":\"\",\"ErrorCode\":0}"}`
	costGuard = `{"handler":"tim_callback","app":[{"sdk_app_id":"1400000000"%s}],"on":[{"commands":["after"],"action":"%s"}]}`
)

func costKinds(backend string) []costKind {
	proxy := fmt.Sprintf(costProxy, backend)
	guard := func(tokens, action string) string { return fmt.Sprintf(costGuard, tokens, action) }
	const tokens = `,"tokens":["` + costToken + `"]`
	return []costKind{
		{name: "proxy", handlers: proxy},
		{name: "guarded", baseline: "proxy", handlers: guard("", "forward") + "," + proxy},
		{name: "guarded+Sign", baseline: "proxy", handlers: guard(tokens, "forward") + "," + proxy, signed: true},
		{name: "respond", handlers: costReply},
		{name: "ack", baseline: "respond", handlers: guard("", "ack")},
		{name: "ack+Sign", baseline: "respond", handlers: guard(tokens, "ack"), signed: true},
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
func (k costKind) request(command string, body []byte) []byte {
	q := url.Values{
		"SdkAppid": {"1400000000"}, "CallbackCommand": {command}, "contenttype": {"json"},
		"ClientIP": {"127.0.0.1"}, "OptPlatform": {"RESTAPI"},
	}
	if k.signed {
		now := strconv.FormatInt(time.Now().Unix(), 10)
		q.Set("RequestTime", now)
		q.Set("Sign", callback.Sign(costToken, now))
	}
	return fmt.Appendf(nil, "POST /callback?%s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		q.Encode(), len(body), body)
}

// drive sends the request n times over a few connections, and returns the
// latencies.
func drive(tb testing.TB, addr string, request []byte, n, connections int) []time.Duration {
	tb.Helper()
	var mu sync.Mutex
	var all []time.Duration
	var senders sync.WaitGroup
	for range connections {
		senders.Go(func() {
			took, err := driveOne(addr, request, n/connections)
			if err != nil {
				tb.Error(err)
			}
			mu.Lock()
			all = append(all, took...)
			mu.Unlock()
		})
	}
	senders.Wait()
	if tb.Failed() {
		tb.FailNow()
	}
	slices.Sort(all)
	return all
}

func driveOne(addr string, request []byte, n int) (took []time.Duration, err error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	in := bufio.NewReader(conn)
	for range n {
		start := time.Now()
		if _, err := conn.Write(request); err != nil {
			return nil, err
		}
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			return nil, err
		}
		answer, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("%s: status %d, %s, %w", addr, resp.StatusCode, answer, err)
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
// time of a Caddy in a process of its own, in rounds that take turns, and prints
// each figure with the median of its ratios to the baseline, round by round.
func BenchmarkCost(b *testing.B) {
	backend := httptest.NewServer(http.HandlerFunc(answering))
	defer backend.Close()
	kinds := costKinds(strings.TrimPrefix(backend.URL, "http://"))
	server := startProcess(b, costConfig(b, kinds))
	for _, size := range []int{230, 64 << 10} {
		b.Run(fmt.Sprintf("%dB", size), func(b *testing.B) {
			samples := measureCosts(b, server, kinds, size)
			printCosts(b, kinds, samples, size)
		})
	}
}

func measureCosts(b *testing.B, server *process, kinds []costKind, size int) map[string][]costSample {
	b.Helper()
	const connections = 4
	command, body := costBody(size)
	n := *costRequests
	if size > 1000 {
		n /= 4
	}
	samples := make(map[string][]costSample)
	for round := -1; round < *costRounds; round++ { // the first one warms up
		for _, kind := range kinds {
			request := kind.request(command, body)
			before, start := server.ask(askNothing), time.Now()
			took := drive(b, kind.addr, request, n, connections)
			wall, after := time.Since(start), server.ask(askNothing)
			if round < 0 {
				continue
			}
			sent := float64(len(took))
			samples[kind.name] = append(samples[kind.name], costSample{
				micros: float64((after.CPU - before.CPU).Microseconds()) / sent,
				allocs: float64(after.Mallocs-before.Mallocs) / sent,
				rps:    sent / wall.Seconds(),
				p50:    float64(took[len(took)/2].Microseconds()), p99: float64(took[len(took)*99/100].Microseconds()),
			})
		}
	}
	return samples
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
