// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/caddytest"

	"github.com/timguard/timguard/caddymodule/callback"
	"github.com/timguard/timguard/caddymodule/internal/guardtest"
)

const (
	// siteURL is where the site under test listens.
	siteURL = "http://localhost:9080"
)

// recallBody returns Tencent's sample of the recall, without its comments.
func recallBody(t *testing.T) []byte {
	t.Helper()
	body, err := os.ReadFile(filepath.Join("callback", "testdata", "recall.json"))
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// goodQuery returns the query of a recall with a valid Sign.
func goodQuery() string {
	return guardtest.Query(guardtest.App, callback.RecallCommand, guardtest.Signed(guardtest.Token, time.Now()))
}

// received is a request that the backend has received.
type received struct {
	Method, URI, Proto string
	Header, Trailer    http.Header
	ContentLength      int64
	TransferEncoding   []string
	Body               []byte
}

// backend records what it receives and answers OK.
type backend struct {
	*httptest.Server

	mu  sync.Mutex
	got []received
}

func newBackend(t *testing.T) *backend {
	t.Helper()
	b := new(backend)
	b.Server = httptest.NewServer(b)
	t.Cleanup(b.Close)
	return b
}

func (b *backend) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	b.mu.Lock()
	b.got = append(b.got, received{
		Method: r.Method, URI: r.RequestURI, Proto: r.Proto, Header: r.Header.Clone(), Trailer: r.Trailer.Clone(),
		ContentLength: r.ContentLength, TransferEncoding: r.TransferEncoding, Body: body,
	})
	b.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, guardtest.OKJSON)
}

// address returns host and port, for reverse_proxy.
func (b *backend) address() string { return b.Listener.Addr().String() }

// take returns the requests that were received since the last call.
func (b *backend) take() []received {
	b.mu.Lock()
	defer b.mu.Unlock()
	got := b.got
	b.got = nil
	return got
}

// takeOne returns the only request that was received. It fails the test if there is not
// exactly one.
func (b *backend) takeOne(t *testing.T) received {
	t.Helper()
	got := b.take()
	if len(got) != 1 {
		t.Fatalf("the backend received %d requests, want 1", len(got))
	}
	return got[0]
}

// takeNone fails the test if a request was received.
func (b *backend) takeNone(t *testing.T) {
	t.Helper()
	if got := b.take(); len(got) != 0 {
		t.Errorf("the backend received %d requests, want none; the first: %s %s", len(got), got[0].Method, got[0].URI)
	}
}

// site contains parts of a Caddyfile.
type site struct {
	global  string // more global options
	servers string // more options of the server
	log     string // more options of the default log
	body    string // the site's directives
}

// start runs Caddy with the site and returns the name of its log file. Tests that use it
// cannot be parallel, because the ports are fixed.
func (s site) start(t *testing.T) (logFile string) {
	t.Helper()
	logFile = filepath.Join(t.TempDir(), "log.json")
	http.DefaultClient.CloseIdleConnections() // a load closes connections to the admin API
	tester := caddytest.NewTester(t)
	tester.InitServer(s.caddyfile(logFile), "caddyfile")
	if t.Failed() {
		t.FailNow()
	}
	time.Sleep(20 * time.Millisecond) // the previous server may accept and drop one more connection
	return logFile
}

func (s site) caddyfile(logFile string) string {
	return fmt.Sprintf(`{
	skip_install_trust
	admin localhost:2999
	http_port 9080
	https_port 9443
	grace_period 1ns
	log {
		output file %s
		level DEBUG
		%s
	}
	servers {
		protocols h1 h2c
		%s
	}
	%s
}
http://localhost:9080 {
	%s
}
`, logFile, s.log, s.servers, s.global, s.body)
}

// guarded returns a site with a guard of guardtest.App and a proxy to the backend.
func guarded(b *backend, subdirectives ...string) site {
	return site{body: guardtest.Guard(subdirectives...) + "\nreverse_proxy " + b.address()}
}

