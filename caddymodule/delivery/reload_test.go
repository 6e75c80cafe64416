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

	"github.com/timguard/timguard/caddymodule/callback"
	"github.com/timguard/timguard/caddymodule/internal/guardtest"
)

// alone is the environment variable that is set in a process of inItsOwnProcess.
const alone = "TIMGUARD_TEST_ALONE"

// inItsOwnProcess runs the calling test in a separate process, which has no goroutines
// and open stores of other tests. It returns true in the original process.
func inItsOwnProcess(t *testing.T) bool {
	t.Helper()
	if os.Getenv(alone) != "" {
		return false
	}
	dir := t.TempDir()
	cmd := exec.Command(guardtest.Itself(), "-test.run=^"+t.Name()+"$", "-test.v", fmt.Sprint("-timguard.long=", *guardtest.Long))
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

// load loads the site into the Caddy of this process.
func load(tb testing.TB, s *guardtest.Site) {
	tb.Helper()
	config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(s.Caddyfile()), nil)
	if err != nil {
		tb.Fatal(err)
	}
	if err := caddy.Load(config, true); err != nil {
		tb.Fatal(err)
	}
}

// openStores returns the number of references to each open store.
func openStores() map[string]int {
	uses := make(map[string]int)
	outboxes.Range(func(key, _ any) bool {
		n, _ := outboxes.References(key)
		uses[key.(string)] = n
		return true
	})
	return uses
}

// During reloads, no callback is lost or refused, the store stays open, and nothing is
// leaked. A request on a connection that Caddy closes with the old configuration gets
// no answer, and is stored once even if it is repeated.
func TestEndToEndDeliverySurvivesReloads(t *testing.T) {
	t.Parallel()
	if inItsOwnProcess(t) {
		return
	}
	b := guardtest.NewBackend(t, guardtest.Accepts)
	// Caddy keeps connections to the backend for two minutes, also those of the
	// configurations before.
	site := guardtest.Guard("on after deliver", "backend {\nreverse_proxy "+b.Address()+" {\ntransport http {\nkeepalive 1s\n}\n}\n}")
	s := guardtest.NewSite(t, site)
	s.Admin, s.Logs = "off", "ERROR"
	load(t, s) // goroutines that only the first load starts are not leaks
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	guardtest.Eventually(t, 10*time.Second, "the store is closed", func() bool { return len(openStores()) == 0 })
	time.Sleep(100 * time.Millisecond)
	before := runtime.NumGoroutine()

	load(t, s)
	p := guardtest.NewPoster(t, s.Listen)
	l := newStoring(p, 8, 10, "reload")
	reloads := guardtest.InLongForm(100, 1000)
	begun := time.Now()
	for n := range reloads {
		s.Directives = fmt.Sprintf("header X-Generation %d\n%s", n, site)
		load(t, s)
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
	b.WantAll(t, 30*time.Second, stored)
	for _, id := range stored {
		if n := b.Times(guardtest.Event(id)); n != 1 && !b.Forwarded(guardtest.Event(id)) {
			t.Errorf("callback %s arrived %d times", id, n)
		}
	}
	guardtest.Eventually(t, 10*time.Second, "one configuration uses the store", func() bool {
		for _, uses := range openStores() {
			return uses == 1
		}
		return false
	})
	t.Logf("%d callbacks during %d reloads in %s; %d connections ended without an answer", len(stored), reloads, took.Round(time.Millisecond), l.unanswered)

	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	p.Client.CloseIdleConnections()
	b.CloseClientConnections()
	for deadline := time.Now().Add(15 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if runtime.NumGoroutine() <= before && len(openStores()) == 0 {
			return
		}
	}
	stacks := make([]byte, 1<<18)
	t.Errorf("%d goroutines after, %d before; stores %v\n%s", runtime.NumGoroutine(), before, openStores(), stacks[:runtime.Stack(stacks, true)])
}

// Reloads that change the number of workers during a hanging attempt do not delay the
// deliveries of other guards.
func TestEndToEndDeliveryIsNotDelayedByReloadsWhileAnAttemptHangs(t *testing.T) {
	t.Parallel()
	ill, well := guardtest.NewBackend(t, guardtest.Hangs), guardtest.NewBackend(t, guardtest.Accepts)
	s := guardtest.NewSite(t, "handle /ill {\n"+guardtest.Delivering(ill, "name ill")+"\n}\n"+
		"handle {\n"+guardtest.Delivering(well, "name well")+"\n}")
	s.Options = "workers 4"
	s.Start(t)
	p := guardtest.NewPoster(t, s.Listen)
	for i := range 3 {
		if _, answer, err := p.Post("/ill", callback.RecallCommand, guardtest.Event(fmt.Sprint("ill", i))); err != nil || answer != guardtest.OKJSON {
			t.Fatal(answer, err)
		}
	}
	guardtest.Eventually(t, 10*time.Second, "attempts hang", func() bool { return ill.Tries.Load() == 3 })
	slowest := time.Duration(0)
	for n := range 10 {
		s.Options = fmt.Sprint("workers ", []int{8, 2, 1, 16, 3}[n%5])
		s.Reload(t)
		p.Client.CloseIdleConnections()   // Caddy closes them with the old configuration
		time.Sleep(20 * time.Millisecond) // whose server may accept one more, and drop it
		id := fmt.Sprint("well", n)
		start := time.Now()
		p.WantOK(t, id)
		well.One(t, guardtest.Event(id))
		slowest = max(slowest, time.Since(start))
	}
	t.Logf("the slowest of ten took %s", slowest.Round(time.Millisecond))
	if slowest > time.Second {
		t.Errorf("a delivery took %s after a reload, want at most 1s", slowest)
	}
}
