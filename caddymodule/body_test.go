// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/timguard/timguard/caddymodule/callback"
	"github.com/timguard/timguard/caddymodule/internal/guardtest"
)

// untouchable is a body that fails the test if it is read.
type untouchable struct{ t *testing.T }

func (u untouchable) Read([]byte) (int, error) {
	u.t.Error("the body was read")
	return 0, io.EOF
}

func (untouchable) Close() error { return nil }

func newPost(t *testing.T, query string, body io.Reader) *http.Request {
	t.Helper()
	return httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/callback?"+query, body)
}

// provisioned returns a handler after Provision and Validate.
func provisioned(t *testing.T, h *Handler) *Handler {
	t.Helper()
	if err := provision(t, h); err != nil {
		t.Fatal(err)
	}
	return h
}

func TestBodyIsNotReadBeforeAppAndSignAreVerified(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for name, tt := range map[string]struct {
		query    string
		encoding string
		length   int64
		reason   callback.Reason
	}{
		"query":     {query: goodQuery() + "&Sign=1", reason: callback.ReasonQuery},
		"app":       {query: guardtest.Query("1", callback.RecallCommand, guardtest.Signed("x", now)), reason: callback.ReasonApp},
		"unsigned":  {query: guardtest.Query(guardtest.App, callback.RecallCommand, ""), reason: callback.ReasonUnsigned},
		"stale":     {query: guardtest.Query(guardtest.App, callback.RecallCommand, guardtest.Signed(guardtest.Token, now.Add(-time.Hour))), reason: callback.ReasonStale},
		"sign":      {query: guardtest.Query(guardtest.App, callback.RecallCommand, guardtest.Signed("x", now)), reason: callback.ReasonSign},
		"command":   {query: guardtest.Query(guardtest.App, "Other", guardtest.Signed(guardtest.Token, now)), length: 300, reason: callback.ReasonCommand},
		"encoding":  {query: goodQuery(), encoding: "gzip", reason: callback.ReasonEncoding},
		"encodings": {query: goodQuery(), encoding: "identity, gzip", reason: callback.ReasonEncoding},
		"length":    {query: goodQuery(), length: 2000, reason: callback.ReasonTooLarge},
	} {
		t.Run(name, func(t *testing.T) { // not parallel: that could wait for longer than the window
			h := provisioned(t, &Handler{Apps: []App{{SdkAppID: guardtest.App, Tokens: []string{guardtest.Token}}}, MaxBody: 1000})
			r := newPost(t, tt.query, untouchable{t})
			r.ContentLength = tt.length
			if tt.encoding != "" {
				r.Header.Set("Content-Encoding", tt.encoding)
			}
			w := httptest.NewRecorder()
			if err := h.ServeHTTP(w, r, forbidden(t)); err != nil {
				t.Fatal(err)
			}
			response{w.Code, w.Header(), w.Body.Bytes()}.wantRefused(t, statuses[tt.reason], tt.reason)
		})
	}
}

// forbidden is a handler that must not be reached.
func forbidden(t *testing.T) caddyhttp.Handler {
	t.Helper()
	return caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error {
		t.Error("the request was forwarded")
		return nil
	})
}

