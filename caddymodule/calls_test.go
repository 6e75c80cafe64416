// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/timguard/timguard/caddymodule/callback"
	"github.com/timguard/timguard/caddymodule/internal/guardtest"
)

// watched is a site whose guard has a name of its own, because histories belong to names.
func watched(t *testing.T, name string, options ...string) *guardedServer {
	t.Helper()
	lines := append([]string{"app 1400000000 " + guardtest.Token + " second", "name " + name}, options...)
	return serve(t, "tim_callback {\n"+strings.Join(lines, "\n")+"\n}", func(w http.ResponseWriter, _ *http.Request) error {
		_, err := io.WriteString(w, guardtest.OKJSON)
		return err
	})
}

// lastCalls waits until the guard remembers n calls: one is remembered after its answer.
func lastCalls(t *testing.T, f CallFilter, n int) (calls []Call) {
	t.Helper()
	guardtest.Eventually(t, 10*time.Second, "the calls are remembered", func() bool {
		calls = LastCalls(f, MaxCalls)
		return len(calls) >= n
	})
	return calls
}

func TestCallsAreRememberedByTheirValues(t *testing.T) {
	t.Parallel()
	s := watched(t, "remembers")
	forged := guardtest.Query("1400000000", callback.RecallCommand, guardtest.Signed("forged", time.Now()))
	if got, _ := s.post(t, request{query: goodQuery(), body: recallBody(t)}); got.status != http.StatusOK {
		t.Fatalf("status %d", got.status)
	}
	if got, _ := s.post(t, request{query: forged, body: recallBody(t)}); got.status != http.StatusUnauthorized {
		t.Fatalf("status %d", got.status)
	}
	calls := lastCalls(t, CallFilter{Guard: "remembers"}, 2)
	good, bad := calls[0], calls[1]
	if v := good.Values; !good.Verified || v["action"] != "forward" || v["command"] != callback.RecallCommand || v["group_id"] == "" || good.Duration <= 0 {
		t.Errorf("remembered as %+v", good)
	}
	if v := bad.Values; bad.Verified || v["action"] != "reject" || v["reason"] != "sign" || bad.Detail == "" || v["group_id"] != "" {
		t.Errorf("remembered as %+v", bad)
	}
	if bad.ID <= good.ID {
		t.Errorf("ids %d, %d; want increasing ones", good.ID, bad.ID)
	}
	text, err := json.Marshal(calls)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{guardtest.Token, "forged", "RequestTime", "Sign=", "MsgSeqList"} {
		if strings.Contains(string(text), secret) {
			t.Errorf("%s contains %q", text, secret)
		}
	}
}

// reverse_proxy aborts when the backend's answer breaks off.
func TestCallsThatAreAbortedAreRemembered(t *testing.T) {
	t.Parallel()
	s := serve(t, "tim_callback {\napp 1400000000 "+guardtest.Token+"\nname aborts\n}", func(http.ResponseWriter, *http.Request) error {
		panic(http.ErrAbortHandler)
	})
	if _, _, err := s.call(t.Context(), request{query: goodQuery(), body: recallBody(t)}); err == nil {
		t.Error("an answer that breaks off was passed on as a whole one")
	}
	if c := lastCalls(t, CallFilter{Guard: "aborts"}, 1)[0]; c.Values["action"] != "forward" || !c.Verified {
		t.Errorf("remembered as %+v", c)
	}
}

func TestCallFilterSelects(t *testing.T) {
	t.Parallel()
	values := map[string]string{"command": callback.RecallCommand, "reason": "sign", "conversation": "@TGS#1"}
	for _, tt := range []struct {
		filter CallFilter
		want   bool
	}{
		{CallFilter{}, true},
		{CallFilter{Command: callback.RecallCommand}, true},
		{CallFilter{Command: "Group.*"}, true},
		{CallFilter{Command: "after"}, true},
		{CallFilter{Command: "before"}, false},
		{CallFilter{Command: "State.*"}, false},
		{CallFilter{Reason: "sign"}, true},
		{CallFilter{Reason: "*"}, true},
		{CallFilter{Reason: "stale"}, false},
		{CallFilter{Conversation: "@TGS#1"}, true},
		{CallFilter{Conversation: "@TGS#"}, false},
		{CallFilter{Command: "after", Reason: "*", Conversation: "@TGS#2"}, false},
	} {
		if got := tt.filter.matches(values); got != tt.want {
			t.Errorf("%+v matches: %t", tt.filter, got)
		}
	}
	if (CallFilter{Reason: "*"}).matches(map[string]string{"command": "x"}) {
		t.Error("a call without a reason is refused")
	}
}

