// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/timguard/timguard/caddymodule/callback"
	"github.com/timguard/timguard/caddymodule/internal/guardtest"
)

// faultScale makes the suite of faults longer:
//
//	go test -run Faults ./caddymodule -timguard.faults 10
var faultScale = flag.Int("timguard.faults", 1, "how many times as long the tests of faults run, where more can find more")

// faultyBackend is a backend on raw connections. It records complete bodies.
type faultyBackend struct {
	address string
	hungUp  atomic.Int64 // connections that the other side has closed while it waited

	mu     sync.Mutex
	bodies [][]byte
}

// newFaultyBackend starts a backend that calls the function with each connection and then
// closes it.
func newFaultyBackend(t *testing.T, do func(b *faultyBackend, conn *net.TCPConn, r *bufio.Reader)) *faultyBackend {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	b := &faultyBackend{address: listener.Addr().String()}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				do(b, conn.(*net.TCPConn), bufio.NewReader(conn))
			}()
		}
	}()
	return b
}

// read reads a request, and reports whether it was complete.
func (b *faultyBackend) read(r *bufio.Reader) bool {
	req, err := http.ReadRequest(r)
	if err != nil {
		return false
	}
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.bodies = append(b.bodies, body)
	return true
}

// wait waits until the peer closes the connection.
func (b *faultyBackend) wait(conn *net.TCPConn) {
	untilClosed(conn)
	b.hungUp.Add(1)
}

// seen returns how often each body was received.
func (b *faultyBackend) seen() map[string]int {
	b.mu.Lock()
	defer b.mu.Unlock()
	seen := make(map[string]int)
	for _, body := range b.bodies {
		seen[string(body)]++
	}
	return seen
}

// wantSeen fails the test unless exactly these bodies were received, each once.
func (b *faultyBackend) wantSeen(t *testing.T, bodies ...[]byte) {
	t.Helper()
	want := make(map[string]int)
	for _, body := range bodies {
		want[string(body)] = 1
	}
	if got := b.seen(); !maps.Equal(got, want) {
		t.Errorf("the backend received %v, want %v", got, want)
	}
}

const keptAlive = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n" + guardtest.OKJSON

// numbered returns a unique callback.
func numbered(i int) request {
	return request{
		path:  "/callback",
		query: goodQuery(),
		body:  fmt.Appendf(nil, `{"CallbackCommand":%q,"Operator_Account":"admin","Type":"Public","GroupId":"g","MsgSeqList":[{"MsgSeq":%d}]}`, callback.RecallCommand, i+1),
	}
}

// atRest fails the test at its end unless all goroutines have ended that were started
// after the call. Goroutines of later cleanups do not count.
func atRest(t *testing.T) {
	t.Helper()
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		deadline := time.Now().Add(5 * time.Second)
		for runtime.NumGoroutine() > before && time.Now().Before(deadline) {
			time.Sleep(10 * time.Millisecond)
		}
		if n := runtime.NumGoroutine(); n > before {
			stacks := make([]byte, 1<<16)
			t.Errorf("%d goroutines, %d before:\n%s", n, before, stacks[:runtime.Stack(stacks, true)])
		}
	})
}

// serveAtRest is like serve, but all goroutines must have ended at the end of the test.
func serveAtRest(t *testing.T, directives string) *guardedServer {
	t.Helper()
	atRest(t)
	return serve(t, directives, nil)
}

// proxyTo is a proxy whose idle connections are closed with the site: Caddy does
// that only for a transport that has options.
func proxyTo(address string) string {
	return "\nreverse_proxy " + address + " {\n transport http {\n keepalive 1m\n }\n}"
}

// counted returns the sum of a metric over the label values that contain the text.
func (s *guardedServer) counted(t *testing.T, name, label string) (sum float64) {
	t.Helper()
	families, err := s.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if family.GetName() != "caddy_tim_callback_"+name || !strings.Contains(fmt.Sprint(m.GetLabel()), `"`+label+`"`) {
				continue
			}
			sum += m.GetCounter().GetValue()
		}
	}
	return sum
}