func TestBodyIsReadUpToTheLimit(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		body   io.Reader
		length int64 // declared
		want   string
		reason callback.Reason // empty if it is good
	}{
		"empty":             {strings.NewReader(""), 0, "", ""},
		"at the limit":      {strings.NewReader("0123456789"), 10, "0123456789", ""},
		"unknown length":    {strings.NewReader("0123456789"), -1, "0123456789", ""},
		"byte by byte":      {iotest.OneByteReader(strings.NewReader("0123456789")), -1, "0123456789", ""},
		"data and EOF":      {iotest.DataErrReader(strings.NewReader("0123456789")), -1, "0123456789", ""},
		"declared over it":  {untouchable{t}, 11, "", callback.ReasonTooLarge},
		"over it":           {strings.NewReader("0123456789a"), -1, "", callback.ReasonTooLarge},
		"broken":            {io.MultiReader(strings.NewReader("01"), iotest.ErrReader(io.ErrUnexpectedEOF)), 5, "", callback.ReasonBody},
		"late":              {iotest.ErrReader(os.ErrDeadlineExceeded), 5, "", callback.ReasonBody},
		"limited elsewhere": {iotest.ErrReader(caddyhttp.Error(413, &http.MaxBytesError{Limit: 3})), 5, "", callback.ReasonTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newPost(t, "", nil)
			r.Body, r.ContentLength = io.NopCloser(tt.body), tt.length
			var b body
			err := b.read(r, 10)
			rejection, _ := errors.AsType[*callback.Rejection](err)
			switch {
			case tt.reason == "" && err != nil:
				t.Errorf("error %v", err)
			case tt.reason == "" && (!b.whole || string(b.bytes) != tt.want):
				t.Errorf("read %q, want %q", b.bytes, tt.want)
			case tt.reason != "" && (rejection == nil || rejection.Reason != tt.reason):
				t.Errorf("error %v, want a rejection as %s", err, tt.reason)
			}
		})
	}
}

func TestBodyIsRestored(t *testing.T) {
	t.Parallel()
	const text = "0123456789abcdefghij"
	for name, limit := range map[string]int64{"whole": 100, "in part": 5} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newPost(t, "", struct{ io.Reader }{strings.NewReader(text)})
			var b body
			_ = b.read(r, limit)
			b.restore(r)
			if got, err := io.ReadAll(r.Body); err != nil || string(got) != text {
				t.Errorf("read %q and %v, want %q", got, err, text)
			}
		})
	}
	t.Run("with its error", func(t *testing.T) {
		t.Parallel()
		r := newPost(t, "", io.MultiReader(strings.NewReader("01"), iotest.ErrReader(io.ErrUnexpectedEOF)))
		var b body
		_ = b.read(r, 100)
		b.restore(r)
		if got, err := io.ReadAll(r.Body); !errors.Is(err, io.ErrUnexpectedEOF) || string(got) != "01" {
			t.Errorf("read %q and %v, want 01 and %v", got, err, io.ErrUnexpectedEOF)
		}
	})
	t.Run("with a length", func(t *testing.T) {
		t.Parallel()
		r := newPost(t, "", strings.NewReader(text))
		r.ContentLength, r.TransferEncoding = -1, []string{"chunked"}
		r.Header = http.Header{"Expect": {"100-continue"}, "Content-Length": {"20", "77"}}
		var b body
		_ = b.read(r, 100)
		b.restore(r)
		if r.ContentLength != 20 || !slices.Equal(r.Header["Content-Length"], []string{"20"}) || r.TransferEncoding != nil || r.Header.Get("Expect") != "" {
			t.Errorf("ContentLength %d, TransferEncoding %v, headers %v", r.ContentLength, r.TransferEncoding, r.Header)
		}
	})
}

// breaking is a connection whose Write fails when the fuse is set.
type breaking struct {
	net.Conn
	fuse *atomic.Bool
}

func (b breaking) Write(p []byte) (int, error) {
	if b.fuse.CompareAndSwap(true, false) {
		return 0, net.ErrClosed
	}
	return b.Conn.Write(p)
}

// With GetBody, a transport can retry a POST if nothing was written yet.
func TestBodyCanBeSentAgain(t *testing.T) {
	t.Parallel()
	b := newBackend(t)
	var fuse atomic.Bool
	transport := &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, address)
		return breaking{conn, &fuse}, err
	}}
	t.Cleanup(transport.CloseIdleConnections)
	for _, breaks := range []bool{false, true} {
		r := newPost(t, "", strings.NewReader("body"))
		var read body
		if err := read.read(r, 10); err != nil {
			t.Fatal(err)
		}
		read.restore(r)
		r.URL.Scheme, r.URL.Host = "http", b.address()
		fuse.Store(breaks)
		resp, err := transport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		readResponse(t, resp).wantOK(t)
		if got := b.takeOne(t); !bytes.Equal(got.Body, []byte("body")) {
			t.Errorf("the backend received %q", got.Body)
		}
	}
}
