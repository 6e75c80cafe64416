// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"bufio"
	"bytes"
	"cmp"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func init() {
	caddy.RegisterModule(bodyReader{})
}

// bodyReader is the baseline without a guard: it reads the body and discards it.
type bodyReader struct{}

func (bodyReader) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.timguard_test_read", New: func() caddy.Module { return new(bodyReader) }}
}

func (*bodyReader) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	for piece := make([]byte, 512); ; {
		if _, err := r.Body.Read(piece); err != nil {
			_, _ = w.Write(okAnswer)
			return nil //nolint:nilerr // it is the end, of the body or of the connection
		}
	}
}

// memoryLoad is something that needs memory.
type memoryLoad struct {
	name        string
	connections int
	declared    int    // bytes of body
	sent        int    // bytes of it, after which the connection rests; 0: all, and it rests after the answer
	rounds      int    // requests on each connection, of a load that does not rest
	unguarded   string // the handlers to compare with
}

const mega = 1 << 20

// memoryLoads are the loads, scaled down to what the system lets a process open.
func memoryLoads(tb testing.TB, slow, idle, large, rounds int) []memoryLoad {
	tb.Helper()
	var files syscall.Rlimit // Go has raised the soft limit to the hard one
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		tb.Fatal(err)
	}
	if most := int(min(files.Cur, 1<<20)) - 500; idle > most {
		fmt.Fprintf(os.Stderr, "only %d connections instead of %d: a process may open %d files here\n", most, idle, files.Cur)
		idle, slow = most, min(slow, most)
	}
	const reader = `{"handler":"timguard_test_read"}`
	return []memoryLoad{
		{name: "half of 64 kB", connections: slow, declared: 64 << 10, sent: 32 << 10, unguarded: reader},
		{name: "100 B of 1 MiB", connections: slow, declared: mega, sent: 100, unguarded: reader},
		{name: "idle", connections: idle, declared: 230},
		{name: "1 MiB", connections: large, declared: mega, rounds: rounds},
	}
}

// request is the request as bytes: all of it, or as much as is sent.
func (l memoryLoad) request() []byte {
	command, body := costBody(min(l.declared, mega-2<<10)) // there is more around the text
	if l.sent == 0 {
		return costRequest(command, body)
	}
	head := costRequest(command, nil)
	head = bytes.Replace(head, []byte("Content-Length: 0"), fmt.Appendf(nil, "Content-Length: %d", l.declared), 1)
	return append(head, body[:l.sent]...)
}

// heldOf is what the guard holds of a body of which so many bytes have come: the
// formula that BenchmarkMemory documents.
func heldOf(received int) int {
	room := firstRead
	for room < received {
		room *= growth
	}
	return room
}

// memoryFigures are what a process used before a load, during it and after it.
type memoryFigures struct {
	before, after usage
	resting       usage  // of a load that rests; without garbage
	heap, rss     uint64 // at the most
}

// perConnection is what one connection needs while it rests, in bytes.
func (f memoryFigures) perConnection(l memoryLoad) int {
	return (int(f.resting.Live) - int(f.before.Live)) / l.connections
}

// on measures the load on a Caddy with these handlers.
func (l memoryLoad) on(tb testing.TB, backend *httptest.Server, handlers string) (f memoryFigures) {
	tb.Helper()
	config, addresses := processServers(tb, handlers)
	p := startProcess(tb, config)
	command, body := costBody(230)
	clients := connect(tb, addresses[0], 4)
	clients.drive(tb, costRequest(command, body), 40) // what is made once
	clients.close()
	backend.CloseClientConnections()
	f.before = p.until(func(usage) bool { return true })

	stop := f.sample(p)
	if l.rounds > 0 {
		clients := connect(tb, addresses[0], l.connections)
		clients.drive(tb, l.request(), l.rounds*l.connections)
		clients.close()
	} else {
		connections := l.rest(tb, addresses[0])
		f.resting = p.until(func(u usage) bool { return u.Goroutines >= f.before.Goroutines+l.connections })
		for _, c := range connections {
			_ = c.SetLinger(0) // thousands of ports would be in use for another minute
			_ = c.Close()
		}
	}
	stop()
	backend.CloseClientConnections()
	f.after = p.until(func(u usage) bool { return u.Goroutines <= f.before.Goroutines })
	f.rss = max(f.rss, f.after.Peak)
	return f
}

// sample watches the heap until it is stopped.
func (f *memoryFigures) sample(p *process) (stop func()) {
	done := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() {
		for {
			f.heap = max(f.heap, p.ask(askNothing).Heap)
			select {
			case <-done:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	})
	return func() {
		close(done)
		watch.Wait()
	}
}

// rest makes the connections, sends the request on each as far as the load says,
// and reads the answer if that is all of it.
func (l memoryLoad) rest(tb testing.TB, address string) []*net.TCPConn {
	tb.Helper()
	text := l.request()
	connections := make([]*net.TCPConn, l.connections)
	tb.Cleanup(func() {
		for _, c := range connections {
			if c != nil {
				_ = c.Close()
			}
		}
	})
	var next atomic.Int64
	var dialers sync.WaitGroup
	for range 16 {
		dialers.Go(func() {
			for i := next.Add(1) - 1; i < int64(l.connections); i = next.Add(1) - 1 {
				conn, err := net.Dial("tcp", address)
				if err != nil {
					tb.Error(err)
					return
				}
				connections[i] = conn.(*net.TCPConn)
				if err := l.begin(conn, text); err != nil {
					tb.Error(err)
					return
				}
			}
		})
	}
	dialers.Wait()
	if tb.Failed() {
		tb.FailNow()
	}
	return connections
}

func (l memoryLoad) begin(conn net.Conn, text []byte) error {
	if _, err := conn.Write(text); err != nil || l.sent > 0 {
		return err
	}
	resp, err := http.ReadResponse(bufio.NewReaderSize(conn, 512), nil)
	if err != nil {
		return err
	}
	answer, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d, %s", resp.StatusCode, answer)
	}
	return err
}