// Anybody can send calls, so their number and the size of each in memory have bounds.
func TestRememberedCallsAreBounded(t *testing.T) {
	t.Parallel()
	s := watched(t, "bounded")
	s.post(t, request{query: "SdkAppid=1400000000&CallbackCommand=" + strings.Repeat("A", 10_000)})
	first := lastCalls(t, CallFilter{Guard: "bounded"}, 1)[0]
	if n := len(first.Values["command"]); n < maxCallValue || n > maxCallValue+8 {
		t.Errorf("%d bytes are remembered of a command", n)
	}
	for range MaxCalls {
		s.post(t, request{query: "SdkAppid=1"})
	}
	guardtest.Eventually(t, 10*time.Second, "the first call is forgotten", func() bool {
		calls := LastCalls(CallFilter{Guard: "bounded"}, 2*MaxCalls)
		return len(calls) == MaxCalls && calls[0].ID > first.ID && slices.IsSortedFunc(calls, func(a, b Call) int { return int(a.ID) - int(b.ID) })
	})
}

// A payload may have a field of any length, and what is remembered of it must not keep it in
// memory: MaxCalls of the largest bodies would be a gigabyte.
func TestRememberedCallsDoNotKeepWhatIsLong(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("g", maxSharedBody)
	text := `{"CallbackCommand":"` + callback.RecallCommand + `","Operator_Account":"jared","Type":"Public","GroupId":"` + long +
		`","MsgSeqList":[{"MsgSeq":1}],"EventTime":1700000000000}`
	c := &call{judgment: judgment{query: callback.Query{CallbackCommand: callback.RecallCommand}, action: actionForward}}
	c.body.Read(httptest.NewRequest(http.MethodPost, "/", strings.NewReader(text)), 1<<20)
	var err error
	if c.event, err = callback.Inspect(c.body.Bytes(), callback.RecallCommand); err != nil {
		t.Fatal(err)
	}
	address := func(text string) uintptr {
		return uintptr(unsafe.Pointer(unsafe.StringData(text))) //nolint:gosec // it is only compared
	}
	begin := address(c.event.GroupID)
	m := c.remembered(true)
	for i, value := range m.values {
		if at := address(value); begin <= at && at <= begin+2*uintptr(len(text)) {
			t.Errorf("%s keeps the values of the event in memory", valueNames[i])
		}
	}
	if want := "jared"; !slices.Contains(m.values[:], want) {
		t.Errorf("remembered %q, want also %q", m.values, want)
	}
	runtime.KeepAlive(c)
}

func TestWatcherGetsCallsWithBodiesOnlyIfItAsks(t *testing.T) {
	t.Parallel()
	s := watched(t, "watched")
	plain, bodies := watch(CallFilter{Guard: "watched"}, false), watch(CallFilter{Guard: "watched"}, true)
	t.Cleanup(plain.close)
	t.Cleanup(bodies.close)
	s.post(t, request{query: goodQuery(), body: recallBody(t)})
	if c := <-plain.calls; c.Body != "" || c.Query != "" {
		t.Errorf("a watcher without bodies got %+v", c)
	}
	c := <-bodies.calls
	if c.Body != string(recallBody(t)) || !strings.Contains(c.Query, "SdkAppid=1400000000") || strings.Contains(c.Query, "Sign") || strings.Contains(c.Query, "RequestTime") {
		t.Errorf("a watcher with bodies got %+v", c)
	}
	if c.Values["event_id"] == "" {
		t.Error("the event has no ID")
	}
}

// Those who watch can see what is wrong with a genuine callback, but not what strangers send.
func TestWatcherGetsBodiesOfRefusedCallsThatAreSigned(t *testing.T) {
	t.Parallel()
	s := watched(t, "watched-refused", "max_body 100")
	w := watch(CallFilter{Guard: "watched-refused"}, true)
	t.Cleanup(w.close)
	forged := guardtest.Query("1400000000", callback.RecallCommand, guardtest.Signed("forged", time.Now()))
	old := guardtest.Query("1400000000", callback.RecallCommand, guardtest.Signed(guardtest.Token, time.Now().Add(-time.Hour)))
	for _, tt := range []struct{ query, body, reason, want string }{
		{goodQuery(), `{}{`, "json", `{}{`},
		{goodQuery(), `{"CallbackCommand":1}`, "payload", `{"CallbackCommand":1}`},
		{goodQuery(), `{"CallbackCommand":"State.StateChange"}`, "mismatch", `{"CallbackCommand":"State.StateChange"}`},
		{goodQuery(), strings.Repeat(" ", 200), "too_large", ""},
		{forged, `{}{`, "sign", ""},
		{old, `{}{`, "stale", ""},
	} {
		s.post(t, request{query: tt.query, body: []byte(tt.body), chunked: tt.reason == "too_large"})
		c := <-w.calls
		if c.Values["reason"] != tt.reason || c.Body != tt.want || (c.Query != "") != c.Verified || strings.Contains(c.Query, "Sign") || strings.Contains(c.Query, "RequestTime") {
			t.Errorf("%s: got %+v, want the body %q", tt.reason, c, tt.want)
		}
	}
	for _, c := range LastCalls(CallFilter{Guard: "watched-refused"}, MaxCalls) {
		if c.Body != "" || c.Query != "" {
			t.Errorf("remembered as %+v", c)
		}
	}
}

