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
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/timguard/timguard/caddymodule/callback"
	"github.com/timguard/timguard/caddymodule/internal/guardtest"
)

// BenchmarkDeliverHTTP measures how many callbacks per second are stored durably and
// answered OK, over keep-alive connections and while a fast backend receives
// deliveries, and the latency of the answers. Senders and backend run in the same
// process, and their work is included.
func BenchmarkDeliverHTTP(b *testing.B) {
	for name, store := range map[string]func() string{
		"sqlite":   func() string { return "" },
		"postgres": func() string { return "store postgres " + postgresDSN(b, "") },
	} {
		for _, senders := range []int{1, 16, 128} {
			b.Run(fmt.Sprintf("%s/senders=%d", name, senders), func(b *testing.B) {
				benchmarkDeliverHTTP(b, store(), senders)
			})
		}
	}
}

func benchmarkDeliverHTTP(b *testing.B, store string, senders int) {
	b.Helper()
	var delivered atomic.Int64
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		delivered.Add(1)
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, guardtest.OKJSON)
	}))
	b.Cleanup(backend.Close)
	s := newDeliverySite(b, guardtest.Guard("on after deliver")+"\nreverse_proxy "+backend.Listener.Addr().String())
	s.admin, s.logs, s.options = "off", "ERROR", store
	s.load(b)
	b.Cleanup(func() {
		if err := caddy.Stop(); err != nil {
			b.Error(err)
		}
		eventually(b, 30*time.Second, "the store is closed", func() bool { return len(openStores()) == 0 })
	})
	conns := make([]net.Conn, senders)
	for i := range conns {
		conn, err := net.Dial("tcp", s.listen)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = conn.Close() })
		conns[i] = conn
	}
	// Deliveries go on from the beginning.
	if _, err := exchange(conns[0], wireEvent(s.listen, "first"), make([]byte, 4096)); err != nil {
		b.Fatal(err)
	}
	eventually(b, 10*time.Second, "a first delivery", func() bool { return delivered.Load() > 0 })

	var next atomic.Int64
	took := make([][]time.Duration, senders)
	var wg sync.WaitGroup
	b.ResetTimer()
	for i, conn := range conns {
		wg.Go(func() {
			buf := make([]byte, 4096)
			for n := next.Add(1); n <= int64(b.N); n = next.Add(1) {
				request := wireEvent(s.listen, fmt.Sprint(n))
				start := time.Now()
				if answer, err := exchange(conn, request, buf); err != nil || !bytes.HasSuffix(answer, []byte(guardtest.OKJSON)) {
					b.Errorf("answer %s, %v", answer, err)
					return
				}
				took[i] = append(took[i], time.Since(start))
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	all := slices.Concat(took...)
	slices.Sort(all)
	ms := func(q float64) float64 { return float64(all[int(q*float64(len(all)-1))]) / 1e6 }
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "acks/s")
	b.ReportMetric(ms(0.50), "p50-ms")
	b.ReportMetric(ms(0.99), "p99-ms")
	b.ReportMetric(float64(delivered.Load()-1)/b.Elapsed().Seconds(), "deliveries/s")
	b.ReportMetric(0, "ns/op")
}

// sustainedFor is how long a rate is sustained.
var sustainedFor = flag.Duration("timguard.sustained", 5*time.Second, "how long BenchmarkSustained holds each rate")

// BenchmarkSustained posts callbacks at a fixed rate while a fast backend receives
// deliveries, and prints how many have not been delivered at the end. At a sustainable
// rate, these are only the ones in flight. Senders and backend run on the same machine.
//
//	go test -run '^$' -bench Sustained -benchtime 1x ./caddymodule/delivery -timguard.sustained 30s
func BenchmarkSustained(b *testing.B) {
	for name, store := range map[string]func() string{
		"sqlite":   func() string { return "" },
		"postgres": func() string { return "store postgres " + postgresDSN(b, "") },
	} {
		for _, rate := range []int{1000, 1250, 1500, 1750, 2000} {
			b.Run(fmt.Sprintf("%s/rate=%d", name, rate), func(b *testing.B) {
				benchmarkSustained(b, store(), rate)
			})
		}
	}
}

func benchmarkSustained(b *testing.B, store string, rate int) {
	b.Helper()
	var delivered atomic.Int64
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		delivered.Add(1)
		_, _ = io.WriteString(w, guardtest.OKJSON)
	}))
	b.Cleanup(backend.Close)
	s := newDeliverySite(b, guardtest.Guard("on after deliver")+"\nreverse_proxy "+backend.Listener.Addr().String())
	s.logs, s.options = "ERROR", store
	s.load(b)
	b.Cleanup(func() {
		if err := caddy.Stop(); err != nil {
			b.Error(err)
		}
	})
	total := int64(sustainedFor.Seconds() * float64(rate))
	var next, late atomic.Int64
	var senders sync.WaitGroup
	start := time.Now()
	for range 64 {
		conn, err := net.Dial("tcp", s.listen)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = conn.Close() })
		senders.Go(func() {
			buf := make([]byte, 4096)
			for n := next.Add(1); n <= total; n = next.Add(1) {
				due := start.Add(time.Duration(n) * time.Second / time.Duration(rate))
				time.Sleep(time.Until(due))
				if time.Since(due) > time.Second {
					late.Add(1)
				}
				if answer, err := exchange(conn, wireEvent(s.listen, fmt.Sprint(n)), buf); err != nil || !bytes.HasSuffix(answer, []byte(guardtest.OKJSON)) {
					b.Errorf("answer %s, %v", answer, err)
					return
				}
			}
		})
	}
	senders.Wait()
	took, backlog := time.Since(start), total-delivered.Load()
	eventually(b, time.Minute, "all are delivered", func() bool { return delivered.Load() >= total })
	b.ReportMetric(float64(total)/took.Seconds(), "answered/s")
	b.ReportMetric(float64(backlog), "backlog")
	b.ReportMetric(float64(backlog)/float64(rate)*1000, "backlog-ms")
	b.ReportMetric(float64(late.Load()), "sent-late")
	b.ReportMetric(0, "ns/op")
}

// wireEvent returns a recall as it goes over the wire.
func wireEvent(host, id string) []byte {
	body := event(id)
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
