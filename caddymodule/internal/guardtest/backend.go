// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package guardtest

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/fcgi"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/timguard/timguard/caddymodule/callback"
)

// Received is a request that the backend received.
type Received struct {
	*http.Request
	Body []byte
	At   time.Time
}

// Backend is a backend whose behavior can be changed, and that records what it
// accepted.
type Backend struct {
	*httptest.Server
	Tries   atomic.Int64 // requests that arrived
	do      atomic.Pointer[http.HandlerFunc]
	closing chan struct{}

	mu       sync.Mutex
	accepted []Received
	byBody   map[string][]Received
}

// NewBackend starts a backend.
func NewBackend(tb testing.TB, do func(b *Backend) http.HandlerFunc) *Backend {
	tb.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	return NewBackendOn(tb, listener, do)
}

// NewBackendOn starts a backend that serves HTTP/1.1 and unencrypted HTTP/2 on the
// listener.
func NewBackendOn(tb testing.TB, listener net.Listener, do func(b *Backend) http.HandlerFunc) *Backend {
	tb.Helper()
	b := newBackend(do)
	b.Server = httptest.NewUnstartedServer(b)
	_ = b.Listener.Close()
	b.Listener = listener
	b.Config.Protocols = new(http.Protocols)
	b.Config.Protocols.SetHTTP1(true)
	b.Config.Protocols.SetUnencryptedHTTP2(true)
	b.Start()
	tb.Cleanup(func() {
		close(b.closing)
		b.CloseClientConnections()
		b.Close()
	})
	return b
}

// NewFastCGI starts a backend that serves FastCGI. Its Server only has the address.
func NewFastCGI(tb testing.TB, do func(b *Backend) http.HandlerFunc) *Backend {
	tb.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	b := newBackend(do)
	b.Server = &httptest.Server{Listener: listener}
	go func() { _ = fcgi.Serve(listener, b) }()
	tb.Cleanup(func() {
		close(b.closing)
		_ = listener.Close()
	})
	return b
}

func newBackend(do func(b *Backend) http.HandlerFunc) *Backend {
	b := &Backend{byBody: make(map[string][]Received), closing: make(chan struct{})}
	b.Will(do)
	return b
}

// Will changes the behavior of the backend.
func (b *Backend) Will(do func(b *Backend) http.HandlerFunc) {
	handler := do(b)
	b.do.Store(&handler)
}

// ServeHTTP implements [http.Handler].
func (b *Backend) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b.Tries.Add(1)
	(*b.do.Load())(w, r)
}

// Address returns host and port.
func (b *Backend) Address() string { return b.Listener.Addr().String() }

func (b *Backend) record(a Received) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.accepted = append(b.accepted, a)
	b.byBody[string(a.Body)] = append(b.byBody[string(a.Body)], a)
}

// All returns what was accepted, in the order of arrival.
func (b *Backend) All() []Received {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.accepted)
}

// Of returns the requests with the payload that were accepted, in the order of arrival.
func (b *Backend) Of(body []byte) []Received {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.byBody[string(body)])
}

// Times returns how often the payload was accepted.
func (b *Backend) Times(body []byte) int { return len(b.Of(body)) }

// Total returns how often any payload was accepted.
func (b *Backend) Total() int { return len(b.All()) }

// Accepts records the callback and answers OK.
func Accepts(b *Backend) http.HandlerFunc { return AcceptsWith(http.StatusOK, OKJSON)(b) }

// AcceptsWith records the callback and answers.
func AcceptsWith(status int, answer string) func(b *Backend) http.HandlerFunc {
	return func(b *Backend) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				return
			}
			b.record(Received{r, body, time.Now()})
			w.WriteHeader(status)
			_, _ = io.WriteString(w, answer)
		}
	}
}

// Answers returns a behavior that responds with the status and body.
func Answers(status int, answer string) func(b *Backend) http.HandlerFunc {
	return func(*Backend) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			w.WriteHeader(status)
			_, _ = io.WriteString(w, answer)
		}
	}
}

