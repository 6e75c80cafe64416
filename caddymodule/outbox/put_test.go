// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package outbox

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"
)

func TestPutStoresOnceForEachEvent(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o := mustOpen(t, configFor(t, driver))
		other := func(change func(*Callback)) Callback { c := recall("a"); change(&c); return c }
		for i, step := range []struct {
			name      string
			callback  Callback
			duplicate bool
		}{
			{"first", recall("a"), false},
			{"again", recall("a"), true},
			{"again with another body", other(func(c *Callback) { c.Body = "{}" }), true},
			{"other key", recall("b"), false},
			{"other guard", other(func(c *Callback) { c.Guard = "other" }), false},
			{"other app", other(func(c *Callback) { c.SDKAppID = "1" }), false},
			{"no key", recall(""), false},
			{"no key again", recall(""), false},
		} {
			if got := mustPut(t, o, step.callback); got != step.duplicate {
				t.Errorf("step %d, %s: duplicate = %v, want %v", i, step.name, got, step.duplicate)
			}
		}
		if n := count(t, o, Pending); n != 6 {
			t.Errorf("%d stored, want 6", n)
		}
	})
}

func TestPutFindsDuplicatesWithinABatch(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o := mustOpen(t, configFor(t, driver))
		var duplicates atomic.Int64
		var wg sync.WaitGroup
		for i := range 60 {
			wg.Go(func() {
				duplicate, err := o.Put(context.Background(), recall([]string{"a", "b", ""}[i%3]))
				if err != nil {
					t.Error(err)
				}
				if duplicate {
					duplicates.Add(1)
				}
			})
		}
		wg.Wait()
		if n := duplicates.Load(); n != 38 {
			t.Errorf("%d duplicates of two keys that came 20 times each, want 38", n)
		}
		if n := count(t, o, Pending); n != 22 {
			t.Errorf("%d stored, want 22", n)
		}
	})
}

func TestDuplicatesCountUntilTheDeliveredRowIsGone(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		config := configFor(t, driver)
		config.Keep = time.Second
		config.MaxAttempts = 1
		o := mustOpen(t, config)
		mustPut(t, o, recall("delivered"))
		mustPut(t, o, recall("dead"))
		w := mustWork(t, o, func(_ context.Context, d Delivery) error {
			if d.Key == "dead" {
				return errors.New("no")
			}
			return nil
		})
		eventually(t, 10*time.Second, "one delivered, one dead", func() bool {
			return count(t, o, Delivered) == 1 && count(t, o, Dead) == 1
		})
		if !mustPut(t, o, recall("delivered")) {
			t.Error("a delivered event was stored again within the window")
		}
		if mustPut(t, o, recall("dead")) {
			t.Error("a dead event stood in the way of its repetition")
		}
		// The cleaner runs every 30s.
		eventually(t, 45*time.Second, "the window is over", func() bool { return !mustPut(t, o, recall("delivered")) })
		if err := w.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
}

// insertions counts the transactions that Put causes.
type insertions struct {
	client
	n, rows atomic.Int64
	wait    time.Duration
	fail    func([]river.InsertManyParams) error
}

func (c *insertions) InsertMany(ctx context.Context, p []river.InsertManyParams) ([]*rivertype.JobInsertResult, error) {
	c.n.Add(1)
	c.rows.Add(int64(len(p)))
	time.Sleep(c.wait)
	if c.fail != nil {
		if err := c.fail(p); err != nil {
			return nil, err
		}
	}
	return c.client.InsertMany(ctx, p)
}

func TestPutCoalesces(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		config := configFor(t, driver)
		o := mustOpen(t, config)
		o.putTimeout = time.Minute // for the race detector, which slows SQLite down tenfold
		spy := &insertions{client: o.store.put, wait: 20 * time.Millisecond}
		o.store.put = spy
		var wg sync.WaitGroup
		for i := range 700 {
			wg.Go(func() {
				if _, err := o.Put(context.Background(), recall(fmt.Sprint(i))); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := spy.n.Load(); n > 10 {
			t.Errorf("%d transactions for 700 callbacks at once", n)
		}
		if n := count(t, o, Pending); n != 700 {
			t.Errorf("%d stored, want 700", n)
		}
	})
}

func TestOneBadMemberFailsAlone(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o := mustOpen(t, configFor(t, driver))
		o.store.poison = func(err error) bool { return errors.Is(err, errBad) }
		o.store.put = &insertions{client: o.store.put, wait: 10 * time.Millisecond, fail: func(params []river.InsertManyParams) error {
			for _, p := range params {
				if p.Args.(Callback).Key == "bad" {
					return errBad
				}
			}
			return nil
		}}
		var wg sync.WaitGroup
		for i := range 30 {
			key := fmt.Sprint(i)
			if i == 20 {
				key = "bad"
			}
			wg.Go(func() {
				_, err := o.Put(context.Background(), recall(key))
				if key == "bad" != (err != nil) {
					t.Errorf("key %s: error %v", key, err)
				}
			})
		}
		wg.Wait()
	})
}

var errBad = errors.New("bad value")

func TestAPanicIsAnErrorOfItsBatch(t *testing.T) {
	t.Parallel()
	o := mustOpen(t, configFor(t, "sqlite"))
	good := o.store.put
	o.store.put = &insertions{client: good, fail: func([]river.InsertManyParams) error { panic("boom") }}
	if _, err := o.Put(context.Background(), recall("a")); err == nil {
		t.Error("no error")
	}
	o.store.put.(*insertions).fail = nil
	mustPut(t, o, recall("a"))
}

func TestPutObeysItsContext(t *testing.T) {
	t.Parallel()
	o := mustOpen(t, configFor(t, "sqlite"))
	o.store.put = &insertions{client: o.store.put, wait: 300 * time.Millisecond}
	for _, name := range []string{"in the batch", "waiting for it"} {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
		start := time.Now()
		if _, err := o.Put(ctx, recall("")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", name, err)
		}
		if took := time.Since(start); took > 200*time.Millisecond {
			t.Errorf("%s: took %v", name, took)
		}
		cancel()
	}
}

func TestPutRefusesWhatItCannotStoreUnchanged(t *testing.T) {
	t.Parallel()
	o := mustOpen(t, configFor(t, "sqlite"))
	for name, change := range map[string]func(*Callback){
		"body":   func(c *Callback) { c.Body = "{\"a\":\"\xff\"}" },
		"nul":    func(c *Callback) { c.Body = "{\"a\":\"\x00\"}" },
		"uri":    func(c *Callback) { c.URI = "/\xff" },
		"header": func(c *Callback) { c.Header["X"] = []string{"\xff"} },
		"guard":  func(c *Callback) { c.Guard = "No Guard" },
	} {
		c := recall("a")
		change(&c)
		if _, err := o.Put(context.Background(), c); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: error %v, want ErrInvalid", name, err)
		}
	}
}

func TestPutAfterCloseIsAnError(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o := mustOpen(t, configFor(t, driver))
		o.Close()
		if _, err := o.Put(context.Background(), recall("")); !errors.Is(err, ErrClosed) {
			t.Errorf("Put: %v", err)
		}
		if _, err := o.Work(nil, 1); !errors.Is(err, ErrClosed) {
			t.Errorf("Work: %v", err)
		}
		if _, err := o.Stats(context.Background()); !errors.Is(err, ErrClosed) {
			t.Errorf("Stats: %v", err)
		}
	})
}
