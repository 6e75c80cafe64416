// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/timguard/timguard/caddymodule/outbox"
)

func TestListGetRetryAndDiscard(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		ctx := context.Background()
		o := mustOpen(t, configFor(t, driver))
		for i := range 5 {
			mustPut(t, o, recall(fmt.Sprint(i)))
		}
		items, err := o.List(ctx, outbox.Filter{Limit: 2})
		if err != nil || len(items) != 2 || items[0].Callback.Key != "4" || items[0].State != outbox.Pending || items[0].Due.IsZero() {
			t.Fatalf("items %+v, %v", items, err)
		}
		next, err := o.List(ctx, outbox.Filter{State: outbox.Pending, Limit: 10, Before: items[1].ID})
		if err != nil || len(next) != 3 || next[0].Callback.Key != "2" {
			t.Fatalf("next page %+v, %v", next, err)
		}
		id := next[0].ID
		if it, err := o.Discard(ctx, id); err != nil || it.State != outbox.Discarded {
			t.Errorf("discard: %+v, %v", it, err)
		}
		if mustPut(t, o, recall("2")) {
			t.Error("a discarded event stood in the way of its repetition")
		}
		if _, err := o.Retry(ctx, id, twenty); !errors.Is(err, outbox.ErrState) {
			t.Errorf("retry of an event that was stored again: %v", err)
		}
		if it, err := o.Get(ctx, id); err != nil || it.State != outbox.Discarded || it.Callback.Body != recall("").Body {
			t.Errorf("get: %+v, %v", it, err)
		}
		if count(t, o, outbox.Pending) != 5 || count(t, o, outbox.Discarded) != 1 {
			t.Errorf("%d pending and %d discarded, want 5 and 1", count(t, o, outbox.Pending), count(t, o, outbox.Discarded))
		}
		if age := oldestAge(t, o); age <= 0 || age > time.Minute {
			t.Errorf("oldest age %v", age)
		}
		retry := func(ctx context.Context, id int64) (outbox.Delivery, error) { return o.Retry(ctx, id, twenty) }
		for name, call := range map[string]func(context.Context, int64) (outbox.Delivery, error){"get": o.Get, "retry": retry, "discard": o.Discard} {
			if _, err := call(ctx, 1<<40); !errors.Is(err, outbox.ErrNotFound) {
				t.Errorf("%s of an unknown id: %v", name, err)
			}
		}
		if _, err := o.List(ctx, outbox.Filter{State: "lost"}); err == nil {
			t.Error("no error for an unknown state")
		}
	})
}

func TestRunningAttemptsCannotBeRetriedOrDiscarded(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		ctx := context.Background()
		o := mustOpen(t, configFor(t, driver))
		began, finish := make(chan outbox.Attempt, 1), make(chan struct{})
		mustWork(t, o, func(_ context.Context, d outbox.Attempt) error { began <- d; <-finish; return nil })
		mustPut(t, o, recall("a"))
		d := <-began
		if _, err := o.Retry(ctx, d.ID, twenty); !errors.Is(err, outbox.ErrState) {
			t.Errorf("retry: %v", err)
		}
		if _, err := o.Discard(ctx, d.ID); !errors.Is(err, outbox.ErrState) {
			t.Errorf("discard: %v", err)
		}
		close(finish)
		eventually(t, 10*time.Second, "delivered", func() bool { return count(t, o, outbox.Delivered) == 1 })
		if _, err := o.Discard(ctx, d.ID); !errors.Is(err, outbox.ErrState) {
			t.Errorf("discard of a delivered one: %v", err)
		}
		if age := oldestAge(t, o); age != 0 {
			t.Errorf("oldest age %v", age)
		}
	})
}

func TestRetryResetsTheAttemptsFromEveryState(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		for _, state := range []outbox.State{outbox.Dead, outbox.Discarded, outbox.Delivered} {
			t.Run(string(state), func(t *testing.T) {
				t.Parallel()
				testRetry(t, driver, state)
			})
		}
	})
}

func testRetry(t *testing.T, driver string, state outbox.State) {
	t.Helper()
	const attempts = 2
	all := func(outbox.Queue) outbox.Options { return outbox.Options{MaxAttempts: attempts} }
	ctx := context.Background()
	c := configFor(t, driver)
	c.maxAttempts = attempts
	o := mustOpen(t, c)
	mustPut(t, o, recall("a"))
	items, err := o.List(ctx, outbox.Filter{})
	if err != nil || len(items) != 1 {
		t.Fatal(items, err)
	}
	id := items[0].ID
	if state == outbox.Discarded {
		if _, err := o.Discard(ctx, id); err != nil {
			t.Fatal(err)
		}
	}
	var made atomic.Int64
	var fails atomic.Bool
	fails.Store(state != outbox.Delivered)
	mustWork(t, o, func(context.Context, outbox.Attempt) error {
		made.Add(1)
		if fails.Load() {
			return errors.New("no")
		}
		return nil
	})
	eventually(t, 20*time.Second, string(state), func() bool { return count(t, o, state) == 1 })
	fails.Store(true)
	made.Store(0)
	if d, err := o.Retry(ctx, id, all); err != nil || d.Attempt != 0 || d.MaxAttempts != attempts {
		t.Fatalf("retried as %+v, %v", d, err)
	}
	eventually(t, 20*time.Second, "dead after all attempts", func() bool { return count(t, o, outbox.Dead) == 1 })
	if n := made.Load(); n != attempts {
		t.Errorf("%d attempts after the retry, want %d", n, attempts)
	}
}

func TestFilterNamesHaveNoWildcards(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o := mustOpen(t, configFor(t, driver))
		c := recall("a")
		c.Consumer = "archive"
		mustPut(t, o, c)
		for name, filter := range map[string]outbox.Filter{
			"guard: %":       {Guard: "%"},
			"guard: _":       {Guard: "defaul_"},
			`guard: \`:       {Guard: `\`},
			"consumer: %":    {Consumer: "%"},
			"consumer: _":    {Consumer: "archiv_"},
			`consumer: \`:    {Consumer: `\`},
			"another prefix": {Guard: "def"},
		} {
			if items, err := o.List(context.Background(), filter); err != nil || len(items) != 0 {
				t.Errorf("%s selects %d, %v", name, len(items), err)
			}
		}
		if items, err := o.List(context.Background(), outbox.Filter{Consumer: "archive"}); err != nil || len(items) != 1 {
			t.Errorf("consumer: archive selects %d, %v", len(items), err)
		}
	})
}
