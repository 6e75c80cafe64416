// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/timguard/timguard/caddymodule/callback"
	"github.com/timguard/timguard/caddymodule/internal/guardtest"
)

// atOnce is the time limit for an immediate answer.
const atOnce = 500 * time.Millisecond

// wire is a connection to the site on which a test writes HTTP/1.1 itself.
type wire struct {
	net.Conn
	r *bufio.Reader
}

func dial(t *testing.T) wire {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", "127.0.0.1:9080")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return wire{conn, bufio.NewReader(conn)}
}

// post writes a request's header, with additional lines, and the beginning of the body.
func (c wire) post(t *testing.T, query, headers, body string) {
	t.Helper()
	_, err := fmt.Fprintf(c, "POST /?%s HTTP/1.1\r\nHost: localhost:9080\r\n%s\r\n%s", query, headers, body)
	if err != nil {
		t.Fatal(err)
	}
}

func (c wire) response(t *testing.T) response {
	t.Helper()
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp.Close { // ReadResponse has moved it from the header
		resp.Header.Set("Connection", "close")
	}
	return readResponse(t, resp)
}

func TestEndToEndRefusesWithoutReadingTheBody(t *testing.T) {
	b := newBackend(t)
	guarded(b, "max_body 1KiB").start(t)
	const sized = "Content-Length: 300\r\n"
	tests := map[string]struct {
		query, headers string
		status         int
		reason         callback.Reason
	}{
		"query":     {goodQuery() + "&Sign=1", sized, 400, "query"},
		"app":       {guardtest.Query("1", callback.RecallCommand, ""), sized, 403, "app"},
		"unsigned":  {guardtest.Query(guardtest.App, callback.RecallCommand, ""), sized, 401, "unsigned"},
		"stale":     {guardtest.Query(guardtest.App, callback.RecallCommand, guardtest.Signed(guardtest.Token, time.Now().Add(-time.Hour))), sized, 401, "stale"},
		"sign":      {guardtest.Query(guardtest.App, callback.RecallCommand, guardtest.Signed("x", time.Now())), sized, 401, "sign"},
		"chunked":   {guardtest.Query(guardtest.App, callback.RecallCommand, guardtest.Signed("x", time.Now())), "Transfer-Encoding: chunked\r\n", 401, "sign"},
		"oversized": {goodQuery(), "Content-Length: 5000\r\n", 413, "too_large"},
		"encoding":  {goodQuery(), sized + "Content-Encoding: gzip\r\n", 415, "encoding"},
	}
	for name, tt := range tests {
		t.Run("HTTP/1.1/"+name, func(t *testing.T) {
			c := dial(t)
			start := time.Now()
			c.post(t, tt.query, tt.headers+"Expect: 100-continue\r\n", "")
			resp := c.response(t) // a 100 Continue would come here
			if took := time.Since(start); took > atOnce {
				t.Errorf("the answer took %s", took)
			}
			if resp.header.Get("Connection") != "close" {
				t.Error("no Connection: close, without which the server reads the body after all")
			}
			resp.wantRefused(t, tt.status, tt.reason)
		})
		if tt.headers != sized {
			continue // a client of HTTP/2 says no more than that
		}
		t.Run("h2c/"+name, func(t *testing.T) {
			body, more := io.Pipe() // a body that never comes
			t.Cleanup(func() { _ = more.Close() })
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, siteURL+"/?"+tt.query, body)
			if err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			resp, err := protocols(t)[1].client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			if took := time.Since(start); took > atOnce {
				t.Errorf("the answer took %s", took)
			}
			readResponse(t, resp).wantRefused(t, tt.status, tt.reason)
		})
	}
	b.takeNone(t)
}

func TestEndToEndSendsOne100ContinueForGoodCalls(t *testing.T) {
	b := newBackend(t)
	guarded(b).start(t)
	body := recallBody(t)
	for name, tt := range map[string]struct{ headers, body string }{
		"sized":   {fmt.Sprintf("Content-Length: %d\r\n", len(body)), string(body)},
		"chunked": {"Transfer-Encoding: chunked\r\n", fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(body), body)},
	} {
		t.Run(name, func(t *testing.T) {
			c := dial(t)
			q := goodQuery()
			c.post(t, q, tt.headers+"Expect: 100-continue\r\n", "")
			if resp := c.response(t); resp.status != http.StatusContinue {
				t.Fatalf("status %d, want 100", resp.status)
			}
			if _, err := io.WriteString(c, tt.body); err != nil {
				t.Fatal(err)
			}
			c.response(t).wantOK(t)
			got := b.takeOne(t)
			wantSame(t, got, request{path: "/", query: q, body: body})
			if got.Header.Get("Expect") != "" {
				t.Errorf("Expect %q reached the backend", got.Header.Get("Expect"))
			}
			// The connection can be used again.
			c.post(t, q, fmt.Sprintf("Content-Length: %d\r\n", len(body)), string(body))
			c.response(t).wantOK(t)
			b.takeOne(t)
		})
	}
}

