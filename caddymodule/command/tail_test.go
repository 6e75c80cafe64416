// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package command

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/timguard/timguard/caddymodule"
	"github.com/timguard/timguard/caddymodule/callback"
	"github.com/timguard/timguard/caddymodule/internal/guardtest"
)

// startTail runs tail until the end of the test.
func startTail(t *testing.T, args ...string) (out, log *guardtest.SyncBuffer) {
	t.Helper()
	out, log = new(guardtest.SyncBuffer), new(guardtest.SyncBuffer)
	cmd := tailCommand()
	cmd.SetArgs(args)
	cmd.SetOut(out)
	cmd.SetErr(log)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- cmd.ExecuteContext(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("tail %v: %v", args, err)
		}
	})
	return out, log
}

func eventually(t *testing.T, what string, buffer *guardtest.SyncBuffer, ok func(text string) bool) {
	t.Helper()
	guardtest.Eventually(t, 20*time.Second, what, func() bool { return ok(buffer.String()) })
}

// scripted is an admin API whose streams are scripts, and the last one again and again. It
// records what was asked for.
type scripted struct {
	address string
	asked   chan *http.Request
}

func newScripted(t *testing.T, streams ...string) scripted {
	t.Helper()
	s := scripted{asked: make(chan *http.Request, 100)}
	var n atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i := int(n.Add(1))
		select {
		case s.asked <- r:
		default:
		}
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, streams[min(i, len(streams))-1])
		_ = http.NewResponseController(w).Flush()
		if i >= len(streams) {
			<-r.Context().Done()
		}
	}))
	t.Cleanup(server.Close)
	s.address = server.Listener.Addr().String()
	return s
}

// streamed returns an event of a call.
func streamed(t *testing.T, id uint64, values map[string]string, change func(c *caddymodule.Call)) string {
	t.Helper()
	c := caddymodule.Call{ID: id, Guard: "default", Time: time.Date(2026, 11, 26, 9, 30, 1, 234e6, time.Local), Duration: 0.00125, Values: values}
	if change != nil {
		change(&c)
	}
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("id: %d\ndata: %s\n\n", id, text)
}

const watching = ": watching\n\n"

func TestTailPrintsALineACall(t *testing.T) {
	t.Parallel()
	recall := func(more map[string]string) map[string]string {
		v := map[string]string{"command": callback.RecallCommand, "action": "forward", "conversation": "1213456"}
		maps.Copy(v, more)
		return v
	}
	s := newScripted(t, streamed(t, 1, recall(map[string]string{"from": "earlier"}), nil)+watching+
		streamed(t, 2, recall(map[string]string{"from": "jared"}), nil)+
		streamed(t, 3, recall(map[string]string{"action": "reject", "reason": "sign"}), func(c *caddymodule.Call) { c.Detail = "matches no token of this app" })+
		streamed(t, 4, recall(map[string]string{"reason": "payload"}), func(c *caddymodule.Call) { c.Detail = "the field is missing" })+
		streamed(t, 5, recall(map[string]string{"verdict": "allow", "command": "Group.CallbackBeforeSendMsg", "from": strings.Repeat("x", 17)}), nil)+
		streamed(t, 6, recall(map[string]string{"conversation": strings.Repeat("群", 33)}), nil)+
		": alive\n\n"+streamed(t, 7, map[string]string{"action": "reject", "reason": "method"}, nil))
	out, _ := startTail(t, "--address", s.address)
	const want = `TIME          ACTION OR REASON    COMMAND                               CONVERSATION                      FROM               DURATION
09:30:01.234  forward             Group.CallbackAfterRecallMsg          1213456                           jared                1.2 ms
09:30:01.234  sign                Group.CallbackAfterRecallMsg          1213456                                                1.2 ms  matches no token of this app
09:30:01.234  payload, forward    Group.CallbackAfterRecallMsg          1213456                                                1.2 ms  the field is missing
09:30:01.234  forward, allow      Group.CallbackBeforeSendMsg           1213456                           xxxxxxxxxxxxxxx…     1.2 ms
09:30:01.234  forward             Group.CallbackAfterRecallMsg          群群群群群群群群群群群群群群群群群群群群群群群群群群群群群群群…                       1.2 ms
09:30:01.234  method                                                                                                           1.2 ms
`
	eventually(t, "all lines", out, func(text string) bool { return strings.Count(text, "\n") >= 7 })
	if got := out.String(); got != want {
		t.Errorf("output\n%s\nwant\n%s", got, want)
	}
}