// wantCounted waits until the metric is one more than the earlier value.
func (s *guardedServer) wantCounted(t *testing.T, name, label string, before float64) {
	t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for s.counted(t, name, label) == before && time.Now().Before(deadline) {
		time.Sleep(5 * time.Millisecond)
	}
	if got := s.counted(t, name, label); got != before+1 {
		t.Errorf("%s of %q rose by %v, want 1", name, label, got-before)
	}
}

// outcome is everything that a caller can observe.
func (s *guardedServer) outcome(ctx context.Context, q request) string {
	got, _, err := s.call(ctx, q)
	got.header.Del("Date")
	var timeout net.Error
	switch {
	case errors.As(err, &timeout) && timeout.Timeout():
		return "timeout"
	case err != nil && got.status != 0:
		return fmt.Sprintf("%d, broken off after %q", got.status, got.body)
	case err != nil:
		return err.Error()
	}
	return fmt.Sprintf("%d %q %v", got.status, got.body, got.header)
}

// Faults of the backend pass through: caller and backend see the same as without a guard.
func TestFaultsOfTheBackendPassThrough(t *testing.T) {
	for name, tt := range map[string]struct {
		do   func(b *faultyBackend, conn *net.TCPConn, r *bufio.Reader) // nil: down
		want string                                                     // the caller sees something with this beginning
		seen bool
	}{
		"down":    {nil, `502 "" `, false},
		"hanging": {func(b *faultyBackend, conn *net.TCPConn, r *bufio.Reader) { b.read(r); b.wait(conn) }, "timeout", true},
		"hanging in the answer": {func(b *faultyBackend, conn *net.TCPConn, r *bufio.Reader) {
			b.read(r)
			_, _ = io.WriteString(conn, keptAlive[:len(keptAlive)-20])
			b.wait(conn)
		}, "timeout", true},
		"closing":   {func(b *faultyBackend, _ *net.TCPConn, r *bufio.Reader) { b.read(r) }, `502 "" `, true},
		"resetting": {func(b *faultyBackend, conn *net.TCPConn, r *bufio.Reader) { b.read(r); _ = conn.SetLinger(0) }, `502 "" `, true},
		"resetting mid-answer": {func(b *faultyBackend, conn *net.TCPConn, r *bufio.Reader) {
			b.read(r)
			_, _ = io.WriteString(conn, keptAlive[:len(keptAlive)-20])
			time.Sleep(20 * time.Millisecond) // a reset overtakes what is still to be read
			_ = conn.SetLinger(0)
		}, "200, broken off after ", true},
		"closing mid-answer": {func(b *faultyBackend, conn *net.TCPConn, r *bufio.Reader) {
			b.read(r)
			_, _ = io.WriteString(conn, keptAlive[:len(keptAlive)-20])
		}, "200, broken off after ", true},
		"no HTTP": {func(b *faultyBackend, conn *net.TCPConn, r *bufio.Reader) {
			b.read(r)
			_, _ = io.WriteString(conn, "SSH-2.0-x\r\n\r\n")
		}, `502 "" `, true},
		"its own error": {func(b *faultyBackend, conn *net.TCPConn, r *bufio.Reader) {
			b.read(r)
			_, _ = io.WriteString(conn, wholeAnswer("503 Service Unavailable", "X-Own: 1\r\n", "later"))
		}, `503 "later" `, true},
	} {
		t.Run(name, func(t *testing.T) {
			outcomes := make(map[string]string)
			for _, site := range []string{"", guardtest.Guard()} {
				b := newFaultyBackend(t, tt.do)
				if tt.do == nil {
					b.address = nobody(t)
				}
				s := serveAtRest(t, site+proxyTo(b.address))
				q := numbered(0)
				if tt.want == "timeout" {
					s.client.Timeout = 200 * time.Millisecond
				}
				outcomes[site] = s.outcome(t.Context(), q)
				if !strings.HasPrefix(outcomes[site], tt.want) {
					t.Errorf("the caller sees %s, want %s", outcomes[site], tt.want)
				}
				s.stop() // also what was sent again would have come by then
				if tt.seen {
					b.wantSeen(t, q.body)
				} else {
					b.wantSeen(t)
				}
				if tt.want == "timeout" {
					b.wantHungUp(t, 1)
				}
			}
			if outcomes[""] != outcomes[guardtest.Guard()] {
				t.Errorf("the caller sees %s\nand without a guard %s", outcomes[guardtest.Guard()], outcomes[""])
			}
		})
	}
}

