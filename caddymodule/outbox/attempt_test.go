// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/timguard/timguard/caddymodule/outbox"
)

// workOne starts workers for the queue of the guard "default".
func workOne(t *testing.T, o *opened, q outbox.QueueConfig) {
	t.Helper()
	c := outbox.WorkConfig{Queues: map[outbox.Queue]outbox.QueueConfig{{Guard: "default"}: q}, Keep: time.Hour, KeepDead: time.Hour}
	if _, err := o.Work(c); err != nil {
		t.Fatal(err)
	}
}

// An attempt that does not heed the end of its context has failed all the same. The others
// are made.
func TestAnAttemptEndsAtItsTimeout(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o := mustOpen(t, configFor(t, driver))
		release := make(chan struct{})
		workOne(t, o, outbox.QueueConfig{Workers: 2, Timeout: 300 * time.Millisecond, Deliver: func(_ context.Context, a outbox.Attempt) error {
			if a.Key == "hangs" && a.Attempt == 1 {
				<-release
			}
			return nil
		}})
		mustPut(t, o, recall("hangs"))
		eventually(t, 10*time.Second, "it is abandoned", func() bool { return o.Abandoned() == 1 })
		eventually(t, 10*time.Second, "it is to be repeated", func() bool { return count(t, o, outbox.Running) == 0 })
		items, err := o.List(context.Background(), outbox.Filter{})
		if err != nil || len(items) != 1 || len(items[0].Failures) != 1 || !strings.Contains(items[0].Failures[0].Error, "no answer within 300ms") {
			t.Errorf("%+v, %v", items, err)
		}
		mustPut(t, o, recall("other"))
		eventually(t, 10*time.Second, "both are delivered", func() bool { return count(t, o, outbox.Delivered) == 2 })
		close(release)
		eventually(t, 10*time.Second, "none is abandoned any longer", func() bool { return o.Abandoned() == 0 })
	})
}

// A queue of which as many attempts hang as it has workers begins none until one ends, and
// counts nothing meanwhile.
func TestAQueueWaitsWhileAllItsWorkersHang(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		c := configFor(t, driver)
		var log buffer
		c.logger = log.logger()
		o := mustOpen(t, c)
		release := make(chan struct{})
		var begun atomic.Int64
		workOne(t, o, outbox.QueueConfig{Workers: 2, Timeout: 200 * time.Millisecond, Deliver: func(context.Context, outbox.Attempt) error {
			begun.Add(1)
			<-release
			return nil
		}})
		for i := range 6 {
			mustPut(t, o, recall(fmt.Sprint(i)))
		}
		eventually(t, 10*time.Second, "two hang", func() bool { return o.Abandoned() >= 2 })
		time.Sleep(7 * time.Second) // longer than an attempt waits for room
		hung := begun.Load()
		if hung < 2 || hung > 3 { // one may have begun before the last worker was found to hang
			t.Errorf("%d attempts have begun, want 2, or 3 at most", hung)
		}
		if !strings.Contains(log.String(), "as many attempts hang as the queue has workers") {
			t.Errorf("the log does not say why: %s", log.String())
		}
		close(release)
		eventually(t, 20*time.Second, "all are delivered", func() bool { return count(t, o, outbox.Delivered) == 6 })
		items, err := o.List(context.Background(), outbox.Filter{})
		if err != nil {
			t.Fatal(err)
		}
		failures := 0
		for _, d := range items {
			failures += len(d.Failures)
		}
		if int64(failures) != hung {
			t.Errorf("%d failures are listed, want those of the %d that hung", failures, hung)
		}
	})
}

func TestABackendThatAsksToWaitIsNotCalledBefore(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o := mustOpen(t, configFor(t, driver))
		var mu sync.Mutex
		at := make(map[int]time.Time)
		workOne(t, o, outbox.QueueConfig{Workers: 2, Timeout: time.Second, Deliver: func(_ context.Context, a outbox.Attempt) error {
			mu.Lock()
			defer mu.Unlock()
			at[a.Attempt] = time.Now()
			if a.Attempt == 1 {
				return &outbox.LaterError{Err: errors.New("busy"), After: 4 * time.Second}
			}
			return nil
		}})
		mustPut(t, o, recall("a"))
		eventually(t, 20*time.Second, "delivered", func() bool { return count(t, o, outbox.Delivered) == 1 })
		mu.Lock()
		defer mu.Unlock()
		if waited := at[2].Sub(at[1]); waited < 4*time.Second {
			t.Errorf("it was called again after %s", waited)
		}
		items, err := o.List(context.Background(), outbox.Filter{})
		if err != nil || items[0].Failures[0].Error != "busy" {
			t.Errorf("%+v, %v", items, err)
		}
	})
}

func TestAttemptsAreMadeAtTheRateOfTheQueue(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o := mustOpen(t, configFor(t, driver))
		for i := range 21 {
			mustPut(t, o, recall(fmt.Sprint(i)))
		}
		start := time.Now()
		workOne(t, o, outbox.QueueConfig{Workers: 8, Timeout: 100 * time.Millisecond, Rate: 10, Deliver: func(context.Context, outbox.Attempt) error { return nil }})
		eventually(t, 20*time.Second, "all are delivered", func() bool { return count(t, o, outbox.Delivered) == 21 })
		if took := time.Since(start); took < 1900*time.Millisecond {
			t.Errorf("21 at 10/s took %s", took)
		}
		items, err := o.List(context.Background(), outbox.Filter{})
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range items {
			if len(d.Failures) > 0 || d.Attempt != 1 {
				t.Errorf("waiting counts as an attempt: %+v", d)
			}
		}
	})
}

// A client's ID tells the others how long its attempts may take.
func TestClientIDsSayHowLongAttemptsMayTake(t *testing.T) {
	t.Parallel()
	for _, longest := range []time.Duration{time.Second, 30 * time.Minute} {
		if got := outbox.DurationOf(outbox.NewClientID(longest)); got != longest+outbox.RescueSlack {
			t.Errorf("%s became %s", longest, got)
		}
	}
	for _, other := range []string{"", "host_2026_11_26T10_00_00", "a/b"} {
		if got := outbox.DurationOf(other); got != 0 {
			t.Errorf("%q: %s", other, got)
		}
	}
}
