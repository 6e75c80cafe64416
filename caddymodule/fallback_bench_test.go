// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"testing"
	"time"
)

// BenchmarkVerdictOverrun measures by how much answers exceed a deadline of one second,
// and the latency of the slowest call, with a hanging backend: 1,000 calls, 50 of them
// concurrently.
func BenchmarkVerdictOverrun(b *testing.B) {
	const deadline = time.Second
	for name, behind := range map[string]func(*testing.B) *guardedServer{
		"proxy": func(b *testing.B) *guardedServer {
			b.Helper()
			return serve(b, fallbackRules(deadline)+"\nreverse_proxy "+wireBackend(b, untilClosed), nil)
		},
	} {
		b.Run(name, func(b *testing.B) {
			s := behind(b)
			const calls = 1000
			for b.Loop() {
				took := hangingCalls(b, s.address, calls, 50, `{"ActionStatus":"OK","ErrorInfo":"not \"now\"","ErrorCode":10123}`)
				overrun := func(i int) float64 { return float64((took[i] - deadline).Microseconds()) / 1000 }
				b.ReportMetric(overrun(calls/2), "p50-overrun-ms")
				b.ReportMetric(overrun(calls*99/100), "p99-overrun-ms")
				b.ReportMetric(overrun(calls-1), "max-overrun-ms")
			}
		})
	}
}