// wantHungUp fails the test unless the connections are soon closed: nothing must wait for
// an answer that is no longer needed.
func (b *faultyBackend) wantHungUp(t *testing.T, n int64) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); b.hungUp.Load() < n && time.Now().Before(deadline); {
		time.Sleep(5 * time.Millisecond)
	}
	if got := b.hungUp.Load(); got != n {
		t.Errorf("%d connections to the backend were given up, want %d", got, n)
	}
}

// nobody returns an address on which nothing listens.
func nobody(t *testing.T) string {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = listener.Close()
	return listener.Addr().String()
}

func TestFaultsOfTheBackendGetTheFallback(t *testing.T) {
	const deadline = 300 * time.Millisecond
	for name, do := range map[string]func(b *faultyBackend, conn *net.TCPConn, r *bufio.Reader){
		"down":      nil,
		"hanging":   func(b *faultyBackend, conn *net.TCPConn, r *bufio.Reader) { b.read(r); b.wait(conn) },
		"resetting": func(b *faultyBackend, conn *net.TCPConn, r *bufio.Reader) { b.read(r); _ = conn.SetLinger(0) },
	} {
		t.Run(name, func(t *testing.T) {
			b := newFaultyBackend(t, do)
			if do == nil {
				b.address = nobody(t)
			}
			s := serveAtRest(t, fallbackRules(deadline)+proxyTo(b.address))
			q := sampleOf(beforeSend)
			got, took := s.post(t, q)
			got.wantAnswer(t, `{"ActionStatus":"OK","ErrorInfo":"not \"now\"","ErrorCode":10123}`)
			if took > deadline+slack {
				t.Errorf("it took %s, want at most %s", took, deadline)
			}
			s.stop()
			if do == nil {
				b.wantSeen(t)
				return
			}
			b.wantSeen(t, q.body)
			if name == "hanging" {
				b.wantHungUp(t, 1)
			}
		})
	}
}

// early is a backend that answers after it has read a part of the body, and then reads the
// rest slowly. It checks what it reads: bytes of another callback would show that a
// buffer was reused too early.
func early(t *testing.T, checked *atomic.Int64) (address string) {
	t.Helper()
	return newFaultyBackend(t, func(_ *faultyBackend, conn *net.TCPConn, r *bufio.Reader) {
		_ = conn.SetReadBuffer(32 << 10)
		for {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			if _, err := io.WriteString(conn, keptAlive); err != nil {
				return
			}
			n, err := readSlowly(t, req)
			checked.Add(n)
			if err != nil {
				return
			}
		}
	}).address
}

// readSlowly reads the body of a callback and compares it with the expected one.
func readSlowly(t *testing.T, req *http.Request) (checked int64, err error) {
	id, err := strconv.Atoi(req.URL.Query().Get("Id"))
	if err != nil {
		t.Error(err)
		return 0, err
	}
	want := largeBody(id)
	got := make([]byte, 16<<10)
	for err == nil {
		time.Sleep(200 * time.Microsecond)
		var n int
		n, err = req.Body.Read(got)
		if !bytes.HasPrefix(want, got[:n]) {
			t.Errorf("callback %d reached the backend as %.100q, want %.100q", id, got[:n], want)
			return checked, errors.New("not the same")
		}
		want = want[n:]
		checked += int64(n)
	}
	if errors.Is(err, io.EOF) && len(want) == 0 {
		err = nil
	}
	return checked, err
}

// largeBody returns a payload that differs from others in every part.
func largeBody(id int) []byte {
	text := strings.Repeat(fmt.Sprintf("callback %06d ", id), 20000)
	return append(fmt.Appendf(nil, `{"Text":%q,`, text), callback.Sample(beforeSend)[1:]...)
}

