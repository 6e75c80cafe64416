// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"

	"github.com/timguard/timguard/caddymodule/internal/guardtest"
)

// alone names the variable that says that a test has the process to itself.
const alone = "TIMGUARD_TEST_ALONE"

// inItsOwnProcess runs the calling test once more, in a process whose goroutines
// and open stores are its own, and reports whether this is not it.
func inItsOwnProcess(t *testing.T) bool {
	t.Helper()
	if os.Getenv(alone) != "" {
		return false
	}
	dir := t.TempDir()
	cmd := exec.Command(guardtest.Itself(), "-test.run=^"+t.Name()+"$", "-test.v", fmt.Sprint("-timguard.long=", *longDeliveries))
	cmd.Env = append(os.Environ(), alone+"=1", "HOME="+dir, "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
	output, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(output), "--- PASS: "+t.Name()) {
		t.Fatalf("%v\n%s", err, output)
	}
	for line := range strings.Lines(string(output)) {
		if strings.Contains(line, "_test.go:") {
			t.Log(strings.TrimSpace(line))
		}
	}
	return true
}

// load makes this process a Caddy of the site.
func (s *deliverySite) load(tb testing.TB) {
	tb.Helper()
	config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(s.caddyfile()), nil)
	if err != nil {
		tb.Fatal(err)
	}
	if err := caddy.Load(config, true); err != nil {
		tb.Fatal(err)
	}
}

// openStores returns how often each open store is in use.
func openStores() map[string]int {
	uses := make(map[string]int)
	outboxes.Range(func(key, _ any) bool {
		n, _ := outboxes.References(key)
		uses[key.(string)] = n
		return true
	})
	return uses
}

// Reloads lose no callback and refuse none, share one store, and leave nothing
// behind. What is on its way over a connection that Caddy closes with the old
// configuration gets no answer, and is stored once all the same when it is
// repeated.
func TestEndToEndDeliverySurvivesReloads(t *testing.T) {
	t.Parallel()
	if inItsOwnProcess(t) {
		return
	}
	b := newUnsteady(t, accepts)
	s := newDeliverySite(t, delivering(b))
	s.admin, s.logs = "off", "ERROR"
	s.load(t) // what only the first configuration starts is no leak
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, "the store is closed", func() bool { return len(openStores()) == 0 })
	time.Sleep(100 * time.Millisecond)
	before := runtime.NumGoroutine()

	s.load(t)
	p := newPoster(t, s.listen)
	l := newStoring(p, 8, 10, "reload")
	reloads := inLongForm(100, 1000)
	begun := time.Now()
	for n := range reloads {
		s.body = fmt.Sprintf("header X-Generation %d\n%s", n, delivering(b))
		s.load(t)
		if stores := openStores(); len(stores) != 1 {
			t.Fatalf("%d stores are open after %d reloads", len(stores), n+1)
		}
		time.Sleep(20 * time.Millisecond)
	}
	took := time.Since(begun)
	stored, other := l.finish()
	if len(other) > 0 {
		t.Errorf("%d callbacks were not answered OK; the first: %s", len(other), other[0])
	}
	b.wantAll(t, 30*time.Second, stored)
	for _, id := range stored {
		if n := b.times(event(id)); n != 1 && !b.forwarded(event(id)) {
			t.Errorf("callback %s arrived %d times", id, n)
		}
	}
	eventually(t, 10*time.Second, "one configuration uses the store", func() bool {
		for _, uses := range openStores() {
			return uses == 1
		}
		return false
	})
	t.Logf("%d callbacks during %d reloads in %s; %d connections ended without an answer", len(stored), reloads, took.Round(time.Millisecond), l.unanswered)

	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	p.client.CloseIdleConnections()
	b.CloseClientConnections()
	for deadline := time.Now().Add(15 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if runtime.NumGoroutine() <= before && len(openStores()) == 0 {
			return
		}
	}
	stacks := make([]byte, 1<<18)
	t.Errorf("%d goroutines after, %d before; stores %v\n%s", runtime.NumGoroutine(), before, openStores(), stacks[:runtime.Stack(stacks, true)])
}