func TestSlowWatcherIsClosed(t *testing.T) {
	t.Parallel()
	s := watched(t, "slow")
	w := watch(CallFilter{Guard: "slow"}, false)
	t.Cleanup(w.close)
	for range watcherLag + 10 {
		s.post(t, request{query: "SdkAppid=1"})
	}
	n := 0
	for range w.calls { // ends because it is closed
		n++
	}
	if n != watcherLag {
		t.Errorf("it got %d calls before it was closed, want %d", n, watcherLag)
	}
}

func TestStreamBeginsWithEarlierCallsAndGoesOn(t *testing.T) {
	t.Parallel()
	s := watched(t, "streamed")
	s.post(t, request{query: goodQuery(), body: recallBody(t)})
	s.post(t, request{query: "SdkAppid=1"})
	seen := lastCalls(t, CallFilter{Guard: "streamed"}, 2)[0].ID
	for name, tt := range map[string]struct {
		query, lastID string
		want          []string // actions
	}{
		"live only":         {"guard=streamed", "", []string{"forward"}},
		"with earlier ones": {"guard=streamed&last=1000", "", []string{"forward", "reject", "forward"}},
		"one earlier":       {"guard=streamed&last=1", "", []string{"reject", "forward"}},
		"connected again":   {"guard=streamed", strconv.FormatUint(seen, 10), []string{"reject", "forward"}},
		"filtered":          {"guard=streamed&last=1000&reason=app", "", []string{"reject"}},
	} {
		options, err := ParseStreamOptions(tt.query)
		if err != nil {
			t.Fatal(err)
		}
		stream := newStream(t, options, tt.lastID)
		s.post(t, request{query: goodQuery(), body: recallBody(t)})
		for i, want := range tt.want {
			if c := stream(); c.Values["action"] != want {
				t.Errorf("%s: call %d is %+v, want %s", name, i, c, want)
			}
		}
		h := historyOf("streamed")
		h.mu.Lock()
		h.ring = h.ring[:2] // as before
		h.mu.Unlock()
	}
}

// newStream returns a function that reads the next call of a stream.
func newStream(t *testing.T, o StreamOptions, lastID string) func() Call {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		StreamCalls(w, r, o)
	}))
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	t.Cleanup(func() { cancel(); server.Close() })
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if lastID != "" {
		req.Header.Set("Last-Event-ID", lastID)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	lines := bufio.NewScanner(resp.Body)
	next := func() (c Call) {
		for lines.Scan() {
			if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				if err := json.Unmarshal([]byte(data), &c); err != nil {
					t.Error(err)
				}
				return c
			}
			if o.Last == 0 && lastID == "" && lines.Text() == ": watching" {
				return c
			}
		}
		return c
	}
	if o.Last == 0 && lastID == "" {
		next() // it watches from now on
		o.Last = 1
	}
	return next
}

// Shutting down does not wait for those who watch.
func TestStreamEndsWithItsServer(t *testing.T) {
	t.Parallel()
	ended := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(ended)
		StreamCalls(w, r, StreamOptions{})
	}))
	t.Cleanup(server.Close)
	resp, err := http.Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	t.Cleanup(cancel)
	if err := server.Config.Shutdown(ctx); err != nil {
		t.Errorf("shutdown: %v", err)
	}
	select {
	case <-ended:
	case <-ctx.Done():
		t.Error("the stream goes on")
	}
}

func TestStreamOptionsAreParsed(t *testing.T) {
	t.Parallel()
	for query, want := range map[string]string{
		"guard=a&command=Group.*&reason=*&conversation=g&last=10&bodies=1": "",
		"":                "",
		"commands=a":      `unknown parameter "commands": want guard, command`,
		"guard=a&guard=b": "guard is given twice",
		"last=x":          "last: want a number from 0 to 1000",
		"last=1001":       "last: want a number",
		"bodies=yes":      "bodies: want 1 or 0",
		"a=%zz":           "query: ",
	} {
		if _, err := ParseStreamOptions(query); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", query, err, want)
		}
	}
}