// A backend may answer before it has received the whole body. All parts must be of the
// right callback.
func TestFaultsBackendAnswersEarly(t *testing.T) {
	for name, rule := range map[string]string{
		"forward":  "on before forward",
		"fallback": "on before forward {\n deadline 10s\n fallback allow\n }",
	} {
		t.Run(name, func(t *testing.T) {
			var checked atomic.Int64
			address := early(t, &checked)
			s := serveAtRest(t, guardtest.Guard(rule)+proxyTo(address))
			var next atomic.Int64
			var callers sync.WaitGroup
			for range 16 {
				callers.Go(func() {
					for id := next.Add(1); id <= int64(48**faultScale); id = next.Add(1) {
						q := request{query: sampleOf(beforeSend).query + "&Id=" + strconv.FormatInt(id, 10), body: largeBody(int(id))}
						got, _, err := s.call(t.Context(), q)
						if err != nil || got.status != http.StatusOK || string(got.body) != guardtest.OKJSON {
							t.Errorf("callback %d: answer %d %s, %v", id, got.status, got.body, err)
						}
					}
				})
			}
			callers.Wait()
			t.Logf("the backend checked %d bytes", checked.Load())
			if checked.Load() < 1<<20 {
				t.Error("the backend read next to nothing, so that nothing was tried")
			}
		})
	}
}

// A backend may close a keep-alive connection at any time. A callback that it has not read
// is sent over a new connection; one that it may have read is not sent again.
func TestFaultsBackendClosesKeepAliveConnections(t *testing.T) {
	for name, tt := range map[string]struct {
		answers int           // on each connection
		linger  time.Duration // before the connection is closed
		pause   time.Duration // between two callbacks
	}{
		"after each answer":        {1, 0, 10 * time.Millisecond},
		"after some answers":       {3, 0, 10 * time.Millisecond},
		"while the next one comes": {1, 0, 0},
		"a moment later":           {1, 500 * time.Microsecond, 500 * time.Microsecond},
	} {
		t.Run(name, func(t *testing.T) {
			b := newFaultyBackend(t, func(b *faultyBackend, conn *net.TCPConn, r *bufio.Reader) {
				for range tt.answers {
					if !b.read(r) {
						return
					}
					_, _ = io.WriteString(conn, keptAlive)
				}
				time.Sleep(tt.linger)
			})
			s := serveAtRest(t, guardtest.Guard()+proxyTo(b.address))
			refused := 0
			for i := range 100 * *faultScale {
				q := numbered(i)
				got, _ := s.post(t, q)
				seen := b.seen()[string(q.body)]
				switch {
				case got.status == http.StatusOK && seen == 1:
				case got.status == http.StatusBadGateway && seen == 0 && tt.pause < time.Millisecond:
					refused++ // it was closed when the callback was on its way: nobody can know that it was not read
				default:
					t.Errorf("callback %d: answer %d %s; the backend received it %d times", i, got.status, got.body, seen)
				}
				time.Sleep(tt.pause)
			}
			if refused > 0 {
				t.Logf("%d of %d were on their way when the connection was closed", refused, 100**faultScale)
			}
		})
	}
}

// The backend has read the callback, and may have processed it.
func TestFaultsBackendThatReadACallbackDoesNotGetItAgain(t *testing.T) {
	var first atomic.Bool
	b := newFaultyBackend(t, func(b *faultyBackend, conn *net.TCPConn, r *bufio.Reader) {
		if b.read(r) && !first.Swap(true) {
			_, _ = io.WriteString(conn, keptAlive)
			b.read(r)
		}
	})
	s := serveAtRest(t, guardtest.Guard()+proxyTo(b.address))
	got, _ := s.post(t, numbered(0))
	got.wantOK(t)
	if got, _ = s.post(t, numbered(1)); got.status != http.StatusBadGateway {
		t.Errorf("status %d, want 502", got.status)
	}
	s.stop()
	b.wantSeen(t, numbered(0).body, numbered(1).body)
}

// wireTo is a connection to the server on which a test writes HTTP/1.1 itself.
func wireTo(t *testing.T, address string) wire {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return wire{conn, bufio.NewReader(conn)}
}

