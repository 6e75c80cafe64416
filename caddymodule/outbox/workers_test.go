// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/timguard/timguard/caddymodule/outbox"
)

func TestStoredCallbacksAreDeliveredUnchanged(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o := mustOpen(t, configFor(t, driver))
		want := recall("a")
		want.Body = "{ \"b\" : 1.0e0,\t\"a\":\"\\u0041\\ud83d\\ude00\\u0000 <&> \u2028 你好 😀 \\\\ \\\"\",\r\n\"b2\":[1,  2 ]}\n"
		got := make(chan outbox.Attempt, 1)
		mustWork(t, o, func(_ context.Context, d outbox.Attempt) error { got <- d; return nil })
		time.Sleep(time.Second) // so that the workers are idle
		start := time.Now()
		mustPut(t, o, want)
		d := <-got
		t.Logf("attempted %v after Put began", time.Since(start))
		if took := time.Since(start); took > 500*time.Millisecond {
			t.Errorf("attempted only after %v", took)
		}
		if d.Body != want.Body {
			t.Errorf("body\n%q\nwant\n%q", d.Body, want.Body)
		}
		want.MaxAttempts = 0 // is not part of the arguments
		if !reflect.DeepEqual(d.Callback, want) {
			t.Errorf("callback\n%+v\nwant\n%+v", d.Callback, want)
		}
		if d.Attempt != 1 || d.ID == 0 {
			t.Errorf("attempt %d of id %d", d.Attempt, d.ID)
		}
	})
}

func TestFailedAttemptsAreRetriedAndTheirErrorsKept(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o := mustOpen(t, configFor(t, driver))
		var attempts atomic.Int64
		mustWork(t, o, func(_ context.Context, _ outbox.Attempt) error {
			if attempts.Add(1) == 1 {
				return errors.New("backend answered 502")
			}
			return nil
		})
		mustPut(t, o, recall("a"))
		eventually(t, 15*time.Second, "delivered", func() bool { return count(t, o, outbox.Delivered) == 1 })
		items, err := o.List(context.Background(), outbox.Filter{State: outbox.Delivered})
		if err != nil || len(items) != 1 {
			t.Fatalf("%d items, %v", len(items), err)
		}
		it := items[0]
		if it.Attempt != 2 || len(it.Failures) != 1 || it.Failures[0].Error != "backend answered 502" || it.Failures[0].Attempt != 1 || it.Ended.IsZero() {
			t.Errorf("item %+v", it)
		}
	})
}

func TestCallbacksAreDeadAfterTheLastAttemptUntilRetried(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		ctx := context.Background()
		c := configFor(t, driver)
		c.maxAttempts = 2
		o := mustOpen(t, c)
		var well atomic.Bool
		mustWork(t, o, func(context.Context, outbox.Attempt) error {
			if well.Load() {
				return nil
			}
			return errors.New("no")
		})
		mustPut(t, o, recall("a"))
		eventually(t, 20*time.Second, "dead", func() bool { return count(t, o, outbox.Dead) == 1 })
		items, err := o.List(ctx, outbox.Filter{State: outbox.Dead})
		if err != nil || len(items) != 1 || len(items[0].Failures) != 2 {
			t.Fatalf("items %+v, %v", items, err)
		}
		well.Store(true)
		if _, err := o.Retry(ctx, items[0].ID, func(outbox.Queue) outbox.Options { return outbox.Options{MaxAttempts: 2} }); err != nil {
			t.Fatal(err)
		}
		eventually(t, 10*time.Second, "delivered", func() bool { return count(t, o, outbox.Delivered) == 1 })
	})
}

func TestAttemptsTimeOut(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		c := configFor(t, driver)
		c.timeout = 200 * time.Millisecond
		o := mustOpen(t, c)
		mustWork(t, o, func(ctx context.Context, d outbox.Attempt) error {
			if d.Attempt > 1 {
				return nil
			}
			<-ctx.Done()
			return ctx.Err()
		})
		mustPut(t, o, recall("a"))
		eventually(t, 15*time.Second, "delivered", func() bool { return count(t, o, outbox.Delivered) == 1 })
	})
}

