// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package outbox_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/timguard/timguard/caddymodule/outbox"
)

// BenchmarkOrdered measures deliveries per second of stored callbacks.
func BenchmarkOrdered(b *testing.B) {
	for _, driver := range drivers {
		for _, tt := range []struct {
			name          string
			ordered       bool
			conversations int
		}{{"unordered", false, 200}, {"ordered", true, 200}, {"hot", true, 1}} {
			b.Run(driver+"/"+tt.name, func(b *testing.B) {
				c := configFor(b, driver)
				c.ordered = tt.ordered
				o := mustOpen(b, c)
				var wg sync.WaitGroup
				n := 5000
				if tt.conversations == 1 {
					n = 500
				}
				for g := range 50 {
					wg.Go(func() {
						for i := g; i < n; i += 50 {
							mustPut(b, o, of(fmt.Sprintf("@TGS#%d", i%tt.conversations), i))
						}
					})
				}
				wg.Wait()
				done := make(chan struct{}, n)
				start := time.Now()
				mustWork(b, o, func(context.Context, outbox.Attempt) error { done <- struct{}{}; return nil })
				for range n {
					<-done
				}
				b.ReportMetric(float64(n)/time.Since(start).Seconds(), "deliveries/s")
			})
		}
	}
}
