// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/timguard/timguard/caddymodule/callback"
	"github.com/timguard/timguard/caddymodule/internal/guardtest"
)

// eachStoreOf runs the benchmark once for each store, given the option that chooses it.
func eachStoreOf(b *testing.B, benchmark func(b *testing.B, name string, option func() string)) {
	b.Helper()
	benchmark(b, "sqlite", func() string { return "" })
	benchmark(b, "postgres", func() string { return storeInPostgres(b) })
}

// benchmarked is a site in this process, whose backend is fast and in this process too, so
// that the work of both is included.
type benchmarked struct {
	*guardtest.Site
	arrived atomic.Int64 // requests at the backend
}

// newBenchmarked loads a site with the subdirectives, in which [backend] is the address of
// the backend.
func newBenchmarked(b *testing.B, store string, subdirectives ...string) *benchmarked {
	b.Helper()
	s := new(benchmarked)
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		s.arrived.Add(1)
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, guardtest.OKJSON)
	}))
	b.Cleanup(backend.Close)
	s.Site = guardtest.NewSite(b, strings.ReplaceAll(guardtest.Guard(subdirectives...), "[backend]", backend.Listener.Addr().String()))
	s.Admin, s.Logs, s.Options = "off", "ERROR", store
	load(b, s.Site)
	b.Cleanup(func() {
		if err := caddy.Stop(); err != nil {
			b.Error(err)
		}
		guardtest.Eventually(b, 30*time.Second, "the store is closed", func() bool { return len(openStores()) == 0 })
	})
	return s
}

// post posts so many recalls over keep-alive connections, each when it is due, and returns
// how long the answers took, in order.
func (s *benchmarked) post(b *testing.B, connections int, total int64, due func(n int64) time.Time) []time.Duration {
	b.Helper()
	var next atomic.Int64
	var wg sync.WaitGroup
	took := make([][]time.Duration, connections)
	for i := range connections {
		conn, err := net.Dial("tcp", s.Listen)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = conn.Close() })
		wg.Go(func() {
			buf := make([]byte, 4096)
			for n := next.Add(1); n <= total; n = next.Add(1) {
				time.Sleep(time.Until(due(n)))
				request, start := wireEvent(s.Listen, fmt.Sprint(n)), time.Now()
				if answer, err := exchange(conn, request, buf); err != nil || !bytes.HasSuffix(answer, []byte(guardtest.OKJSON)) {
					b.Errorf("answer %s, %v", answer, err)
					return
				}
				took[i] = append(took[i], time.Since(start))
			}
		})
	}
	wg.Wait()
	all := slices.Concat(took...)
	slices.Sort(all)
	return all
}

// atOnce is when what is sent as fast as possible is due.
func atOnce(int64) time.Time { return time.Time{} }

// atRate returns when what is sent at a rate per second from now on is due.
func atRate(rate int) func(n int64) time.Time {
	start := time.Now()
	return func(n int64) time.Time { return start.Add(time.Duration(n) * time.Second / time.Duration(rate)) }
}

func reportLatency(b *testing.B, took []time.Duration) {
	b.Helper()
	ms := func(q float64) float64 { return float64(took[int(q*float64(len(took)-1))]) / 1e6 }
	b.ReportMetric(ms(0.50), "p50-ms")
	b.ReportMetric(ms(0.99), "p99-ms")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkDeliverHTTP measures how many callbacks per second are stored durably and
// answered OK, while the backend receives deliveries, and the latency of the answers.
func BenchmarkDeliverHTTP(b *testing.B) {
	eachStoreOf(b, func(b *testing.B, name string, option func() string) {
		b.Helper()
		for _, connections := range []int{1, 16, 128} {
			b.Run(fmt.Sprintf("%s/senders=%d", name, connections), func(b *testing.B) {
				s := newBenchmarked(b, option(), "on after deliver", "backend [backend]")
				s.post(b, 1, 1, atOnce)
				guardtest.Eventually(b, 10*time.Second, "a first delivery", func() bool { return s.arrived.Load() > 0 })
				b.ResetTimer()
				took := s.post(b, connections, int64(b.N), atOnce)
				b.StopTimer()
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "acks/s")
				b.ReportMetric(float64(s.arrived.Load()-1)/b.Elapsed().Seconds(), "deliveries/s")
				reportLatency(b, took)
			})
		}
	})
}

// sustainedFor is how long a rate is sustained.
var sustainedFor = flag.Duration("timguard.sustained", 5*time.Second, "how long BenchmarkSustained holds each rate")

// BenchmarkSustained posts callbacks at a fixed rate, and reports how many have not been
// delivered at the end. At a sustainable rate, these are only the ones in flight.
//
//	go test -run '^$' -bench Sustained -benchtime 1x ./caddymodule/delivery -timguard.sustained 30s
func BenchmarkSustained(b *testing.B) {
	eachStoreOf(b, func(b *testing.B, name string, option func() string) {
		b.Helper()
		for _, rate := range []int{1000, 1500, 2000} {
			b.Run(fmt.Sprintf("%s/rate=%d", name, rate), func(b *testing.B) {
				s := newBenchmarked(b, option(), "on after deliver", "backend [backend]")
				total, start := int64(sustainedFor.Seconds()*float64(rate)), time.Now()
				took := s.post(b, 64, total, atRate(rate))
				elapsed, backlog := time.Since(start), total-s.arrived.Load()
				guardtest.Eventually(b, time.Minute, "all are delivered", func() bool { return s.arrived.Load() >= total })
				b.ReportMetric(float64(total)/elapsed.Seconds(), "answered/s")
				b.ReportMetric(float64(backlog), "backlog")
				reportLatency(b, took)
			})
		}
	})
}

// wireEvent returns a recall as it goes over the wire.
func wireEvent(host, id string) []byte {
	body := guardtest.Event(id)
	return fmt.Appendf(nil, "POST /callback?%s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		guardtest.Query(guardtest.App, callback.RecallCommand, guardtest.Signed(guardtest.Token, time.Now())), host, len(body), body)
}

// exchange sends a request and returns the answer, which ends with a brace.
func exchange(conn net.Conn, request, buf []byte) (answer []byte, err error) {
	if _, err := conn.Write(request); err != nil {
		return nil, err
	}
	n := 0
	for !bytes.HasSuffix(buf[:n], []byte("}")) {
		m, err := conn.Read(buf[n:])
		if n += m; err != nil {
			return buf[:n], err
		}
	}
	return buf[:n], nil
}