// protocol is a version of HTTP for callbacks.
type protocol struct {
	name   string
	client *http.Client
}

// protocols returns clients for HTTP/1.1 and h2c.
func protocols(t *testing.T) []protocol {
	t.Helper()
	var all []protocol
	for _, name := range []string{"HTTP/1.1", "h2c"} {
		transport := &http.Transport{Protocols: new(http.Protocols), ExpectContinueTimeout: 5 * time.Second, DisableCompression: true}
		transport.Protocols.SetHTTP1(name == "HTTP/1.1")
		transport.Protocols.SetUnencryptedHTTP2(name == "h2c")
		t.Cleanup(transport.CloseIdleConnections)
		all = append(all, protocol{name, &http.Client{Transport: transport, Timeout: 10 * time.Second}})
	}
	return all
}

// request describes a request of a test.
type request struct {
	method  string // POST without
	path    string
	query   string
	body    []byte
	chunked bool // without Content-Length
	header  http.Header
	trailer http.Header // of a chunked request
}

// response is the response to a request.
type response struct {
	status int
	header http.Header
	body   []byte
}

func (p protocol) send(t *testing.T, q request) response {
	t.Helper()
	if q.method == "" {
		q.method = http.MethodPost
	}
	var body io.Reader = bytes.NewReader(q.body)
	if q.chunked {
		body = struct{ io.Reader }{body}
	}
	req, err := http.NewRequestWithContext(t.Context(), q.method, siteURL+q.path+"?"+q.query, body)
	if err != nil {
		t.Fatal(err)
	}
	for name, values := range q.header {
		req.Header[name] = slices.Clone(values)
	}
	req.Trailer = q.trailer
	resp, err := p.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	return readResponse(t, resp)
}

func readResponse(t *testing.T, resp *http.Response) response {
	t.Helper()
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response{resp.StatusCode, resp.Header, body}
}

// wantOK fails the test unless the answer is OK in Tencent's format.
func (r response) wantOK(t *testing.T) {
	t.Helper()
	if r.status != http.StatusOK || string(r.body) != guardtest.OKJSON {
		t.Errorf("answer %d %s, want 200 %s", r.status, r.body, guardtest.OKJSON)
	}
}

// wantRefused fails the test unless the answer is FAIL for the reason, with all three
// fields of Tencent's format.
func (r response) wantRefused(t *testing.T, status int, reason callback.Reason) {
	t.Helper()
	if r.status != status {
		t.Errorf("status %d, want %d: %s", r.status, status, r.body)
	}
	if got := r.header.Get("Content-Type"); got != "application/json" {
		t.Errorf("Content-Type %q, want application/json", got)
	}
	var answer map[string]any
	if err := json.Unmarshal(r.body, &answer); err != nil {
		t.Fatalf("answer %q: %v", r.body, err)
	}
	if answer["ActionStatus"] != "FAIL" || answer["ErrorCode"] == nil || answer["ErrorCode"] == 0.0 || len(answer) != 3 {
		t.Errorf("answer %s, want ActionStatus FAIL, ErrorInfo and a non-zero ErrorCode", r.body)
	}
	if info, _ := answer["ErrorInfo"].(string); !strings.HasPrefix(info, string(reason)+": ") {
		t.Errorf("ErrorInfo %q, want one that begins with %q", info, reason)
	}
}

// logLines returns the lines of a log file, as soon as one satisfies the
// condition: the access log is written after the answer.
func logLines(t *testing.T, file string, until func(line map[string]any) bool) []map[string]any {
	t.Helper()
	for deadline := time.Now().Add(3 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var lines []map[string]any
		for line := range bytes.Lines(data) {
			var fields map[string]any
			if json.Unmarshal(line, &fields) == nil {
				lines = append(lines, fields)
			}
		}
		if slices.ContainsFunc(lines, until) {
			return lines
		}
		if time.Now().After(deadline) {
			t.Fatalf("no such line in the log:\n%s", data)
		}
	}
}
