// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/timguard/timguard/caddymodule/callback"
	"github.com/timguard/timguard/caddymodule/internal/answer"
	"github.com/timguard/timguard/caddymodule/internal/guardtest"
)

const (
	beforeSend  = "Group.CallbackBeforeSendMsg"
	friendAdd   = "Sns.CallbackPrevFriendAdd"
	plainForbid = `{"ActionStatus":"OK","ErrorInfo":"","ErrorCode":1}`
)

func init() {
	caddy.RegisterModule(nextHandler{})
}

// nextHandler is a handler that calls a function of a test.
type nextHandler struct {
	Number int64 `json:"number"`
}

var (
	nextHandlers sync.Map // functions by number
	nextNumber   atomic.Int64
)

func (nextHandler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.timguard_test", New: func() caddy.Module { return new(nextHandler) }}
}

func (h *nextHandler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	f, _ := nextHandlers.Load(h.Number)
	return f.(func(http.ResponseWriter, *http.Request, caddyhttp.Handler) error)(w, r, next)
}

// guardedServer is Caddy's HTTP server in this process, on a free port.
type guardedServer struct {
	address  string
	registry *prometheus.Registry
	client   *http.Client
	stop     func()
}

var provisioning sync.Mutex // Caddy loads one configuration at a time

// serve runs a site with the directives, followed by the function, if any.
func serve(tb testing.TB, directives string, next func(http.ResponseWriter, *http.Request) error) *guardedServer {
	tb.Helper()
	app, ctx, cancel := httpApp(tb, directives, next)
	if err := app.Start(); err != nil {
		tb.Fatal(err)
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 100, DisableCompression: true}
	stop := sync.OnceFunc(func() {
		transport.CloseIdleConnections()
		if err := app.Stop(); err != nil {
			tb.Error(err)
		}
		provisioning.Lock() // concurrent cleanups would both stop Caddy's certificate cache
		defer provisioning.Unlock()
		cancel()
	})
	tb.Cleanup(stop)
	return &guardedServer{
		address:  app.Servers["srv0"].Listeners()[0].Addr().String(),
		registry: ctx.GetMetricsRegistry(),
		client:   &http.Client{Transport: transport, Timeout: 20 * time.Second},
		stop:     stop,
	}
}

func httpApp(tb testing.TB, directives string, next func(http.ResponseWriter, *http.Request) error) (*caddyhttp.App, caddy.Context, context.CancelFunc) {
	tb.Helper()
	adapted, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(":80 {\n"+directives+"\n}\n"), nil)
	if err != nil {
		tb.Fatal(err)
	}
	var config struct {
		Apps struct {
			HTTP struct {
				Servers map[string]map[string]any `json:"servers"`
			} `json:"http"`
		} `json:"apps"`
	}
	if err := json.Unmarshal(adapted, &config); err != nil {
		tb.Fatal(err)
	}
	server := config.Apps.HTTP.Servers["srv0"]
	server["listen"] = []string{"127.0.0.1:0"}
	server["automatic_https"] = map[string]bool{"disable": true}
	server["protocols"] = []string{"h1", "h2c"}
	if next != nil {
		number := nextNumber.Add(1)
		nextHandlers.Store(number, func(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error { return next(w, r) })
		routes, _ := server["routes"].([]any)
		server["routes"] = append(routes, map[string]any{"handle": []any{map[string]any{"handler": "timguard_test", "number": number}}})
	}
	raw, err := json.Marshal(config.Apps.HTTP)
	if err != nil {
		tb.Fatal(err)
	}

	provisioning.Lock()
	defer provisioning.Unlock()
	var quiet caddy.Config
	if err := json.Unmarshal([]byte(`{"admin":{"disabled":true},"logging":{"logs":{"default":{"writer":{"output":"discard"}}}}}`), &quiet); err != nil {
		tb.Fatal(err)
	}
	base, err := caddy.ProvisionContext(&quiet)
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := caddy.NewContext(base)
	app, err := ctx.LoadModuleByID("http", raw)
	if err != nil {
		cancel()
		tb.Fatal(err)
	}
	return app.(*caddyhttp.App), ctx, cancel
}

