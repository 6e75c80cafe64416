// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package outbox_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/timguard/timguard/caddymodule/outbox"
)

// TestMain also runs the child process that crash tests kill.
func TestMain(m *testing.M) {
	if role := os.Getenv("OUTBOX_TEST_ROLE"); role != "" {
		child(role)
		return
	}
	os.Exit(m.Run())
}

// child opens the store of the environment and prints a line for everything that the
// parent has to check.
func child(role string) {
	o, err := config{driver: os.Getenv("OUTBOX_TEST_DRIVER"), store: os.Getenv("OUTBOX_TEST_STORE"), timeout: time.Second}.open()
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	switch role {
	case "deliver":
		_, _ = o.work(map[string]outbox.DeliverFunc{"default": func(context.Context, outbox.Attempt) error { fmt.Println("began"); select {} }}, 16)
	case "store":
		_, _ = o.work(map[string]outbox.DeliverFunc{"default": func(context.Context, outbox.Attempt) error { return errors.New("refused") }}, 16)
		for s := range 16 {
			go func() {
				for i := 0; ; i++ {
					key := fmt.Sprintf("%s-%d-%d", os.Getenv("OUTBOX_TEST_RUN"), s, i)
					if _, err := o.put(context.Background(), recall(key)); err == nil {
						fmt.Printf("stored %s\n", key)
					}
				}
			}()
		}
	}
	select {}
}

// spawn starts a child, and returns its output and a function that kills it with
// SIGKILL.
func spawn(t *testing.T, c config, role, run string) (lines *bufio.Scanner, kill func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "OUTBOX_TEST_ROLE="+role, "OUTBOX_TEST_RUN="+run,
		"OUTBOX_TEST_DRIVER="+c.driver, "OUTBOX_TEST_STORE="+c.store)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	kill = func() { once.Do(func() { _, _ = cmd.Process.Kill(), cmd.Wait() }) }
	t.Cleanup(kill)
	return bufio.NewScanner(out), kill
}

// beginAttempt stores a callback, begins an attempt in a child, and returns a function that
// kills it.
func beginAttempt(t *testing.T, c config) (kill func()) {
	t.Helper()
	o, err := c.open()
	if err != nil {
		t.Fatal(err)
	}
	mustPut(t, o, recall("a"))
	o.Close() // one process at a time can have an SQLite file open
	lines, kill := spawn(t, c, "deliver", "")
	if !lines.Scan() || lines.Text() != "began" {
		t.Fatalf("child said %q", lines.Text())
	}
	return kill
}

func TestLostAttemptsAreRepeated(t *testing.T) {
	if testing.Short() {
		t.Skip("River rescues the jobs of a dead process only after most of a minute")
	}
	eachDriver(t, func(t *testing.T, driver string) {
		c := configFor(t, driver)
		c.timeout = time.Second
		kill := beginAttempt(t, c)
		time.Sleep(100 * time.Millisecond)
		kill()
		died := time.Now()
		o := mustOpen(t, c)
		got := make(chan outbox.Attempt, 1)
		mustWork(t, o, func(_ context.Context, d outbox.Attempt) error { got <- d; return nil })
		select {
		case d := <-got:
			t.Logf("attempt %d began %v after the kill", d.Attempt, time.Since(died))
		case <-time.After(c.timeout + time.Minute):
			t.Fatal("not repeated within a minute of the timeout")
		}
	})
}

// An attempt that is lost with its process does not count, even if it was the last one.
func TestALostAttemptIsNoFailure(t *testing.T) {
	if testing.Short() {
		t.Skip("River rescues the jobs of a dead process only after most of a minute")
	}
	eachDriver(t, func(t *testing.T, driver string) {
		c := configFor(t, driver)
		c.timeout, c.maxAttempts = time.Second, 1
		beginAttempt(t, c)()
		o := mustOpen(t, c)
		var got atomic.Int64
		mustWork(t, o, func(_ context.Context, a outbox.Attempt) error {
			got.Store(int64(a.Attempt))
			return nil
		})
		eventually(t, 2*time.Minute, "delivered", func() bool { return count(t, o, outbox.Delivered) == 1 })
		if n := got.Load(); n != 1 {
			t.Errorf("it was attempt %d, want the first again", n)
		}
	})
}

func TestStoredCallbacksSurviveKills(t *testing.T) {
	if testing.Short() {
		t.Skip("River rescues the jobs of a dead process only after most of a minute")
	}
	eachDriver(t, func(t *testing.T, driver string) {
		c := configFor(t, driver)
		c.timeout = time.Second
		stored := make(map[string]bool)
		for run := range 5 {
			lines, kill := spawn(t, c, "store", fmt.Sprint(run))
			for first := true; lines.Scan(); {
				if key, ok := strings.CutPrefix(lines.Text(), "stored "); ok {
					if first {
						first = false
						time.AfterFunc(time.Duration(300+150*run)*time.Millisecond, kill)
					}
					stored[key] = true
				}
			}
		}
		o := mustOpen(t, c)
		var missing atomic.Int64
		missing.Store(int64(len(stored)))
		var mu sync.Mutex
		mustWork(t, o, func(_ context.Context, d outbox.Attempt) error {
			mu.Lock()
			defer mu.Unlock()
			if stored[d.Key] {
				delete(stored, d.Key)
				missing.Add(-1)
			}
			return nil
		})
		total := missing.Load()
		eventually(t, 2*time.Minute, "delivery of all acknowledged callbacks", func() bool { return missing.Load() == 0 })
		if total == 0 {
			t.Error("nothing was stored")
		}
		t.Logf("%d acknowledged, all delivered", total)
	})
}