// oldRow is a row of an older version. It lacks newer fields, and has one that was
// removed.
const oldRow = `{"command":"Group.CallbackAfterRecallMsg","gone":{"x":[1]},"guard":"default","uri":"/cb?a=b","host":"h","body":"{\"a\" : 1}"}`

func TestRowsOfOtherVersionsAreDelivered(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		ctx := context.Background()
		o := mustOpen(t, configFor(t, driver))
		insert := `INSERT INTO river_job (args, kind, max_attempts, queue, state) VALUES ('` + oldRow + `', 'tim_callback', 20, 'default', 'available')`
		if driver == "sqlite" {
			insert = strings.Replace(insert, "VALUES ('"+oldRow+"'", "VALUES (jsonb('"+oldRow+"')", 1)
		}
		err := o.Exec(ctx, insert)
		if err != nil {
			t.Fatal(err)
		}
		got := make(chan outbox.Attempt, 1)
		mustWork(t, o, func(_ context.Context, d outbox.Attempt) error { got <- d; return nil })
		d := <-got
		if d.Body != `{"a" : 1}` || d.URI != "/cb?a=b" || d.Host != "h" || d.Method != "" {
			t.Errorf("delivery %+v", d)
		}
	})
}

func TestWorkersDeliverOnlyTheirQueues(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o := mustOpen(t, configFor(t, driver))
		other := recall("a")
		other.Guard = "other"
		mustPut(t, o, other)
		mustPut(t, o, recall("a"))
		mustWork(t, o, func(_ context.Context, d outbox.Attempt) error {
			if d.Guard != "default" {
				t.Errorf("delivered a callback of %s", d.Guard)
			}
			return nil
		})
		eventually(t, 10*time.Second, "delivered", func() bool { return count(t, o, outbox.Delivered) == 1 })
		time.Sleep(300 * time.Millisecond)
		if n := count(t, o, outbox.Pending); n != 1 {
			t.Errorf("%d of another guard left, want 1", n)
		}
	})
}

func TestStopWaitsForRunningAttempts(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o := mustOpen(t, configFor(t, driver))
		began, finish := make(chan struct{}), make(chan struct{})
		w := mustWork(t, o, func(context.Context, outbox.Attempt) error { close(began); <-finish; return nil })
		mustPut(t, o, recall("a"))
		<-began
		time.AfterFunc(300*time.Millisecond, func() { close(finish) })
		if err := w.Stop(context.Background()); err != nil {
			t.Fatal(err)
		}
		mustPut(t, o, recall("b"))
		eventually(t, 5*time.Second, "the first delivered", func() bool { return count(t, o, outbox.Delivered) == 1 })
		if n := count(t, o, outbox.Pending); n != 1 {
			t.Errorf("%d left, want 1", n)
		}
	})
}

func TestStopCancelsAttemptsWithoutCountingThem(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o := mustOpen(t, configFor(t, driver))
		began := make(chan struct{}, 1)
		var ended atomic.Int64
		w, err := o.Work(outbox.WorkConfig{Keep: time.Hour, KeepDead: time.Hour, Queues: map[outbox.Queue]outbox.QueueConfig{{Guard: "default"}: {
			Workers: 1, Timeout: time.Minute,
			Deliver: func(ctx context.Context, _ outbox.Attempt) error {
				began <- struct{}{}
				<-ctx.Done()
				return ctx.Err()
			},
			Ended: func(outbox.Attempt, time.Duration, error) { ended.Add(1) },
		}}})
		if err != nil {
			t.Fatal(err)
		}
		mustPut(t, o, recall("a"))
		<-began
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		if err := w.Stop(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		if n := ended.Load(); n > 0 {
			t.Errorf("%d attempts have ended, which is not the backend's fault", n)
		}
		got := make(chan outbox.Attempt, 1)
		mustWork(t, o, func(_ context.Context, d outbox.Attempt) error { got <- d; return nil })
		select {
		case d := <-got:
			if d.Attempt != 1 {
				t.Errorf("attempt %d, want 1", d.Attempt)
			}
		case <-time.After(15 * time.Second):
			t.Fatal("not delivered by the next workers")
		}
	})
}

