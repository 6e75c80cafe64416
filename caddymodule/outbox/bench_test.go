// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package outbox_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/timguard/timguard/caddymodule/outbox"
)

// BenchmarkPut measures how many callbacks per second are stored durably, and how long
// Put takes, with and without concurrent deliveries to a fast backend.
func BenchmarkPut(b *testing.B) {
	for _, driver := range drivers {
		for _, delivering := range []bool{false, true} {
			for _, senders := range []int{1, 16, 128} {
				b.Run(fmt.Sprintf("%s/delivering=%v/senders=%d", driver, delivering, senders), func(b *testing.B) {
					benchmarkPut(b, driver, delivering, senders)
				})
			}
		}
	}
}

func benchmarkPut(b *testing.B, driver string, delivering bool, senders int) {
	o := mustOpen(b, configFor(b, driver))
	var delivered atomic.Int64
	if delivering {
		mustWork(b, o, func(context.Context, outbox.Attempt) error {
			delivered.Add(1)
			time.Sleep(time.Millisecond)
			return nil
		})
		eventually(b, 10*time.Second, "a first delivery", func() bool {
			mustPut(b, o, recall(""))
			return delivered.Load() > 0
		})
	}
	var next atomic.Int64
	took := make([][]time.Duration, senders)
	var wg sync.WaitGroup
	before := delivered.Load()
	b.ResetTimer()
	for s := range senders {
		wg.Go(func() {
			for n := next.Add(1); n <= int64(b.N); n = next.Add(1) {
				c := recall(fmt.Sprint("event-", n))
				start := time.Now()
				if _, err := o.put(context.Background(), c); err != nil {
					b.Error(err)
					return
				}
				took[s] = append(took[s], time.Since(start))
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
	if delivering {
		b.ReportMetric(float64(delivered.Load()-before)/b.Elapsed().Seconds(), "deliveries/s")
	}
	b.ReportMetric(0, "ns/op")
}

// BenchmarkDeliver measures how fast a backlog is delivered to a fast backend.
func BenchmarkDeliver(b *testing.B) {
	for _, driver := range drivers {
		b.Run(driver, func(b *testing.B) {
			o := mustOpen(b, configFor(b, driver))
			var wg sync.WaitGroup
			var next, delivered atomic.Int64
			for range 128 {
				wg.Go(func() {
					for next.Add(1) <= int64(b.N) {
						mustPut(b, o, recall(""))
					}
				})
			}
			wg.Wait()
			b.ResetTimer()
			mustWork(b, o, func(context.Context, outbox.Attempt) error {
				delivered.Add(1)
				time.Sleep(time.Millisecond)
				return nil
			})
			eventually(b, time.Minute, "drained", func() bool { return delivered.Load() >= int64(b.N) })
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "deliveries/s")
			b.ReportMetric(0, "ns/op")
		})
	}
}