// An incomplete body is refused, however the client disconnects.
func TestFaultsClientDisconnectsMidBody(t *testing.T) {
	b := newBackend(t)
	s := serveAtRest(t, guardtest.Guard()+proxyTo(b.address()))
	for name, headers := range map[string]string{"sized": "Content-Length: 300\r\n", "chunked": "Transfer-Encoding: chunked\r\n"} {
		for how, linger := range map[string]int{"closes": -1, "resets": 0} {
			t.Run(name+"/"+how, func(t *testing.T) {
				before := s.counted(t, "rejections_total", string(callback.ReasonBody))
				c := wireTo(t, s.address)
				c.post(t, goodQuery(), headers, "13\r\n{\"CallbackCommand\":\r\n")
				time.Sleep(20 * time.Millisecond)
				_ = c.Conn.(*net.TCPConn).SetLinger(linger)
				_ = c.Close()
				s.wantCounted(t, "rejections_total", string(callback.ReasonBody), before)
				b.takeNone(t)
			})
		}
	}
	wantSound(t, s, b)
}

// wantSound fails the test unless the next callback is forwarded.
func wantSound(t *testing.T, s *guardedServer, b *backend) {
	t.Helper()
	q := numbered(999)
	got, _ := s.post(t, q)
	got.wantOK(t)
	wantSame(t, b.takeOne(t), q)
}

// After an HTTP/2 stream is reset, the connection can still be used.
func TestFaultsClientResetsAStreamMidBody(t *testing.T) {
	b := newBackend(t)
	s := serveAtRest(t, guardtest.Guard()+proxyTo(b.address()))
	client := protocols(t)[1].client
	defer client.CloseIdleConnections()
	for range 20 {
		before := s.counted(t, "rejections_total", string(callback.ReasonBody))
		ctx, cancel := context.WithCancel(t.Context())
		body, more := io.Pipe()
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.address+"/callback?"+goodQuery(), body)
		if err != nil {
			t.Fatal(err)
		}
		gone := make(chan error, 1)
		go func() {
			resp, err := client.Do(req)
			if err == nil {
				_ = resp.Body.Close()
			}
			gone <- err
		}()
		if _, err := io.WriteString(more, `{"CallbackCommand":`); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond)
		cancel()
		if err := <-gone; !errors.Is(err, context.Canceled) {
			t.Errorf("the client sees %v, want its own cancellation", err)
		}
		_ = more.Close()
		s.wantCounted(t, "rejections_total", string(callback.ReasonBody), before)
	}
	b.takeNone(t)
	wantSound(t, s, b)
}

// A body that trickles in is forwarded when it is complete.
func TestFaultsTrickledBodies(t *testing.T) {
	b := newBackend(t)
	s := serveAtRest(t, guardtest.Guard()+proxyTo(b.address()))
	for i, chunked := range []bool{false, true} {
		t.Run(fmt.Sprintf("chunked %t", chunked), func(t *testing.T) {
			q := numbered(i)
			c := wireTo(t, s.address)
			headers, end := fmt.Sprintf("Content-Length: %d\r\n", len(q.body)), ""
			if chunked {
				headers, end = "Transfer-Encoding: chunked\r\n", "0\r\n\r\n"
			}
			q.path = "/"
			c.post(t, q.query, headers, "")
			for _, drop := range q.body {
				b.takeNone(t)
				text := string(drop)
				if chunked {
					text = "1\r\n" + text + "\r\n"
				}
				if _, err := io.WriteString(c, text); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Millisecond)
			}
			if _, err := io.WriteString(c, end); err != nil {
				t.Fatal(err)
			}
			c.response(t).wantOK(t)
			wantSame(t, b.takeOne(t), q)
		})
	}
}