func TestTailColorsOnATerminalOnly(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ action, reason, verdict, want string }{
		{"ack", "", "", green + "ack" + plain},
		{"reject", "sign", "", red + "sign" + plain},
		{"forward", "sign", "", yellow + "sign, forward" + plain},
		{"forward", "", "deliver", yellow + "forward, deliver" + plain},
	} {
		c := caddymodule.Call{Values: map[string]string{"action": tt.action, "reason": tt.reason, "verdict": tt.verdict}}
		colored, without := (&tailer{color: true}).line(c), new(tailer).line(c)
		if !strings.Contains(colored, tt.want) || strings.Contains(without, "\x1b") {
			t.Errorf("lines %q and %q, want %q in the first", colored, without, tt.want)
		}
		if removed := strings.NewReplacer(red, "", green, "", yellow, "", plain, "").Replace(colored); removed != without {
			t.Errorf("line %q, want %q with colors", colored, without)
		}
	}
}

func TestTailAsksForWhatTheFlagsSay(t *testing.T) {
	t.Parallel()
	for want, args := range map[string][]string{
		"last=1":  nil,
		"last=20": {"--last", "20"},
		"bodies=1&command=Group.%2A&conversation=a+b&guard=main&last=1&reason=%2A": {
			"--guard", "main", "--command", "Group.*", "--reason", "*", "--conversation", "a b", "--forward-to", "http://127.0.0.1:1/",
		},
	} {
		s := newScripted(t, watching)
		startTail(t, append(args, "--address", s.address)...)
		if r := <-s.asked; r.URL.RawQuery != want || r.URL.Path != callsPath || r.Header.Get("Last-Event-ID") != "" {
			t.Errorf("asked for %s, want %s", r.URL, want)
		}
	}
}

func TestTailBeginsWithTheLastCalls(t *testing.T) {
	t.Parallel()
	earlier := streamed(t, 1, map[string]string{"command": "One"}, nil) + streamed(t, 2, map[string]string{"command": "Two"}, nil)
	out, _ := startTail(t, "--last", "2", "--address", newScripted(t, earlier+watching).address)
	eventually(t, "both calls", out, func(text string) bool { return strings.Contains(text, "One") && strings.Contains(text, "Two") })
}

func TestTailConnectsAgainWithTheLastID(t *testing.T) {
	t.Parallel()
	call := func(id uint64) string {
		return streamed(t, id, map[string]string{"command": fmt.Sprintf("No.%d", id)}, nil)
	}
	for name, tt := range map[string]struct {
		streams []string
		ids     []string // what was asked for when it connected again
		shown   []string
		note    string
	}{
		"after calls":    {[]string{watching + call(7) + call(8), call(9) + watching}, []string{"8"}, []string{"No.7", "No.8", "No.9"}, "the stream has ended, as at a reload: connecting again"},
		"without calls":  {[]string{watching, call(9) + watching}, []string{"0"}, []string{"No.9"}, "the stream has ended"},
		"earlier calls":  {[]string{call(6) + watching, watching + call(9)}, []string{"6"}, []string{"No.9"}, "the stream has ended"},
		"too slow":       {[]string{watching + call(7) + "event: slow\ndata: {}\n\n" + call(8), call(8) + watching}, []string{"7"}, []string{"No.7", "No.8"}, "dropped this stream, because it was not read fast enough: connecting again"},
		"in the middle":  {[]string{watching + call(7) + "id: 8\ndata: {\"id", call(8) + watching}, []string{"7"}, []string{"No.7", "No.8"}, "the stream has ended"},
		"several times":  {[]string{watching + call(7), watching, watching + call(8), watching}, []string{"7", "7", "8"}, []string{"No.7", "No.8"}, "the stream has ended"},
		"what is no one": {[]string{watching + "id: 5\ndata: x\n\n", watching + call(8)}, []string{"5"}, []string{"No.8"}, "the server has sent what is not a call"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScripted(t, tt.streams...)
			out, log := startTail(t, "--address", s.address)
			<-s.asked
			for _, want := range tt.ids {
				if got := (<-s.asked).Header.Get("Last-Event-ID"); got != want {
					t.Errorf("connected again with %q, want %q", got, want)
				}
			}
			eventually(t, "the last call", out, func(text string) bool { return strings.Contains(text, tt.shown[len(tt.shown)-1]) })
			var shown []string
			for word := range strings.FieldsSeq(out.String()) {
				if strings.HasPrefix(word, "No.") {
					shown = append(shown, word)
				}
			}
			if !slices.Equal(shown, tt.shown) || !strings.Contains(log.String(), tt.note) {
				t.Errorf("shown %q and %q, want %q and %q", shown, log, tt.shown, tt.note)
			}
		})
	}
}

