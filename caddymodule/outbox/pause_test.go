// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package outbox_test

import (
	"context"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/timguard/timguard/caddymodule/outbox"
)

func TestPausedQueuesBeginNoAttempts(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		ctx := context.Background()
		c := configFor(t, driver)
		o := mustOpen(t, c)
		q := outbox.Queue{Guard: "default"}
		if err := o.Pause(ctx, q); err != nil { // before any process has worked it
			t.Fatal(err)
		}
		var attempts atomic.Int64
		deliver := func(context.Context, outbox.Attempt) error { attempts.Add(1); return nil }
		w := mustWork(t, o, deliver)
		mustPut(t, o, recall("a"))
		time.Sleep(500 * time.Millisecond)
		stop(t, w)
		o.Close()

		o = mustOpen(t, c)
		mustWork(t, o, deliver)
		time.Sleep(500 * time.Millisecond)
		if paused, err := o.Paused(ctx); err != nil || !slices.Equal(paused, []outbox.Queue{q}) || attempts.Load() > 0 {
			t.Errorf("paused %v, %v; %d attempts, also after a restart", paused, err, attempts.Load())
		}
		if err := o.Resume(ctx, q); err != nil {
			t.Fatal(err)
		}
		eventually(t, 10*time.Second, "an attempt after the pause", func() bool { return attempts.Load() == 1 })
		if err := o.Pause(ctx, q); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second) // workers notice by polling
		mustPut(t, o, recall("b"))
		time.Sleep(500 * time.Millisecond)
		if n := attempts.Load(); n != 1 {
			t.Errorf("%d attempts, want none in the second pause", n-1)
		}
	})
}

// Workers fetch as many callbacks as there are workers. Those that wait for their queue's rate
// when it is paused go back into the queue, and do not count.
func TestPausedQueuesBeginNoAttemptsThatWaitForTheirRate(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		ctx := context.Background()
		o := mustOpen(t, configFor(t, driver))
		var attempts, counted atomic.Int64
		deliver := func(_ context.Context, a outbox.Attempt) error {
			attempts.Add(1)
			counted.Add(int64(a.Attempt))
			return nil
		}
		const all = 6
		for n := range all {
			mustPut(t, o, recall(strconv.Itoa(n)))
		}
		q := outbox.Queue{Guard: "default"}
		config := outbox.QueueConfig{Deliver: deliver, Workers: all, Timeout: time.Second, Rate: 1}
		if _, err := o.Work(outbox.WorkConfig{Queues: map[outbox.Queue]outbox.QueueConfig{q: config}, Keep: time.Hour, KeepDead: time.Hour}); err != nil {
			t.Fatal(err)
		}
		eventually(t, 10*time.Second, "all are fetched", func() bool { return attempts.Load() == 1 && count(t, o, outbox.Running) >= all-2 })
		if err := o.Pause(ctx, q); err != nil {
			t.Fatal(err)
		}
		before := attempts.Load()
		eventually(t, 20*time.Second, "all have gone back", func() bool { return count(t, o, outbox.Running) == 0 })
		if n := attempts.Load() - before; n > 1 { // one may just have been beginning
			t.Errorf("%d attempts began in the pause", n)
		}
		if err := o.Resume(ctx, q); err != nil {
			t.Fatal(err)
		}
		eventually(t, 20*time.Second, "the others are attempted", func() bool { return attempts.Load() == all })
		if counted.Load() != all {
			t.Errorf("the numbers of %d first attempts have the sum %d", all, counted.Load())
		}
	})
}

func stop(t *testing.T, w *outbox.Workers) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := w.Stop(ctx); err != nil {
		t.Fatal(err)
	}
}
