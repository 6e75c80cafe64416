// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/timguard/timguard/caddymodule/internal/guardtest"
)

// BenchmarkCopy posts at a fixed rate what is forwarded, with copies for so many
// consumers, and prints how long the answer takes, which is after the commit, and the
// CPU time of a callback until all of its copies are delivered. What sends and the
// backends are in the same process, and their work counts.
//
//	go test -run '^$' -bench Copy -benchtime 5000x ./caddymodule/delivery
func BenchmarkCopy(b *testing.B) {
	for name, store := range map[string]func() string{
		"sqlite":   func() string { return "" },
		"postgres": func() string { return storeInPostgres(b) },
	} {
		for copies := range 4 {
			b.Run(fmt.Sprintf("%s/copies=%d", name, copies), func(b *testing.B) {
				rule := "on after forward"
				if copies > 0 {
					rule += " {\ncopy " + strings.Join([]string{"a", "b", "c"}[:copies], " ") + "\n}"
				}
				benchmarkCopy(b, store(), rule, int64(copies+1))
			})
		}
	}
}

func benchmarkCopy(b *testing.B, store, rule string, arrivals int64) {
	b.Helper()
	var arrived atomic.Int64
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		arrived.Add(1)
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, guardtest.OKJSON)
	}))
	b.Cleanup(backend.Close)
	s := newDeliverySite(b, guardtest.Guard(rule)+"\nreverse_proxy "+backend.Listener.Addr().String())
	s.admin, s.logs, s.options = "off", "ERROR", store
	s.load(b)
	b.Cleanup(func() {
		if err := caddy.Stop(); err != nil {
			b.Error(err)
		}
		eventually(b, 30*time.Second, "the store is closed", func() bool { return len(openStores()) == 0 })
	})
	const senders = 16
	took := make([][]time.Duration, senders)
	var next atomic.Int64
	var wg sync.WaitGroup
	cpu, start := cpuTime(), time.Now()
	b.ResetTimer()
	for i := range senders {
		conn, err := net.Dial("tcp", s.listen)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = conn.Close() })
		wg.Go(func() {
			buf := make([]byte, 4096)
			for n := next.Add(1); n <= int64(b.N); n = next.Add(1) {
				time.Sleep(time.Until(start.Add(time.Duration(n) * time.Second / time.Duration(consumersRate()))))
				request, began := wireEvent(s.listen, fmt.Sprint(n)), time.Now()
				if answer, err := exchange(conn, request, buf); err != nil || !bytes.HasSuffix(answer, []byte(guardtest.OKJSON)) {
					b.Errorf("answer %s, %v", answer, err)
					return
				}
				took[i] = append(took[i], time.Since(began))
			}
		})
	}
	wg.Wait()
	eventually(b, time.Minute, "all arrive", func() bool { return arrived.Load() >= int64(b.N)*arrivals })
	b.StopTimer()
	all := slices.Concat(took...)
	slices.Sort(all)
	ms := func(q float64) float64 { return float64(all[int(q*float64(len(all)-1))]) / 1e6 }
	b.ReportMetric(ms(0.50), "p50-ms")
	b.ReportMetric(ms(0.99), "p99-ms")
	b.ReportMetric(float64((cpuTime()-cpu).Microseconds())/float64(b.N), "cpu-µs")
	b.ReportMetric(0, "ns/op")
}

// cpuTime is what this process has used.
func cpuTime() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		panic(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
