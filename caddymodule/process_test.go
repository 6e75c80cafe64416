// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/timguard/timguard/caddymodule/internal/guardtest"
)

// processConfig is the environment variable that makes the test binary run Caddy. It
// contains the configuration.
const processConfig = "TIMGUARD_TEST_PROCESS"

func TestMain(m *testing.M) {
	if config := os.Getenv(processConfig); config != "" {
		if err := serveProcess([]byte(config)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	// Tests that load a configuration must not be what "caddy run --resume" finds.
	caddy.ConfigAutosavePath = filepath.Join(os.TempDir(), "timguard-test-autosave.json")
	os.Exit(m.Run())
}

// usage contains the resources that a process has used so far.
type usage struct {
	CPU        time.Duration
	Mallocs    uint64
	Heap       uint64 // bytes of spans in use
	Live       uint64 // bytes of objects and stacks
	RSS        uint64 // bytes of memory now
	Peak       uint64 // bytes of memory at the most, since the process began
	Goroutines int
	Failed     string // the error of the command
}

// The commands that a process executes before it returns its usage.
const (
	askNothing = "usage"
	askCollect = "collect" // garbage, and give it back to the system
	askReload  = "reload"  // the configuration
)

// serveProcess runs Caddy, and executes commands from standard input until it ends.
func serveProcess(config []byte) error {
	if err := caddy.Load(config, true); err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	if err := out.Encode(used()); err != nil {
		return err
	}
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		failed := ""
		switch in.Text() {
		case askCollect:
			runtime.GC() // again, because pools survive one collection
			debug.FreeOSMemory()
		case askReload:
			if err := caddy.Load(config, true); err != nil {
				failed = err.Error()
			}
		}
		u := used()
		u.Failed = failed
		if err := out.Encode(u); err != nil {
			return err
		}
	}
	return in.Err()
}

func used() usage {
	var r syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &r)
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	now, peak := resident()
	return usage{
		CPU:     time.Duration(r.Utime.Nano() + r.Stime.Nano()),
		Mallocs: m.Mallocs, Heap: m.HeapInuse, Live: m.HeapAlloc + m.StackInuse,
		RSS: now, Peak: peak,
		Goroutines: runtime.NumGoroutine(),
	}
}

// resident returns the resident memory of this process and its peak, if there is /proc.
// The peak of getrusage includes that of the parent before exec.
func resident() (now, peak uint64) {
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		kB, _ := strconv.ParseUint(fields[1], 10, 64)
		switch fields[0] {
		case "VmRSS:":
			now = kB << 10
		case "VmHWM:":
			peak = kB << 10
		}
	}
	return now, peak
}

// process is a Caddy in a separate process, so that its usage does not include that of
// the load.
type process struct {
	tb   testing.TB
	stop func() // also called at the end of the test

	mu  sync.Mutex
	in  io.Writer
	out *json.Decoder
}

func startProcess(tb testing.TB, config string) *process {
	tb.Helper()
	cmd := exec.Command(guardtest.Itself(), "-test.run=^$")
	cmd.Env = append(os.Environ(), processConfig+"="+config, "XDG_DATA_HOME="+tb.TempDir(), "XDG_CONFIG_HOME="+tb.TempDir())
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		tb.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	p := &process{tb: tb, in: in, out: json.NewDecoder(out), stop: sync.OnceFunc(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})}
	tb.Cleanup(p.stop)
	p.read()
	if tb.Failed() {
		tb.FailNow()
	}
	return p
}

func (p *process) read() (u usage) {
	p.tb.Helper()
	if err := p.out.Decode(&u); err != nil {
		p.tb.Errorf("the other process is gone: %v", err)
	}
	if u.Failed != "" {
		p.tb.Error("the other process: ", u.Failed)
	}
	return u
}

// ask makes the process execute a command, and returns its usage.
func (p *process) ask(what string) usage {
	p.tb.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	_, _ = io.WriteString(p.in, what+"\n")
	return p.read()
}

// until collects garbage until the usage meets the condition and no longer falls, for at
// most some seconds.
func (p *process) until(wanted func(usage) bool) (u usage) {
	p.tb.Helper()
	var last usage
	for deadline := time.Now().Add(15 * time.Second); time.Now().Before(deadline) && !p.tb.Failed(); time.Sleep(50 * time.Millisecond) {
		u = p.ask(askCollect)
		if wanted(u) && u.Goroutines == last.Goroutines && u.Live >= last.Live-last.Live/100 {
			break
		}
		last = u
	}
	return u
}

// processServers returns a configuration with a server for each list of handlers in
// JSON, on free ports.
func processServers(tb testing.TB, handlers ...string) (config string, addresses []string) {
	tb.Helper()
	servers := make([]string, 0, len(handlers))
	listeners := make([]net.Listener, 0, len(handlers)) // kept open together, so that all ports differ
	for i, h := range handlers {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			tb.Fatal(err)
		}
		listeners = append(listeners, listener)
		addresses = append(addresses, listener.Addr().String())
		servers = append(servers, fmt.Sprintf(`"s%d":{"listen":[%q],"automatic_https":{"disable":true},"routes":[{"handle":[%s]}]}`, i, addresses[i], h))
	}
	for _, listener := range listeners {
		_ = listener.Close()
	}
	return `{"admin":{"disabled":true},"logging":{"logs":{"default":{"level":"ERROR"}}},"apps":{"http":{"servers":{` + strings.Join(servers, ",") + `}}}}`, addresses
}

// answering is a backend for another process, which reads requests completely and
// answers OK.
func answering(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(okAnswer)
}