// post sends a callback and returns the answer and how long it took.
func (s *guardedServer) post(tb testing.TB, q request) (got response, took time.Duration) {
	tb.Helper()
	got, took, err := s.call(tb.Context(), q)
	if err != nil {
		tb.Fatal(err)
	}
	return got, took
}

// call is like post, but can be used in other goroutines.
func (s *guardedServer) call(ctx context.Context, q request) (got response, took time.Duration, err error) {
	var body io.Reader = bytes.NewReader(q.body)
	if q.chunked {
		body = struct{ io.Reader }{body}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.address+q.path+"?"+q.query, body)
	if err != nil {
		return got, 0, err
	}
	maps.Copy(req.Header, q.header)
	start := time.Now()
	resp, err := s.client.Do(req)
	if err != nil {
		return got, 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	return response{resp.StatusCode, resp.Header, data}, time.Since(start), err
}

// sampleOf returns a correctly signed callback of the command with a valid payload.
func sampleOf(command string) request {
	return request{query: guardtest.Query(guardtest.App, command, guardtest.Signed(guardtest.Token, time.Now())), body: callback.Sample(command)}
}

// wantAnswer fails the test unless the answer is HTTP 200 with exactly this JSON.
func (r response) wantAnswer(tb testing.TB, want string) {
	tb.Helper()
	if r.status != http.StatusOK || string(r.body) != want {
		tb.Errorf("answer  %d %s\nwant    200 %s", r.status, r.body, want)
	}
	if got := r.header.Get("Content-Type"); got != "application/json" {
		tb.Errorf("Content-Type %q, want application/json", got)
	}
}

func TestHeldAnswerIsValidIfTencentWouldAcceptIt(t *testing.T) {
	t.Parallel()
	long := strings.Repeat(" ", callback.MaxAnswer-1)
	for name, tt := range map[string]struct {
		status int
		writes []string
		valid  bool
	}{
		"OK":                            {200, []string{guardtest.OKJSON}, true},
		"in pieces":                     {200, []string{`{"Error`, `Code":`, `0}`}, true},
		"no status":                     {0, []string{guardtest.OKJSON}, true},
		"white space around it":         {200, []string{" \r\n\t", guardtest.OKJSON, "\n"}, true},
		"its own fields":                {200, []string{`{"ErrorCode":120001,"MsgBody":[{"MsgType":"TIMTextElem"}],"ErrorCode":1}`}, true},
		"the largest":                   {200, []string{"{", long[:callback.MaxAnswer-2], "}"}, true},
		"empty object":                  {200, []string{"{}"}, true},
		"a status before the final one": {103, []string{guardtest.OKJSON}, true},
		"nothing":                       {0, nil, false},
		"status only":                   {200, nil, false},
		"created":                       {201, []string{guardtest.OKJSON}, false},
		"no content":                    {204, nil, false},
		"redirect":                      {302, []string{guardtest.OKJSON}, false},
		"server error":                  {500, []string{guardtest.OKJSON}, false},
		"array":                         {200, []string{"[" + guardtest.OKJSON + "]"}, false},
		"string":                        {200, []string{`"OK"`}, false},
		"null":                          {200, []string{`null`}, false},
		"HTML":                          {200, []string{`<!DOCTYPE html><html></html>`}, false},
		"half":                          {200, []string{guardtest.OKJSON[:20]}, false},
		"two":                           {200, []string{guardtest.OKJSON, guardtest.OKJSON}, false},
		"byte order mark":               {200, []string{"\ufeff", guardtest.OKJSON}, false},
		"a comment":                     {200, []string{guardtest.OKJSON, "// x"}, false},
		"not UTF-8":                     {200, []string{"{\"a\":\"\xff\"}"}, false},
		"too long":                      {200, []string{"{", long, "}"}, false},
		"too long after its end":        {200, []string{"{}", long, " "}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := answer.Hold(make(http.Header))
			defer a.Free()
			if tt.status != 0 {
				a.WriteHeader(tt.status)
			}
			for _, text := range tt.writes {
				_, _ = io.WriteString(a, text) // like handlers that ignore errors
				a.Flush()
			}
			if err := checkVerdict(a.Answer()); (err == nil) != tt.valid {
				t.Errorf("fault %v, want the answer to be valid: %t", err, tt.valid)
			}
			if n := len(a.Answer().Body); n > callback.MaxAnswer+1 {
				t.Errorf("%d bytes are held, want at most %d", n, callback.MaxAnswer+1)
			}
		})
	}
}

