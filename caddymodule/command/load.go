// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package command

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"golang.org/x/term"
	"golang.org/x/time/rate"
)

// load says how many callbacks are sent, and how fast.
type load struct {
	count       int
	concurrency int
	rate        float64 // per second; 0 is unlimited
}

// loadResult summarizes the answers, as printed with --json. The latencies are those of
// requests that were answered.
type loadResult struct {
	Sent      int            `json:"sent"`
	OK        int            `json:"ok"`
	Statuses  map[string]int `json:"statuses"` // by status, or by error if there was no answer
	Seconds   float64        `json:"seconds"`
	PerSecond float64        `json:"per_second"`
	Millis    latencies      `json:"milliseconds"`
}

type latencies struct {
	P50 float64 `json:"p50"`
	P90 float64 `json:"p90"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

func (l *load) run(cmd *cobra.Command, s *sender, asJSON bool) error {
	if _, err := s.target(time.Now()); err != nil {
		return err
	}
	result := l.send(cmd.Context(), s, l.progress(cmd.ErrOrStderr()))
	if err := result.print(cmd.OutOrStdout(), asJSON); err != nil {
		return err
	}
	if result.OK < result.Sent {
		return fmt.Errorf("%d of %d callbacks %s not answered OK", result.Sent-result.OK, result.Sent, plural(result.Sent-result.OK, "was", "were"))
	}
	return nil
}

// progress returns a function to call after each answer.
func (l *load) progress(w io.Writer) (step func()) {
	file, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return func() {}
	}
	bar := progressbar.NewOptions(l.count, progressbar.OptionSetWriter(file), progressbar.OptionShowCount(),
		progressbar.OptionShowIts(), progressbar.OptionClearOnFinish(), progressbar.OptionThrottle(100*time.Millisecond))
	return func() { _ = bar.Add(1) }
}

func (l *load) send(ctx context.Context, s *sender, step func()) loadResult {
	limit := rate.Inf
	if l.rate > 0 {
		limit = rate.Limit(l.rate)
	}
	limiter := rate.NewLimiter(limit, 1)
	jobs := make(chan struct{})
	go func() {
		defer close(jobs)
		for range l.count {
			if limiter.Wait(ctx) != nil {
				return
			}
			select {
			case jobs <- struct{}{}:
			case <-ctx.Done():
				return
			}
		}
	}()
	result := loadResult{Statuses: make(map[string]int)}
	var mu sync.Mutex
	var millis []float64
	var senders sync.WaitGroup
	start := time.Now()
	for range l.concurrency {
		senders.Go(func() {
			for range jobs {
				one, err := s.send(ctx)
				mu.Lock()
				millis = result.add(one, err, millis)
				step()
				mu.Unlock()
			}
		})
	}
	senders.Wait()
	result.finish(time.Since(start), millis)
	return result
}

func (r *loadResult) add(one sendResult, err error, millis []float64) []float64 {
	r.Sent++
	if err != nil {
		r.Statuses[err.Error()]++
		return millis
	}
	r.Statuses[strconv.Itoa(one.Status)]++
	if one.ok() {
		r.OK++
	}
	return append(millis, one.Millis)
}

func (r *loadResult) finish(took time.Duration, millis []float64) {
	r.Seconds = took.Seconds()
	r.PerSecond = float64(r.Sent) / r.Seconds
	if len(millis) == 0 {
		return
	}
	slices.Sort(millis)
	at := func(q float64) float64 { return millis[min(len(millis)-1, int(q*float64(len(millis))))] }
	r.Millis = latencies{P50: at(0.5), P90: at(0.9), P99: at(0.99), Max: millis[len(millis)-1]}
}

func (r *loadResult) print(w io.Writer, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(w).Encode(r)
	}
	fmt.Fprintf(w, "%d sent, %d OK, in %.1f s: %.0f per second\n", r.Sent, r.OK, r.Seconds, r.PerSecond)
	for _, status := range slices.Sorted(maps.Keys(r.Statuses)) {
		fmt.Fprintf(w, "  %6d × %s\n", r.Statuses[status], status)
	}
	fmt.Fprintf(w, "latency: p50 %.1f ms, p90 %.1f ms, p99 %.1f ms, max %.1f ms\n", r.Millis.P50, r.Millis.P90, r.Millis.P99, r.Millis.Max)
	return nil
}
