// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package body

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
)

func newPost(t *testing.T, _ string, body io.Reader) *http.Request {
	t.Helper()
	return httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/callback", body)
}

func TestBodyIsReadUpToTheLimit(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		body   io.Reader
		length int64 // declared
		want   string
		whole  bool
		err    error
	}{
		"empty":          {strings.NewReader(""), 0, "", true, nil},
		"at the limit":   {strings.NewReader("0123456789"), 10, "0123456789", true, nil},
		"unknown length": {strings.NewReader("0123456789"), -1, "0123456789", true, nil},
		"byte by byte":   {iotest.OneByteReader(strings.NewReader("0123456789")), -1, "0123456789", true, nil},
		"data and EOF":   {iotest.DataErrReader(strings.NewReader("0123456789")), -1, "0123456789", true, nil},
		"over it":        {strings.NewReader("0123456789abc"), -1, "0123456789a", false, nil},
		"cut off":        {strings.NewReader("01"), 5, "01", false, io.EOF},
		"broken":         {io.MultiReader(strings.NewReader("01"), iotest.ErrReader(io.ErrUnexpectedEOF)), 5, "01", false, io.ErrUnexpectedEOF},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newPost(t, "", nil)
			r.Body, r.ContentLength = io.NopCloser(tt.body), tt.length
			var b Body
			b.Read(r, 10)
			if string(b.Bytes()) != tt.want || b.Whole() != tt.whole || !errors.Is(b.Err(), tt.err) {
				t.Errorf("read %q, whole: %t, error %v; want %q, %t, %v", b.Bytes(), b.Whole(), b.Err(), tt.want, tt.whole, tt.err)
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
			var b Body
			b.Read(r, limit)
			b.Restore(r)
			if got, err := io.ReadAll(r.Body); err != nil || string(got) != text {
				t.Errorf("read %q and %v, want %q", got, err, text)
			}
		})
	}
	t.Run("with its error", func(t *testing.T) {
		t.Parallel()
		r := newPost(t, "", io.MultiReader(strings.NewReader("01"), iotest.ErrReader(io.ErrUnexpectedEOF)))
		var b Body
		b.Read(r, 100)
		b.Restore(r)
		if got, err := io.ReadAll(r.Body); !errors.Is(err, io.ErrUnexpectedEOF) || string(got) != "01" {
			t.Errorf("read %q and %v, want 01 and %v", got, err, io.ErrUnexpectedEOF)
		}
	})
	t.Run("with a length", func(t *testing.T) {
		t.Parallel()
		r := newPost(t, "", strings.NewReader(text))
		r.ContentLength, r.TransferEncoding = -1, []string{"chunked"}
		r.Header = http.Header{"Expect": {"100-continue"}, "Content-Length": {"20", "77"}}
		var b Body
		b.Read(r, 100)
		b.Restore(r)
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
	got := make(chan string, 2)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got <- string(body)
	}))
	t.Cleanup(server.Close)
	var fuse atomic.Bool
	transport := &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, address)
		return breaking{conn, &fuse}, err
	}}
	t.Cleanup(transport.CloseIdleConnections)
	for _, breaks := range []bool{false, true} {
		r := newPost(t, "", strings.NewReader("body"))
		var read Body
		read.Read(r, 10)
		read.Restore(r)
		r.URL.Scheme, r.URL.Host = "http", server.Listener.Addr().String()
		fuse.Store(breaks)
		resp, err := transport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		if body := <-got; body != "body" {
			t.Errorf("the backend received %q", body)
		}
	}
}

// A client cannot cause much more memory to be allocated than it sends.
func TestRoomIsMadeAsABodyComes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		have   int
		wanted int64
		want   int
	}{
		{0, 1, 4 << 10},
		{1, 1 << 30, 4 << 10},
		{4<<10 - 1, 1 << 30, 4 << 10},
		{4 << 10, 1 << 30, 64 << 10},
		{64 << 10, 1 << 30, 1 << 20},
		{1<<20 - 1, 1 << 30, 1 << 20},
		{1 << 20, 1 << 30, 16 << 20},
		{1 << 20, 1<<20 + 1, 1<<20 + 1},
	} {
		if got := len(TakeBuffer(tt.have, tt.wanted).Bytes); got != tt.want {
			t.Errorf("room of %d bytes for more than %d of %d, want %d", got, tt.have, tt.wanted, tt.want)
		}
	}
}
