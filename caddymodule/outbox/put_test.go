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

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"

	"github.com/timguard/timguard/caddymodule/outbox"
)

func TestPutStoresEachEventOnce(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o := mustOpen(t, configFor(t, driver))
		other := func(change func(*outbox.Callback)) outbox.Callback { c := recall("a"); change(&c); return c }
		for i, step := range []struct {
			name      string
			callback  outbox.Callback
			duplicate bool
		}{
			{"first", recall("a"), false},
			{"again", recall("a"), true},
			{"again with another body", other(func(c *outbox.Callback) { c.Body = "{}" }), true},
			{"other key", recall("b"), false},
			{"other guard", other(func(c *outbox.Callback) { c.Guard = "other" }), false},
			{"no key", recall(""), false},
			{"no key again", recall(""), false},
		} {
			if got := mustPut(t, o, step.callback); got != step.duplicate {
				t.Errorf("step %d, %s: duplicate = %v, want %v", i, step.name, got, step.duplicate)
			}
		}
		if n := count(t, o, outbox.Pending); n != 5 {
			t.Errorf("%d stored, want 5", n)
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
				duplicate, err := o.put(context.Background(), recall([]string{"a", "b", ""}[i%3]))
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
		if n := count(t, o, outbox.Pending); n != 22 {
			t.Errorf("%d stored, want 22", n)
		}
	})
}

func TestDuplicatesAreDetectedUntilTheDeliveredRowIsRemoved(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		c := configFor(t, driver)
		c.keep = time.Second
		c.maxAttempts = 1
		o := mustOpen(t, c)
		mustPut(t, o, recall("delivered"))
		mustPut(t, o, recall("dead"))
		w := mustWork(t, o, func(_ context.Context, d outbox.Attempt) error {
			if d.Key == "dead" {
				return errors.New("no")
			}
			return nil
		})
		eventually(t, 10*time.Second, "one delivered, one dead", func() bool {
			return count(t, o, outbox.Delivered) == 1 && count(t, o, outbox.Dead) == 1
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

// insertions counts transactions of Put.
type insertions struct {
	outbox.Client
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
	return c.Client.InsertMany(ctx, p)
}

func TestPutCoalescesConcurrentCalls(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		c := configFor(t, driver)
		o := mustOpen(t, c)
		o.SetPutTimeout(time.Minute) // for the race detector, which slows SQLite down tenfold
		spy := &insertions{Client: o.PutClient(), wait: 20 * time.Millisecond}
		o.SetPutClient(spy)
		var wg sync.WaitGroup
		for i := range 700 {
			wg.Go(func() {
				if _, err := o.put(context.Background(), recall(fmt.Sprint(i))); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := spy.n.Load(); n > 10 {
			t.Errorf("%d transactions for 700 callbacks at once", n)
		}
		if n := count(t, o, outbox.Pending); n != 700 {
			t.Errorf("%d stored, want 700", n)
		}
	})
}

func TestOnlyTheCallWithTheBadRowFails(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o := mustOpen(t, configFor(t, driver))
		o.SetIsBadRow(func(err error) bool { return errors.Is(err, errBad) })
		o.SetPutClient(&insertions{Client: o.PutClient(), wait: 10 * time.Millisecond, fail: func(params []river.InsertManyParams) error {
			for _, p := range params {
				if p.Args.(*outbox.Callback).Key == "bad" {
					return errBad
				}
			}
			return nil
		}})
		var wg sync.WaitGroup
		for i := range 30 {
			key := fmt.Sprint(i)
			if i == 20 {
				key = "bad"
			}
			wg.Go(func() {
				_, err := o.put(context.Background(), recall(key))
				if key == "bad" != (err != nil) {
					t.Errorf("key %s: error %v", key, err)
				}
			})
		}
		wg.Wait()
	})
}

var errBad = errors.New("bad value")

func TestPutConvertsPanicsToErrors(t *testing.T) {
	t.Parallel()
	o := mustOpen(t, configFor(t, "sqlite"))
	good := o.PutClient()
	o.SetPutClient(&insertions{Client: good, fail: func([]river.InsertManyParams) error { panic("a payload value") }})
	if _, err := o.put(context.Background(), recall("a")); err == nil || strings.Contains(err.Error(), "payload") {
		t.Errorf("error %v, want one without the value", err)
	}
	o.PutClient().(*insertions).fail = nil
	mustPut(t, o, recall("a"))
}

func TestPutReturnsWhenItsContextEnds(t *testing.T) {
	t.Parallel()
	o := mustOpen(t, configFor(t, "sqlite"))
	o.SetPutClient(&insertions{Client: o.PutClient(), wait: 300 * time.Millisecond})
	for _, name := range []string{"in the batch", "waiting for it"} {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
		start := time.Now()
		if _, err := o.put(ctx, recall("")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", name, err)
		}
		if took := time.Since(start); took > 200*time.Millisecond {
			t.Errorf("%s: took %v", name, took)
		}
		cancel()
	}
}

// A caller that has given up may have told its own caller that nothing is stored.
func TestPutStoresNothingForACallerThatHasGivenUp(t *testing.T) {
	t.Parallel()
	o := mustOpen(t, configFor(t, "sqlite"))
	client := o.PutClient()
	o.SetPutClient(&insertions{Client: client, wait: 300 * time.Millisecond})
	go func() { _, _ = o.put(context.Background(), recall("occupies the writer")) }()
	time.Sleep(50 * time.Millisecond)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := o.put(ctx, recall("given up")); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	mustPut(t, o, recall("later"))
	items, err := o.List(context.Background(), outbox.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range items {
		if d.Callback.Key == "given up" {
			t.Error("it is stored")
		}
	}
}

func TestPutRejectsWhatCannotBeStoredUnchanged(t *testing.T) {
	t.Parallel()
	o := mustOpen(t, configFor(t, "sqlite"))
	for name, change := range map[string]func(*outbox.Callback){
		"body":   func(c *outbox.Callback) { c.Body = "{\"a\":\"\xff\"}" },
		"nul":    func(c *outbox.Callback) { c.Body = "{\"a\":\"\x00\"}" },
		"uri":    func(c *outbox.Callback) { c.URI = "/\xff" },
		"header": func(c *outbox.Callback) { c.Header["X"] = []string{"\xff"} },
		"guard":  func(c *outbox.Callback) { c.Guard = "No Guard" },
	} {
		c := recall("a")
		change(&c)
		if _, err := o.put(context.Background(), c); !errors.Is(err, outbox.ErrInvalid) {
			t.Errorf("%s: error %v, want ErrInvalid", name, err)
		}
	}
}

func TestPutFailsAfterClose(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o := mustOpen(t, configFor(t, driver))
		o.Close()
		if _, err := o.put(context.Background(), recall("")); !errors.Is(err, outbox.ErrClosed) {
			t.Errorf("Put: %v", err)
		}
		if _, err := o.work(nil, 1); !errors.Is(err, outbox.ErrClosed) {
			t.Errorf("Work: %v", err)
		}
		if _, err := o.Counts(context.Background()); !errors.Is(err, outbox.ErrClosed) {
			t.Errorf("Counts: %v", err)
		}
	})
}