func TestEndToEndRefusesATruncatedBody(t *testing.T) {
	b := newBackend(t)
	guarded(b).start(t)
	for name, tt := range map[string]struct{ headers, body string }{
		"sized":     {"Content-Length: 300\r\n", `{"CallbackCommand":`},
		"chunked":   {"Transfer-Encoding: chunked\r\n", "13\r\n{\"CallbackCommand\":\r\n"},
		"bad chunk": {"Transfer-Encoding: chunked\r\n", "13\r\n{\"CallbackCommand\":\r\nxyz\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			c := dial(t)
			c.post(t, goodQuery(), tt.headers, tt.body)
			if err := c.Conn.(*net.TCPConn).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			c.response(t).wantRefused(t, http.StatusBadRequest, callback.ReasonBody)
			b.takeNone(t)
		})
	}
}

func TestEndToEndRefusesABodyThatDoesNotArriveInTime(t *testing.T) {
	b := newBackend(t)
	s := guarded(b)
	s.servers = "timeouts {\n read_body 300ms\n }"
	s.start(t)
	c := dial(t)
	c.post(t, goodQuery(), "Content-Length: 300\r\n", `{"CallbackCommand":`)
	c.response(t).wantRefused(t, http.StatusRequestTimeout, callback.ReasonBody)
	b.takeNone(t)
}

// The part of a body that report mode has read is forwarded, followed by the rest.
func TestEndToEndReportModeForwardsALateBody(t *testing.T) {
	b := newBackend(t)
	guarded(b, "mode report", "max_body 10").start(t)
	c := dial(t)
	first, second := strings.Repeat("a", 100), strings.Repeat("b", 5000)
	c.post(t, goodQuery(), "Transfer-Encoding: chunked\r\n", fmt.Sprintf("%x\r\n%s\r\n", len(first), first))
	time.Sleep(50 * time.Millisecond)
	if _, err := fmt.Fprintf(c, "%x\r\n%s\r\n0\r\n\r\n", len(second), second); err != nil {
		t.Fatal(err)
	}
	c.response(t).wantOK(t)
	if got := b.takeOne(t).Body; !bytes.Equal(got, []byte(first+second)) {
		t.Errorf("the backend received %d bytes, want %d", len(got), len(first+second))
	}
}

func TestEndToEndRespectsTheLimitOfRequestBody(t *testing.T) {
	b := newBackend(t)
	s := guarded(b)
	s.body = "request_body {\n max_size 100\n }\n" + s.body
	s.start(t)
	for _, p := range protocols(t) {
		t.Run(p.name, func(t *testing.T) {
			p.send(t, request{query: goodQuery(), body: recallBody(t), chunked: true}).
				wantRefused(t, http.StatusRequestEntityTooLarge, callback.ReasonTooLarge)
			b.takeNone(t)
		})
	}
}

// closing is a backend that answers the first request of a connection, and closes the
// connection without an answer when it receives the second.
func closing(t *testing.T) (address string, answered func() int) {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	done := make(chan int, 100)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				r := bufio.NewReader(conn)
				req, err := http.ReadRequest(r)
				if err != nil {
					return
				}
				n, _ := io.Copy(io.Discard, req.Body)
				_, _ = fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(guardtest.OKJSON), guardtest.OKJSON)
				done <- int(n)
				if req, err = http.ReadRequest(r); err == nil {
					_, _ = io.Copy(io.Discard, req.Body)
				}
			}()
		}
	}()
	return listener.Addr().String(), func() int {
		select {
		case n := <-done:
			return n
		case <-time.After(5 * time.Second):
			return -1
		}
	}
}

func TestEndToEndRetriesOverANewConnection(t *testing.T) {
	address, answered := closing(t)
	// A POST is sent again only if it says that it may be.
	site{body: guardtest.Guard() + "\nreverse_proxy " + address + " {\n header_up Idempotency-Key 1\n }"}.start(t)
	p := protocols(t)[0]
	for _, chunked := range []bool{false, true, false} {
		p.send(t, request{query: goodQuery(), body: recallBody(t), chunked: chunked}).wantOK(t)
		if n := answered(); n != len(recallBody(t)) {
			t.Errorf("the backend received %d bytes, want %d", n, len(recallBody(t)))
		}
	}
}