// The timeout read_body limits how long a body may trickle in.
func TestFaultsTrickledBodiesEndInTime(t *testing.T) {
	b := newBackend(t)
	trickled := guarded(b)
	trickled.servers = "timeouts {\n read_body 300ms\n }"
	trickled.start(t)
	atRest(t)
	c := dial(t)
	c.post(t, goodQuery(), "Content-Length: 3000\r\n", "")
	stop := make(chan struct{})
	var dripping sync.WaitGroup
	dripping.Go(func() {
		for err := error(nil); err == nil; {
			select {
			case <-stop:
				return
			case <-time.After(10 * time.Millisecond):
				_, err = io.WriteString(c, " ")
			}
		}
	})
	start := time.Now()
	c.response(t).wantRefused(t, http.StatusRequestTimeout, callback.ReasonBody)
	if took := time.Since(start); took > 300*time.Millisecond+slack {
		t.Errorf("it took %s, want the 300ms of read_body", took)
	}
	close(stop)
	dripping.Wait()
	b.takeNone(t)
}

// A client that waits for a 100 Continue is refused immediately, without one.
func TestFaultsExpectContinueIsRefusedAtOnce(t *testing.T) {
	b := newBackend(t)
	s := serveAtRest(t, guardtest.Guard("max_body 100KiB")+proxyTo(b.address()))
	for name, tt := range map[string]struct {
		query  string
		size   int
		status int
		reason callback.Reason
	}{
		"app":       {guardtest.Query("1", callback.RecallCommand, ""), 300, http.StatusForbidden, callback.ReasonApp},
		"sign":      {guardtest.Query(guardtest.App, callback.RecallCommand, guardtest.Signed("x", time.Now())), 300, http.StatusUnauthorized, callback.ReasonSign},
		"too large": {goodQuery(), 200 << 10, http.StatusRequestEntityTooLarge, callback.ReasonTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			c := wireTo(t, s.address)
			start := time.Now()
			c.post(t, tt.query, fmt.Sprintf("Content-Length: %d\r\nExpect: 100-continue\r\n", tt.size), "")
			c.response(t).wantRefused(t, tt.status, tt.reason) // a 100 Continue would be the response
			if took := time.Since(start); took > atOnce {
				t.Errorf("the answer took %s, want at most %s", took, atOnce)
			}
			b.takeNone(t)
		})
	}
	wantSound(t, s, b)
}

// The clock of this machine, or of Tencent, is wrong by an hour, and then corrected.
func TestFaultsClockSteps(t *testing.T) {
	b := newBackend(t)
	s := serveAtRest(t, guardtest.Guard()+proxyTo(b.address()))
	for name, step := range map[string]time.Duration{"an hour behind": -time.Hour, "an hour ahead": time.Hour} {
		t.Run(name, func(t *testing.T) {
			refused := s.counted(t, "rejections_total", string(callback.ReasonStale))
			count, sum := s.skew(t)
			q := numbered(0)
			q.query = guardtest.Query(guardtest.App, callback.RecallCommand, guardtest.Signed(guardtest.Token, time.Now().Add(-step)))
			got, _ := s.post(t, q)
			got.wantRefused(t, http.StatusUnauthorized, callback.ReasonStale)
			b.takeNone(t)
			s.wantCounted(t, "rejections_total", string(callback.ReasonStale), refused)
			stepped, skewed := s.skew(t)
			if off := skewed - sum; stepped != count+1 || off < step.Seconds()-5 || off > step.Seconds()+5 {
				t.Errorf("the clock is said to be %.0f s ahead, want %.0f", off, step.Seconds())
			}
			wantSound(t, s, b)
			if right, now := s.skew(t); right != stepped+1 || now-skewed < -5 || now-skewed > 5 {
				t.Errorf("the clock is said to be %.0f s ahead when it is right again", now-skewed)
			}
		})
	}
}

// skew returns the count and the sum of the clock skew.
func (s *guardedServer) skew(t *testing.T) (count uint64, sum float64) {
	t.Helper()
	families, err := s.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == "caddy_tim_callback_clock_skew_seconds" {
			h := family.GetMetric()[0].GetHistogram()
			return h.GetSampleCount(), h.GetSampleSum()
		}
	}
	return 0, 0
}

