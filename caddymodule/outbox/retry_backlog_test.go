// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/timguard/timguard/caddymodule/outbox"
)

// A backend that has refused for long leaves many deliveries that come due at about
// the same time. They do not hold up callbacks that come in, nor other deliveries.
func TestRetriesThatComeDueTogetherHoldUpNobody(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o := mustOpen(t, configFor(t, driver))
		all := putMany(t, o, 5000)
		due := "now() + interval '3s'"
		if driver == "sqlite" {
			due = "datetime('now', 'subsec', '+3 seconds')"
		}
		if err := o.Exec(context.Background(), "UPDATE river_job SET state = 'retryable', attempt = 5, scheduled_at = "+due); err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		tried := make(map[string]bool)
		mustWork(t, o, func(_ context.Context, a outbox.Attempt) error {
			mu.Lock()
			defer mu.Unlock()
			tried[a.Key] = true
			return nil
		})
		slowest := time.Duration(0)
		for start := time.Now(); time.Since(start) < 10*time.Second; time.Sleep(20 * time.Millisecond) {
			began := time.Now()
			mustPut(t, o, recall(fmt.Sprint("new-", began)))
			slowest = max(slowest, time.Since(began))
		}
		t.Logf("storing took %s at most", slowest)
		if slowest > 1500*time.Millisecond {
			t.Error("those who store waited")
		}
		eventually(t, time.Minute, "all are tried again", func() bool {
			mu.Lock()
			defer mu.Unlock()
			for _, c := range all {
				if !tried[c.Key] {
					return false
				}
			}
			return true
		})
	})
}

// A backend that is down is offered fewer attempts than its deliveries are due for,
// and everything soon after it is up again.
func TestABackendThatIsDownIsThrottled(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o := mustOpen(t, configFor(t, driver))
		const callbacks = 1000
		putMany(t, o, callbacks)
		var attempts, delivered atomic.Int64
		var well atomic.Bool
		mustWork(t, o, func(context.Context, outbox.Attempt) error {
			attempts.Add(1)
			if !well.Load() {
				return errors.New("down")
			}
			delivered.Add(1)
			return nil
		})
		time.Sleep(5 * time.Second)
		if n := attempts.Load(); n < 64 || n > 600 {
			t.Errorf("%d attempts in 5s", n)
		}
		well.Store(true)
		start := time.Now()
		eventually(t, 30*time.Second, "all are delivered", func() bool { return delivered.Load() == callbacks })
		t.Logf("%d attempts failed; all were delivered %s after the backend was up again", attempts.Load()-callbacks, time.Since(start))
	})
}

// putMany stores so many callbacks, a multiple of 500.
func putMany(t *testing.T, o *opened, n int) (all []outbox.Callback) {
	t.Helper()
	for i := range n {
		all = append(all, recall(fmt.Sprint("many-", i)))
	}
	for i := 0; i < n; i += 500 {
		if _, err := o.put(context.Background(), all[i:i+500]...); err != nil {
			t.Fatal(err)
		}
	}
	return all
}