func TestTailFailsAtOnceIfItCannotBegin(t *testing.T) {
	t.Parallel()
	s := guardtest.NewSite(t, guardtest.Guard()+"\nrespond `"+guardtest.OKJSON+"`")
	s.App = false
	s.Start(t)
	for name, tt := range map[string]struct {
		args []string
		want string
	}{
		"no admin API":   {[]string{"--address", s.Listen}, "is not Caddy's admin API with tim_callback"},
		"status":         {[]string{"--address", adminAPI(t, map[string]string{})}, "is not Caddy's admin API with tim_callback"},
		"nobody":         {[]string{"--address", guardtest.FreePort(t)}, "connection refused"},
		"too many":       {[]string{"--address", s.Admin, "--last", "1001"}, "--last: want a number from 0 to 1000"},
		"below none":     {[]string{"--address", s.Admin, "--last", "-1"}, "--last: want a number from 0 to 1000"},
		"not a URL":      {[]string{"--address", s.Admin, "--forward-to", "localhost"}, "--forward-to: URL"},
		"no such token":  {[]string{"--address", s.Admin, "--forward-to", "http://localhost", "--token", "{env.TIMGUARD_TEST_UNSET}"}, "--token"},
		"bodies as text": {[]string{"--address", s.Admin, "--bodies"}, "--bodies: only with --json"},
		"unknown reason": {[]string{"--address", s.Admin, "--reason", "nope"}, "reason"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if output, err := run(t, tailCommand(), "", tt.args...); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q; output %s", err, tt.want, output)
			}
		})
	}
}

func TestTailPrintsBodiesOnlyIfAsked(t *testing.T) {
	t.Parallel()
	stream := streamed(t, 1, map[string]string{"reason": "payload"}, func(c *caddymodule.Call) { c.Query, c.Body = "SdkAppid=1", "{}" })
	for name, tt := range map[string]struct {
		args []string
		want bool
	}{
		"with --bodies":     {[]string{"--bodies"}, true},
		"without":           {nil, false},
		"with --forward-to": {[]string{"--forward-to", "http://127.0.0.1:9"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			api := newScripted(t, watching+stream)
			out, _ := startTail(t, append([]string{"--json", "--address", api.address}, tt.args...)...)
			eventually(t, "the call is printed", out, func(text string) bool { return strings.Contains(text, "\n") })
			var c caddymodule.Call
			if err := json.Unmarshal([]byte(out.String()), &c); err != nil {
				t.Fatal(err)
			}
			if got := c.Query == "SdkAppid=1" && c.Body == "{}"; got != tt.want || !tt.want && c.Query+c.Body != "" {
				t.Errorf("printed %s", out)
			}
			if asked := (<-api.asked).URL.Query().Get("bodies"); (asked == "1") != (name != "without") {
				t.Errorf("it asked with bodies=%s", asked)
			}
		})
	}
}

// Forwarded calls that come by the watched guard again must not be forwarded again.
func TestTailOfARunningGuardForwardsAndSurvivesReloads(t *testing.T) {
	t.Parallel()
	b := guardtest.NewBackend(t, guardtest.Accepts)
	s := guardtest.NewSite(t, guardtest.Guard("on after ack")+"\nrespond `"+guardtest.OKJSON+"`")
	s.App = false
	developer := guardtest.FreePort(t)
	s.After = "http://" + developer + " {\ntim_callback {\nname developer\napp " + guardtest.App + " " + guardtest.NewToken + "\n}\nreverse_proxy " + b.Address() + "\n}"
	p := s.Start(t)
	out, log := startTail(t, "--address", s.Admin, "--json", "--forward-to", "http://"+developer+"/app?own=1", "--token", guardtest.NewToken)
	plainOut, _ := startTail(t, "--address", s.Admin, "--guard", "default", "--reason", "*")
	eventually(t, "a stream", plainOut, func(text string) bool { return text != "" })
	eventually(t, "a stream", p.Log, func(text string) bool { return strings.Count(text, callsPath) >= 2 })
	poster := guardtest.NewPoster(t, s.Listen)
	posted := func(id string) { poster.WantOK(t, id) }
	forwardedAll := func(n int) {
		t.Helper()
		eventually(t, fmt.Sprintf("%d forwarded", n), out, func(text string) bool { return strings.Count(text, `"forwarded":`) == n })
	}
	posted("one")
	forwardedAll(1)
	if status, _, err := poster.PostQuery("/callback", guardtest.Query(guardtest.App, callback.RecallCommand, guardtest.Signed("x", time.Now())), guardtest.Event("bad")); err != nil || status != http.StatusUnauthorized {
		t.Errorf("forged: %d, %v", status, err)
	}
	if status, _, err := poster.PostQuery("/callback", guardtest.Query(guardtest.App, callback.RecallCommand, guardtest.Signed(guardtest.Token, time.Now())), []byte("{}")); err != nil || status != http.StatusOK {
		t.Errorf("the console's check: %d, %v", status, err)
	}
	for i := range 3 {
		s.Directives = strings.Replace(s.Directives, "on after ack", "on after ack\nwindow "+fmt.Sprint(i+2)+"m", 1)
		s.Reload(t)
		s.Directives = guardtest.Guard("on after ack") + "\nrespond `" + guardtest.OKJSON + "`"
		eventually(t, "another stream", log, func(text string) bool { return strings.Count(text, "connecting again") == i+1 })
		eventually(t, "another stream", p.Log, func(text string) bool { return strings.Count(text, callsPath) >= 2*(i+2) })
		posted(fmt.Sprint("reloaded", i))
		forwardedAll(i + 2)
	}
	eventually(t, "the forged one", plainOut, func(text string) bool { return strings.Contains(text, "matches no token of this app") })
	if text := plainOut.String(); strings.Contains(text, "  ack  ") {
		t.Errorf("what was accepted is shown with --reason: %s", text)
	}
	for _, id := range []string{"one", "reloaded0", "reloaded1", "reloaded2"} {
		got := b.Of(guardtest.Event(id))
		if len(got) != 1 {
			t.Fatalf("%s was forwarded %d times, want once", id, len(got))
		}
		q, err := url.ParseQuery(got[0].URL.RawQuery)
		prefix := "/app?own=1&" + guardtest.Query(guardtest.App, callback.RecallCommand, "") + "&"
		if err != nil || !strings.HasPrefix(got[0].RequestURI, prefix) || q.Get("Sign") != callback.Sign(guardtest.NewToken, q.Get("RequestTime")) || len(q["Sign"]) != 1 {
			t.Errorf("forwarded to %s, want %s and a fresh Sign", got[0].RequestURI, prefix)
		}
	}
	if n := b.Total(); n != 4 {
		t.Errorf("%d were forwarded, want 4", n)
	}
	for _, secret := range []string{guardtest.Token, guardtest.NewToken, "Sign=", "RequestTime", `"body"`, "own=1"} {
		if text := out.String() + log.String() + plainOut.String(); strings.Contains(text, secret) {
			t.Errorf("the output holds %s: %s", secret, text)
		}
	}
}