// During reloads under load, all answers are OK, and their callbacks are received once. A
// request on a connection that the old configuration closes gets no answer, and is
// duplicated only if the sender repeats it.
func TestFaultsReloadsUnderLoad(t *testing.T) {
	atRest(t)
	var mu sync.Mutex
	seen := make(map[string]int)
	b := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		seen[r.URL.Query().Get("Id")]++
		mu.Unlock()
		time.Sleep(3 * time.Millisecond) // some are under way at every reload
		answering(w, r)
	}))
	t.Cleanup(b.Close)
	guard := fmt.Sprintf(`{"handler":"tim_callback","apps":[{"sdk_app_id":"1400000000","tokens":[%q]}],"rules":[{"commands":["after"],"action":"forward"}]}`, guardtest.Token)
	proxy := fmt.Sprintf(`{"handler":"reverse_proxy","upstreams":[{"dial":%q}]}`, b.Listener.Addr())
	config, addresses := processServers(t, guard+","+proxy)
	p := startProcess(t, config)
	u := p.until(func(usage) bool { return true })

	load := newReloadLoad(t, addresses[0])
	reloads := 0
	for end := time.Now().Add(4 * time.Second * time.Duration(*faultScale)); time.Now().Before(end) && !t.Failed(); reloads++ {
		next := time.Now().Add(50 * time.Millisecond)
		p.ask(askReload)
		time.Sleep(time.Until(next))
	}
	answered, broken := load.finish()
	t.Logf("%d callbacks, %d reloads; %d connections were closed under a callback", len(answered), reloads, broken)
	if reloads < 20 || len(answered) < 100 {
		t.Errorf("%d reloads and %d callbacks, which is too few to try anything", reloads, len(answered))
	}
	mu.Lock()
	for id, tries := range answered {
		if n := seen[id]; n < 1 || n > tries {
			t.Errorf("callback %s was answered OK and sent %d times; the backend received it %d times", id, tries, n)
		}
	}
	mu.Unlock()
	b.CloseClientConnections()
	if after := p.until(func(now usage) bool { return now.Goroutines <= u.Goroutines }); after.Goroutines > u.Goroutines {
		t.Errorf("%d goroutines after %d reloads, %d before", after.Goroutines, reloads, u.Goroutines)
	}
}

// reloadLoad sends callbacks, each until it is answered.
type reloadLoad struct {
	url     string
	stop    atomic.Bool
	next    atomic.Int64
	callers sync.WaitGroup

	mu       sync.Mutex
	answered map[string]int // how often each callback was sent
	broken   int            // connections without an answer
}

func newReloadLoad(t *testing.T, address string) *reloadLoad {
	t.Helper()
	l := &reloadLoad{url: "http://" + address + "/callback?", answered: make(map[string]int)}
	for i := range 8 {
		l.callers.Go(func() {
			// Half of them make a connection for each callback, as Tencent may.
			transport := &http.Transport{DisableKeepAlives: i%2 == 0}
			defer transport.CloseIdleConnections()
			client := &http.Client{Transport: transport, Timeout: 5 * time.Second}
			for !l.stop.Load() && !t.Failed() {
				l.send(t, client)
			}
		})
	}
	return l
}

func (l *reloadLoad) send(t *testing.T, client *http.Client) {
	n := int(l.next.Add(1))
	id, q := strconv.Itoa(n), numbered(n)
	for tries := 1; ; tries++ {
		status, err := post(t.Context(), client, l.url+q.query+"&Id="+id, q.body)
		l.mu.Lock()
		if err == nil {
			l.answered[id] = tries
		} else {
			l.broken++
		}
		l.mu.Unlock()
		switch {
		case err == nil && status != http.StatusOK:
			t.Errorf("callback %s: status %d", id, status)
			return
		case err == nil:
			return
		case tries == 10:
			t.Errorf("callback %s is lost: %v", id, err)
			return
		}
	}
}

func (l *reloadLoad) finish() (answered map[string]int, broken int) {
	l.stop.Store(true)
	l.callers.Wait()
	return l.answered, l.broken
}

func post(ctx context.Context, client *http.Client, url string, body []byte) (status int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, struct{ io.Reader }{bytes.NewReader(body)})
	if err != nil {
		return 0, err
	}
	req.ContentLength = int64(len(body)) // without GetBody, so that only the test sends again
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}