// Hangs never answers.
func Hangs(b *Backend) http.HandlerFunc {
	return func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		select {
		case <-r.Context().Done():
		case <-b.closing:
		}
	}
}

// FailJSON asks for another attempt.
const FailJSON = `{"ActionStatus":"FAIL","ErrorInfo":"restarting","ErrorCode":1}`

// Refuses fails in three ways in turn.
func Refuses(b *Backend) http.HandlerFunc {
	ways := []http.HandlerFunc{Answers(http.StatusBadGateway, "")(b), Hangs(b), Answers(http.StatusOK, FailJSON)(b)}
	return func(w http.ResponseWriter, r *http.Request) { ways[b.Tries.Load()%3](w, r) }
}

// Forwarded reports whether the callback was forwarded immediately, because the store
// took too long, which happens on a busy machine. It may have been stored as well.
func (b *Backend) Forwarded(body []byte) bool {
	return slices.ContainsFunc(b.Of(body), Received.AtOnce)
}

// AtOnce reports whether the request is no delivery.
func (a Received) AtOnce() bool { return a.Header.Get("Tim-Delivery-Attempt") == "" }

// WantAll waits until all recalls are accepted, and fails the test unless each was
// either delivered as it was sent, or forwarded immediately.
func (b *Backend) WantAll(t *testing.T, within time.Duration, ids []string) {
	t.Helper()
	Eventually(t, within, fmt.Sprintf("all of %d arrive", len(ids)), func() bool {
		missing := slices.IndexFunc(ids, func(id string) bool { return b.Times(Event(id)) == 0 })
		return missing < 0
	})
	for _, id := range ids {
		for _, a := range b.Of(Event(id)) {
			if a.AtOnce() {
				continue
			}
			if err := a.IsDelivery("/callback", Token); err != nil {
				t.Fatalf("callback %s: %v", id, err)
			}
		}
	}
}

// IsDelivery returns an error unless the attempt is a delivery of a recall, with a new
// Sign by the token and without the old one.
func (a Received) IsDelivery(path, token string) error {
	if n, err := strconv.Atoi(a.Header.Get("Tim-Delivery-Attempt")); err != nil || n < 1 {
		return fmt.Errorf("%s is %q, want a number", "Tim-Delivery-Attempt", a.Header.Get("Tim-Delivery-Attempt"))
	}
	auth, found := strings.CutPrefix(a.RequestURI, path+"?"+Query(App, callback.RecallCommand, "")+"&")
	values, err := url.ParseQuery(auth)
	if !found || err != nil || len(values) != 2 || len(values["Sign"]) != 1 || len(values["RequestTime"]) != 1 {
		return fmt.Errorf("URI %s, want the original without its Sign and then a fresh one", a.RequestURI)
	}
	requestTime := values.Get("RequestTime")
	if seconds, _ := strconv.ParseInt(requestTime, 10, 64); a.At.Unix()-seconds > 10 || a.At.Unix() < seconds {
		return fmt.Errorf("RequestTime %s of a delivery at %d is not fresh", requestTime, a.At.Unix())
	}
	if values.Get("Sign") != callback.Sign(token, requestTime) {
		return fmt.Errorf("the Sign of %s is wrong", a.RequestURI)
	}
	if a.ContentLength != int64(len(a.Body)) || a.Header.Get("Content-Type") != "application/json" {
		return fmt.Errorf("Content-Length %d, Content-Type %q", a.ContentLength, a.Header.Get("Content-Type"))
	}
	return nil
}

// One waits for the payload and returns the accepted request.
func (b *Backend) One(t *testing.T, body []byte) Received {
	t.Helper()
	Eventually(t, 20*time.Second, "the callback arrives", func() bool { return b.Times(body) > 0 })
	return b.Of(body)[0]
}

// Delivering returns the directives of a site that stores recalls for the backend.
func Delivering(b *Backend, subdirectives ...string) string {
	return Guard(append([]string{"on after deliver", "on before forward", "backend " + b.Address()}, subdirectives...)...)
}