func TestWorkersCanBeReplacedAThousandTimes(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o := mustOpen(t, configFor(t, driver))
		o.SetPutTimeout(time.Minute) // tolerates a slow disk
		var mu sync.Mutex
		seen := make(map[string]int)
		deliver := func(_ context.Context, d outbox.Attempt) error {
			mu.Lock()
			defer mu.Unlock()
			seen[d.Key]++
			return nil
		}
		w := mustWork(t, o, deliver)
		cycle := func(i int) {
			mustPut(t, o, recall(fmt.Sprint(i)))
			next := mustWork(t, o, deliver)
			if err := w.Stop(context.Background()); err != nil {
				t.Fatal(err)
			}
			w = next
		}
		const cycles = 1000
		for i := range 10 {
			cycle(i)
		}
		before := runtime.NumGoroutine()
		for i := 10; i < cycles; i++ {
			cycle(i)
		}
		eventually(t, 30*time.Second, "all delivered", func() bool { mu.Lock(); defer mu.Unlock(); return len(seen) == cycles })
		// Parallel tests vary the number, but a leak would be of a thousand.
		eventually(t, 10*time.Second, "goroutines gone", func() bool { return runtime.NumGoroutine() < before+200 })
		mu.Lock()
		defer mu.Unlock()
		for key, n := range seen {
			if n != 1 {
				t.Errorf("%s delivered %d times", key, n)
			}
		}
	})
}

func TestWorkersOfChangingGuards(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o := mustOpen(t, configFor(t, driver))
		var got atomic.Int64
		deliver := func(context.Context, outbox.Attempt) error { got.Add(1); return nil }
		sets := []struct {
			guards []string
			each   int
		}{{[]string{"a"}, 4}, {[]string{"a", "b"}, 4}, {[]string{"b"}, 8}, {nil, 1}, {[]string{"a", "b"}, 2}}
		var w *outbox.Workers
		for i, set := range sets {
			m := make(map[string]outbox.DeliverFunc)
			for _, g := range set.guards {
				m[g] = deliver
				c := recall(fmt.Sprint(i))
				c.Guard = g
				mustPut(t, o, c)
			}
			next, err := o.work(m, set.each)
			if err != nil {
				t.Fatal(err)
			}
			if w != nil {
				if err := w.Stop(context.Background()); err != nil {
					t.Fatal(err)
				}
			}
			w = next
			eventually(t, 10*time.Second, fmt.Sprintf("set %d delivered", i), func() bool { return count(t, o, outbox.Pending)+count(t, o, outbox.Running) == 0 })
		}
		if n := got.Load(); n != 6 {
			t.Errorf("%d delivered, want 6", n)
		}
	})
}

func TestTwoProcessesShareADatabase(t *testing.T) {
	t.Parallel()
	c := configFor(t, "postgres")
	a, b := mustOpen(t, c), mustOpen(t, c)
	var wg sync.WaitGroup
	var stored, gotA, gotB atomic.Int64
	for i := range 200 {
		for _, o := range []*opened{a, b} {
			wg.Go(func() {
				duplicate, err := o.put(context.Background(), recall(fmt.Sprint(i)))
				if err != nil {
					t.Error(err)
				}
				if !duplicate {
					stored.Add(1)
				}
			})
		}
	}
	wg.Wait()
	if n := stored.Load(); n != 200 {
		t.Errorf("%d stored of 200 events that came twice", n)
	}
	pause := func(n *atomic.Int64) outbox.DeliverFunc {
		return func(context.Context, outbox.Attempt) error { n.Add(1); time.Sleep(20 * time.Millisecond); return nil }
	}
	mustWork(t, a, pause(&gotA))
	mustWork(t, b, pause(&gotB))
	eventually(t, 20*time.Second, "all delivered", func() bool { return count(t, a, outbox.Delivered) == 200 })
	if gotA.Load() == 0 || gotB.Load() == 0 || gotA.Load()+gotB.Load() != 200 {
		t.Errorf("a delivered %d, b %d", gotA.Load(), gotB.Load())
	}
}