func TestTailPrintsTheAnswersOfForwardedCalls(t *testing.T) {
	t.Parallel()
	body := func(c *caddymodule.Call) { c.Query, c.Body = "SdkAppid=1", "{}" }
	values := map[string]string{"command": callback.RecallCommand, "action": "forward"}
	for name, tt := range map[string]struct {
		answer http.HandlerFunc
		want   string // in a line
	}{
		"OK":       {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, guardtest.OKJSON) }, "  -> 200 OK  "},
		"FAIL":     {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, guardtest.FailJSON) }, "  -> 200 FAIL  "},
		"error":    {http.NotFound, "  -> 404  "},
		"redirect": {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/other", http.StatusFound) }, "  -> 302  "},
		"hangs up": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(tt.answer)
			t.Cleanup(server.Close)
			s := newScripted(t, watching+streamed(t, 1, values, body))
			out, _ := startTail(t, "--address", s.address, "--forward-to", server.URL, "--token", guardtest.Token)
			eventually(t, tt.want, out, func(text string) bool { return strings.Contains(text, tt.want) })
			if text := out.String(); strings.Contains(text, "Sign") || strings.Contains(text, guardtest.Token) {
				t.Errorf("the output holds a secret: %s", text)
			}
		})
	}
}

func TestTailIsNotHeldUpByASlowURL(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	var posts atomic.Int64
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if posts.Add(1) == 1 {
			<-release
		}
		_, _ = io.WriteString(w, guardtest.OKJSON)
	}))
	t.Cleanup(slow.Close)
	var calls strings.Builder
	const more = 5
	for i := range forwardLag + 1 + more {
		calls.WriteString(streamed(t, uint64(10+i), map[string]string{"action": "ack", "command": fmt.Sprintf("No.%d.", i)},
			func(c *caddymodule.Call) { c.Query, c.Body = "a=b", "{}" }))
	}
	earlier := streamed(t, 1, map[string]string{"action": "ack", "command": "Earlier"}, nil)
	s := newScripted(t, earlier+watching+calls.String())
	out, log := startTail(t, "--address", s.address, "--forward-to", slow.URL, "--last", "1")
	eventually(t, "all calls", out, func(text string) bool { return strings.Contains(text, fmt.Sprintf("No.%d.", forwardLag+more)) })
	if n := posts.Load(); n > 1 {
		t.Errorf("%d posts, want one that hangs", n)
	}
	close(release)
	eventually(t, "what was not forwarded", log, func(text string) bool {
		return strings.Contains(text, "1 not forwarded: it came before") && strings.Contains(text, "not forwarded: the URL is slower")
	})
	eventually(t, "the rest is forwarded", out, func(text string) bool {
		return strings.Count(text, "-> 200 OK") == int(posts.Load()) && posts.Load() >= forwardLag
	})
	if n := posts.Load(); n > forwardLag+1 {
		t.Errorf("%d posts, want %d", n, forwardLag+1)
	}
}