// A 403 cannot forbid anything, so a refused before-callback that is correctly signed
// gets the verdict of its rule.
func TestActionOfRefusedCallbacks(t *testing.T) {
	t.Parallel()
	forward := func(verdict string) *Rule {
		r := &Rule{Action: actionForward}
		if verdict != "" {
			r.Fallback = &Fallback{Verdict: verdict}
		}
		return r
	}
	for name, tt := range map[string]struct {
		command  string
		verified bool
		rule     *Rule
		want     string
		fellBack bool
	}{
		"allow":                    {beforeSend, true, forward(verdictAllow), actionAck, true},
		"forbid":                   {beforeSend, true, forward(verdictForbid), actionForbid, true},
		"forbid rule":              {beforeSend, true, &Rule{Action: actionForbid}, actionForbid, false},
		"no fallback":              {beforeSend, true, forward(""), actionReject, false},
		"ack rule":                 {beforeSend, true, &Rule{Action: actionAck}, actionReject, false},
		"no rule":                  {beforeSend, true, nil, actionReject, false},
		"unverified, allow":        {beforeSend, false, forward(verdictAllow), actionReject, false},
		"unverified, forbid":       {beforeSend, false, forward(verdictForbid), actionReject, false},
		"unverified, forbid rule":  {beforeSend, false, &Rule{Action: actionForbid}, actionReject, false},
		"after, deliver":           {callback.RecallCommand, true, forward(verdictDeliver), actionReject, false},
		"after, stored at once":    {callback.RecallCommand, true, &Rule{Action: actionDeliver}, actionReject, false},
		"an unknown before-action": {"New.CallbackBeforeX", true, forward(verdictForbid), actionForbid, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			action, fallback := actionOfRejected(&judgment{
				query: callback.Query{CallbackCommand: tt.command}, verified: tt.verified, rule: tt.rule,
				rejection: &callback.Rejection{Reason: callback.ReasonPayload},
			})
			if action != tt.want || fallback != tt.fellBack {
				t.Errorf("action %s, by the fallback: %t; want %s, %t", action, fallback, tt.want, tt.fellBack)
			}
		})
	}
}

func TestTargetsAreFoundInInvalidFriendRequests(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{
		"good":             `{"FriendItem":[{"To_Account":"a"},{"To_Account":"b"}]}`,
		"a name twice":     `{"FriendItem":[{"To_Account":"a"},{"To_Account":"b"}],"X":1,"X":2}`,
		"a wrong type":     `{"CallbackCommand":7,"FriendItem":[{"To_Account":"a","Remark":1},{"To_Account":"b"}]}`,
		"one without name": `{"FriendItem":[{"To_Account":"a"},7,{"To_Account":"b"}]}`,
		"cut":              `{"FriendItem":[{"To_Account":"a"},{"To_Account":"b"}],"From`,
		"not UTF-8":        "{\"FriendItem\":[{\"To_Account\":\"a\"},{\"To_Account\":\"b\"}],\"X\":\"\xff\"}",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want := `[{"To_Account":"a","ResultCode":38000,"ResultInfo":""},{"To_Account":"b","ResultCode":38000,"ResultInfo":""}]`
			if got := string(callback.Forbid(friendAdd, []byte(body), 0, "").JSON()); !strings.Contains(got, want) {
				t.Errorf("answer %s, want %s in it", got, want)
			}
		})
	}
}

// friendRequest returns a friend request to the users.
func friendRequest(users ...string) []byte {
	var items []string
	for _, user := range users {
		items = append(items, fmt.Sprintf(`{"To_Account":%q,"AddSource":"AddSource_Type_Android"}`, user))
	}
	return fmt.Appendf(nil, `{"CallbackCommand":%q,"Requester_Account":"r","From_Account":"f","FriendItem":[%s]}`, friendAdd, strings.Join(items, ","))
}