// measureMemory puts each load on an unguarded site and on a guarded one, prints
// what they use, and holds the guarded one to the bounds.
func measureMemory(tb testing.TB, loads []memoryLoad) {
	tb.Helper()
	backend := httptest.NewServer(http.HandlerFunc(answering))
	tb.Cleanup(backend.Close)
	proxy := fmt.Sprintf(costProxy, strings.TrimPrefix(backend.URL, "http://"))
	guarded := costGuard(defaultName, costToken, `"commands":["after"],"action":"forward"`) + "," + proxy
	var table strings.Builder
	fmt.Fprintf(&table, "\n%-15s %6s  %-9s  %-23s  %-23s  %s", "load", "conns", "site",
		"heap MiB before/peak/after", "RSS MiB before/peak/after", "kB a connection")
	checks := make([]func(), 0, len(loads))
	for _, l := range loads {
		bare := l.on(tb, backend, cmp.Or(l.unguarded, proxy))
		own := l.on(tb, backend, guarded)
		l.print(&table, "unguarded", bare)
		l.print(&table, "guarded", own)
		checks = append(checks, func() { l.check(tb, bare, own) })
	}
	fmt.Fprintln(os.Stderr, table.String())
	for _, check := range checks {
		check()
	}
}

func (l memoryLoad) print(w io.Writer, site string, f memoryFigures) {
	mib := func(bytes uint64) float64 { return float64(bytes) / mega }
	each := "-"
	if l.rounds == 0 {
		each = fmt.Sprintf("%.1f", float64(f.perConnection(l))/1024)
	}
	fmt.Fprintf(w, "\n%-15s %6d  %-9s  %7.1f %7.1f %7.1f     %7.1f %7.1f %7.1f    %6s", l.name, l.connections, site,
		mib(f.before.Heap), mib(f.heap), mib(f.after.Heap), mib(f.before.RSS), mib(f.rss), mib(f.after.RSS), each)
}

// check fails unless the guarded site needs no more than the formula says, and
// gives it back.
func (l memoryLoad) check(tb testing.TB, bare, own memoryFigures) {
	tb.Helper()
	const little = 2 * mega // of what a runtime does beside it
	body := 0               // of a connection that rests after the answer
	switch {
	case l.sent > 0:
		body = heldOf(l.sent)
	case l.rounds > 0: // and the copy that is forwarded
		body = heldOf(l.declared) + l.declared
	}
	if l.rounds == 0 {
		bound := l.connections*(bare.perConnection(l)+body)*105/100 + little
		if needs := l.connections * own.perConnection(l); needs > bound {
			tb.Errorf("%s: the guarded site needs %d bytes, want at most %d: for each of %d connections %d without a guard, and %d",
				l.name, needs, bound, l.connections, bare.perConnection(l), body)
		}
	}
	// The collector lets the heap grow to twice what lives, and what comes while it
	// runs on a busy machine makes up to a third time. The pieces in which a body
	// came are garbage too: growth times less than the body in all.
	live := l.connections * (bare.perConnection(l) + body + 2*body/growth)
	if bound := int(max(own.before.Heap, bare.heap)) + 3*live + little; int(own.heap) > bound {
		tb.Errorf("%s: a heap of %d bytes, want at most %d", l.name, own.heap, bound)
	}
	// Go keeps what describes a goroutine for the next one.
	kept := max(0, int(bare.after.Live)-int(bare.before.Live))
	if left := int(own.after.Live) - int(own.before.Live); left > kept+little {
		tb.Errorf("%s: %d bytes more in use than before, and %d without a guard", l.name, left, kept)
	}
	if left := own.after.Goroutines - own.before.Goroutines; left > 0 {
		tb.Errorf("%s: %d more goroutines than before", l.name, left)
	}
}

// BenchmarkMemory prints what the guard needs for thousands of clients that are
// slow or idle and for large bodies, beside an unguarded site:
//
//	go test -run '^$' -bench Memory -benchtime 1x ./caddymodule
//
// It fails unless what lives at the worst moment is at most
//
//	connections × (what Caddy needs for one + the body held)
//
// where what Caddy needs is measured in the same run, on a site without a guard,
// and the body held is, while it comes,
//
//	max(4 KiB, 16 × what the client has sent), rounded down to 4 KiB, 64 KiB or 1 MiB
//
// and beyond 1 MiB, where max_body allows it, not more than the client has declared:
// it has to send a sixteenth of what it makes the guard reserve. A body that is
// forwarded is then copied to memory of its own size, and the other serves the next
// one. As with everything written in Go, the heap may be two or three times what
// lives before garbage is collected, which GOMEMLIMIT bounds. Caddy closes a
// connection whose body has paused for a minute. All of it is back afterwards.
func BenchmarkMemory(b *testing.B) {
	for b.Loop() {
		measureMemory(b, memoryLoads(b, 2000, 10000, 100, 5))
	}
	b.ReportMetric(0, "ns/op") // says nothing here
}

// The short form of BenchmarkMemory.
func TestMemoryIsFreed(t *testing.T) {
	measureMemory(t, memoryLoads(t, 200, 1000, 20, 3))
}
