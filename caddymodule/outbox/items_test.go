// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package outbox

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"
)

func TestOperatorsSeeAndChangeWhatIsStored(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		ctx := context.Background()
		o := mustOpen(t, configFor(t, driver))
		for i := range 5 {
			mustPut(t, o, recall(fmt.Sprint(i)))
		}
		items, err := o.List(ctx, Filter{Limit: 2})
		if err != nil || len(items) != 2 || items[0].Callback.Key != "4" || items[0].State != Pending || items[0].Due.IsZero() {
			t.Fatalf("items %+v, %v", items, err)
		}
		next, err := o.List(ctx, Filter{State: Pending, Limit: 10, Before: items[1].ID})
		if err != nil || len(next) != 3 || next[0].Callback.Key != "2" {
			t.Fatalf("next page %+v, %v", next, err)
		}
		id := next[0].ID
		if it, err := o.Discard(ctx, id); err != nil || it.State != Discarded {
			t.Errorf("discard: %+v, %v", it, err)
		}
		if mustPut(t, o, recall("2")) {
			t.Error("a discarded event stood in the way of its repetition")
		}
		if _, err := o.Retry(ctx, id); !errors.Is(err, ErrState) {
			t.Errorf("retry of an event stored anew: %v", err)
		}
		if it, err := o.Get(ctx, id); err != nil || it.State != Discarded || it.Callback.Body != recall("").Body {
			t.Errorf("get: %+v, %v", it, err)
		}
		s, err := o.Stats(ctx)
		if err != nil || s.Count[Pending] != 5 || s.Count[Discarded] != 1 || len(s.Count) != len(States()) {
			t.Errorf("stats %+v, %v", s, err)
		}
		if s.OldestAge <= 0 || s.OldestAge > time.Minute {
			t.Errorf("oldest age %v", s.OldestAge)
		}
		for name, call := range map[string]func(context.Context, int64) (Item, error){"get": o.Get, "retry": o.Retry, "discard": o.Discard} {
			if _, err := call(ctx, 1<<40); !errors.Is(err, ErrNotFound) {
				t.Errorf("%s of an unknown id: %v", name, err)
			}
		}
		if _, err := o.List(ctx, Filter{State: "lost"}); err == nil {
			t.Error("no error for an unknown state")
		}
	})
}

func TestARunningAttemptIsLeftAlone(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		ctx := context.Background()
		o := mustOpen(t, configFor(t, driver))
		began, finish := make(chan Delivery, 1), make(chan struct{})
		mustWork(t, o, func(_ context.Context, d Delivery) error { began <- d; <-finish; return nil })
		mustPut(t, o, recall("a"))
		d := <-began
		if _, err := o.Retry(ctx, d.ID); !errors.Is(err, ErrState) {
			t.Errorf("retry: %v", err)
		}
		if _, err := o.Discard(ctx, d.ID); !errors.Is(err, ErrState) {
			t.Errorf("discard: %v", err)
		}
		close(finish)
		eventually(t, 10*time.Second, "delivered", func() bool { return count(t, o, Delivered) == 1 })
		if _, err := o.Discard(ctx, d.ID); !errors.Is(err, ErrState) {
			t.Errorf("discard of a delivered one: %v", err)
		}
		if s, err := o.Stats(ctx); err != nil || s.OldestAge != 0 {
			t.Errorf("oldest age %v, %v", s.OldestAge, err)
		}
	})
}
