// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/timguard/timguard/caddymodule/callback"
	"github.com/timguard/timguard/caddymodule/internal/guardtest"
)

func init() { writeTimeout = time.Second }

// A page that is left open overnight connects often, and the server lives as long as its
// configuration.
func TestStreamsLeaveNothingBehind(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		StreamCalls(w, r, StreamOptions{})
	}))
	t.Cleanup(server.Close)
	before := 0
	for i := range 1000 {
		resp, err := http.Get(server.URL)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		registered := reflect.ValueOf(server.Config).Elem().FieldByName("onShutdown").Len()
		if i > 0 && registered != before {
			t.Fatalf("after stream %d, the server has %d functions to call when it shuts down; before, %d", i, registered, before)
		}
		before = registered
	}
	if err := server.Config.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	guardtest.Eventually(t, 10*time.Second, "the server is forgotten", func() bool {
		_, kept := stopping.Load(server.Config)
		return !kept
	})
}

func TestStreamEndsThoughItsClientDoesNotRead(t *testing.T) {
	t.Parallel()
	s := watched(t, "unread")
	begun := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(begun)
		StreamCalls(w, r, StreamOptions{Filter: CallFilter{Guard: "unread"}, Bodies: true})
	}))
	t.Cleanup(server.Close)
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if _, err := fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	<-begun
	large := `{"CallbackCommand":"` + callback.RecallCommand + `","Operator_Account":"jared","Type":"Public","GroupId":"g",` +
		`"MsgSeqList":[{"MsgSeq":1}],"EventTime":1700000000000,"Unknown":"` + strings.Repeat("x", 500_000) + `"}`
	for range 40 { // more than the buffers of the two sockets hold
		s.post(t, request{query: goodQuery(), body: []byte(large)})
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	if err := server.Config.Shutdown(ctx); err != nil {
		t.Errorf("shutdown: %v", err)
	}
}
