// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/timguard/timguard/caddymodule/callback"
	"github.com/timguard/timguard/caddymodule/internal/guardtest"
	"github.com/timguard/timguard/caddymodule/outbox"
)

// A delivery passes through the site like the original request.
func TestEndToEndDeliveryPassesThroughTheSite(t *testing.T) {
	t.Parallel()
	plain := guardtest.Query(guardtest.App, callback.RecallCommand, "")
	guarded := guardtest.Guard("on after deliver")
	for name, tt := range map[string]struct {
		body  string // of the site, before reverse_proxy and the backend's address
		path  string // that the callback comes by
		check func(t *testing.T, a attempt)
	}{
		"plain": {guarded + "\nreverse_proxy %s", "/callback", func(t *testing.T, a attempt) {
			t.Helper()
			if err := a.isDelivery("/callback", guardtest.Token); err != nil {
				t.Error(err)
			}
		}},
		"handle_path": {"handle_path /im/* {\n" + guarded + "\nreverse_proxy %s\n}", "/im/a%2Fb", func(t *testing.T, a attempt) {
			t.Helper()
			if err := a.isDelivery("/a%2Fb", guardtest.Token); err != nil {
				t.Error(err)
			}
		}},
		"rewrite behind the guard": {guarded + "\nrewrite /hook?{query}\nreverse_proxy %s", "/callback", func(t *testing.T, a attempt) {
			t.Helper()
			if err := a.isDelivery("/hook", guardtest.Token); err != nil {
				t.Error(err)
			}
		}},
		"strip_auth": {guardtest.Guard("on after deliver", "strip_auth") + "\nreverse_proxy %s", "/callback", func(t *testing.T, a attempt) {
			t.Helper()
			if a.RequestURI != "/callback?"+plain {
				t.Errorf("URI %s, want it without Sign and RequestTime", a.RequestURI)
			}
		}},
		"no token": {"tim_callback " + guardtest.App + " {\non after deliver\n}\nreverse_proxy %s", "/callback", func(t *testing.T, a attempt) {
			t.Helper()
			if a.RequestURI != "/callback?"+plain {
				t.Errorf("URI %s, want none of what the caller says is its Sign", a.RequestURI)
			}
		}},
		"a guard before it that stores nothing": {"route {\n" + guardtest.Guard("name first") + "\n" + guardtest.Guard("on after deliver") + "\nreverse_proxy %s\n}", "/callback", func(t *testing.T, a attempt) {
			t.Helper()
			if err := a.isDelivery("/callback", guardtest.Token); err != nil {
				t.Error(err)
			}
		}},
		"headers": {guarded + "\nreverse_proxy %s {\nheader_up X-Site {http.request.host}\n}", "/callback", func(t *testing.T, a attempt) {
			t.Helper()
			for header, want := range map[string]string{
				"X-Site": "127.0.0.1", "X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "http",
				"Content-Type": "application/json", "User-Agent": "Go-http-client/1.1", "Tim-Delivery-Attempt": "1",
			} {
				if got := a.Header.Get(header); got != want {
					t.Errorf("%s %q, want %q", header, got, want)
				}
			}
		}},
		"first one is down": {guarded + "\nreverse_proxy 127.0.0.1:1 %s {\nlb_policy first\nlb_retries 1\nfail_duration 1m\n}", "/callback", func(t *testing.T, a attempt) {
			t.Helper()
			if err := a.isDelivery("/callback", guardtest.Token); err != nil {
				t.Error(err)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newUnsteady(t, accepts)
			s := newDeliverySite(t, fmt.Sprintf(tt.body, b.address()))
			s.start(t)
			if status, answer, err := newPoster(t, s.listen).post(tt.path, callback.RecallCommand, event(name)); err != nil || answer != guardtest.OKJSON {
				t.Fatalf("answer %d %s, %v; want OK", status, answer, err)
			}
			a := b.one(t, event(name))
			if a.Method != http.MethodPost || !bytes.Equal(a.Body, event(name)) {
				t.Errorf("%s %q", a.Method, a.Body)
			}
			tt.check(t, a)
			s.wantState(t, outbox.Delivered, 1)
		})
	}
}

// Only a 2xx response that was written by a handler and does not say FAIL accepts a
// delivery.
func TestEndToEndDeliveryIsRetriedUntilAccepted(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		body    string // of the site behind the guard
		backend func(*unsteady) http.HandlerFunc
		failed  string // error of the attempt; empty if it is a delivery
	}{
		"FAIL":                 {"reverse_proxy %s", answers(http.StatusOK, failJSON), "the answer says FAIL"},
		"FAIL among others":    {"reverse_proxy %s", answers(http.StatusOK, `{"a":[{}],"ActionStatus":"FAIL"}`), "the answer says FAIL"},
		"FAIL, encoded":        {"encode {\nminimum_length 1\nmatch {\nheader Content-Type *\n}\n}\nreverse_proxy %s", answers(http.StatusOK, failJSON), "the answer says FAIL"},
		"503":                  {"reverse_proxy %s", answers(http.StatusServiceUnavailable, guardtest.OKJSON), "the status 503"},
		"302":                  {"reverse_proxy %s", answers(http.StatusFound, ""), "the status 302"},
		"nobody listens":       {"reverse_proxy 127.0.0.1:1 # %s", accepts, "connect: connection refused"},
		"nobody listens, said": {"reverse_proxy 127.0.0.1:1 # %s\nhandle_errors {\nrespond sorry\n}", accepts, "connect: connection refused"},
		"no handler":           {"# %s", accepts, "no handler answered"},
		"hangs":                {"reverse_proxy %s", hangs, "no answer within 500ms"},
		"breaks off":           {"reverse_proxy %s", breaksOff, "the answer was cut off"},
		"204":                  {"reverse_proxy %s", answers(http.StatusNoContent, ""), ""},
		"202 of a text":        {"reverse_proxy %s", answers(http.StatusAccepted, "queued"), ""},
		"OK":                   {"reverse_proxy %s", answers(http.StatusOK, guardtest.OKJSON), ""},
		"FAIL in another name": {"reverse_proxy %s", answers(http.StatusOK, `{"actionstatus":"FAIL"}`), ""},
		"respond":              {"respond 200 # %s", accepts, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newUnsteady(t, tt.backend)
			s := newDeliverySite(t, guardtest.Guard("on after deliver")+"\n"+fmt.Sprintf(tt.body, b.address()))
			s.options = "timeout 500ms"
			s.start(t)
			newPoster(t, s.listen).wantOK(t, name)
			if tt.failed == "" {
				s.wantState(t, outbox.Delivered, 1)
				return
			}
			s.wantError(t, tt.failed)
			if n := s.status(t).Deliveries[outbox.Delivered]; n != 0 {
				t.Error("it counts as delivered")
			}
			if strings.Contains(tt.body, "reverse_proxy %s") {
				b.will(accepts)
				if a := b.one(t, event(name)); a.Header.Get("Tim-Delivery-Attempt") < "2" {
					t.Errorf("%s is %s, want at least 2", "Tim-Delivery-Attempt", a.Header.Get("Tim-Delivery-Attempt"))
				}
				s.wantState(t, outbox.Delivered, 1)
			}
		})
	}
}

// breaksOff closes the connection in the middle of its answer.
func breaksOff(*unsteady) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Length", strconv.Itoa(len(failJSON)))
		_, _ = io.WriteString(w, failJSON[:10])
	}
}

// After max_attempts, a delivery is dead, and stays listed.
func TestEndToEndDeliveryIsDeadAfterMaxAttempts(t *testing.T) {
	t.Parallel()
	b := newUnsteady(t, answers(http.StatusInternalServerError, ""))
	s := newDeliverySite(t, delivering(b))
	s.options = "max_attempts 2"
	s.start(t)
	newPoster(t, s.listen).wantOK(t, "dead")
	s.wantState(t, outbox.Dead, 1)
	if n := b.tries.Load(); n != 2 {
		t.Errorf("%d attempts, want 2", n)
	}
}

// Deliveries are signed with the token of the current configuration, and fail if the
// app was removed.
func TestEndToEndDeliveryUsesTheCurrentConfiguration(t *testing.T) {
	t.Parallel()
	b := newUnsteady(t, answers(http.StatusServiceUnavailable, ""))
	s := newDeliverySite(t, delivering(b))
	p := s.start(t)
	newPoster(t, s.listen).wantOK(t, "config")
	s.wantError(t, "the status 503")
	s.wantNoAuthStored(t)
	p.terminate(t)

	s.body = strings.Replace(delivering(b), guardtest.App, "1400000001", 1)
	p = s.start(t)
	s.wantError(t, "app "+guardtest.App+" is no longer configured in this guard")
	p.terminate(t)

	s.body = strings.Replace(delivering(b), guardtest.Token, guardtest.NewToken+" "+guardtest.Token, 1)
	b.will(accepts)
	s.start(t)
	if err := b.one(t, event("config")).isDelivery("/callback", guardtest.NewToken); err != nil {
		t.Error(err)
	}
}

// wantNoAuthStored fails the test if a file of the store contains a Sign or token.
func (s *deliverySite) wantNoAuthStored(t *testing.T) {
	t.Helper()
	found := false
	for _, suffix := range []string{"", "-wal"} {
		data, err := os.ReadFile(s.store() + suffix)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		found = found || bytes.Contains(data, []byte("CallbackAfterRecallMsg"))
		for _, secret := range []string{"Sign=", "RequestTime", guardtest.Token} {
			if bytes.Contains(data, []byte(secret)) {
				t.Errorf("%s holds %s", s.store()+suffix, secret)
			}
		}
	}
	if !found {
		t.Error("the store holds no callback, so that this shows nothing")
	}
}

// A rule that stores does not apply to before-callbacks, which need an immediate answer,
// even if the command is unknown.
func TestEndToEndDeliveryIsOnlyForAfterCallbacks(t *testing.T) {
	t.Parallel()
	b := newUnsteady(t, answers(http.StatusServiceUnavailable, ""))
	s := newDeliverySite(t, guardtest.Guard("on New.* deliver", "on Other.CallbackAfter* forward {\nfallback deliver\n}")+"\nreverse_proxy "+b.address())
	s.start(t)
	p := newPoster(t, s.listen)
	for command, want := range map[string]int{
		"New.CallbackBeforeSomething": http.StatusForbidden,
		"New.CallbackAfterSomething":  http.StatusOK,
		"Other.CallbackAfterThis":     http.StatusOK,
	} {
		if status, answer, err := p.post("/callback", command, fmt.Appendf(nil, `{"CallbackCommand":%q}`, command)); err != nil || status != want {
			t.Errorf("%s: %d %s, %v; want %d", command, status, answer, err, want)
		}
	}
	for _, item := range s.items(t) {
		if callback.ClassOf(item.Callback.Command) != callback.After {
			t.Errorf("%s is stored", item.Callback.Command)
		}
	}
	if n := len(s.items(t)); n != 2 {
		t.Errorf("%d are stored, want 2", n)
	}
}

func TestDeliveryConfigIsValidated(t *testing.T) {
	t.Parallel()
	guards := func(names ...string) (body string) {
		for i, name := range names {
			body += fmt.Sprintf("handle /%d {\n%s\nrespond 200\n}\n", i, guardtest.Guard("on after deliver", name))
		}
		return body
	}
	for name, tt := range map[string]struct {
		body, options string
		want          string // in the error; empty if there is none
	}{
		"two of the same name":      {guards("", ""), "", `two tim_callback that store callbacks are named \"default\"`},
		"two names":                 {guards("name a", "name b"), "", ""},
		"one of them stores":        {guardtest.Guard() + "\nhandle {\n" + guardtest.Guard("on after deliver") + "\n}", "", ""},
		"no such variable":          {guards(""), "store postgres {env.TIMGUARD_TEST_UNSET}", "TIMGUARD_TEST_UNSET"},
		"before-callbacks":          {guardtest.Guard("on * deliver"), "", "deliver is only for after-callbacks, but Group.CallbackBeforeCreateGroup is a before-callback"},
		"before-callbacks above":    {guardtest.Guard("on before forward", "on * deliver"), "", ""},
		"console without a guard":   {"tim_console /deliveries", "", ""},
		"fallback for both classes": {guardtest.Guard("on Group.* forward {\nfallback deliver\n}"), "", "fallback deliver is only for after-callbacks"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newDeliverySite(t, tt.body)
			s.options = tt.options
			config := s.dir + "/Caddyfile"
			if err := os.WriteFile(config, []byte(s.caddyfile()), 0o600); err != nil {
				t.Fatal(err)
			}
			output, err := timguard(s.dir, "validate", "--config", config, "--adapter", "caddyfile").CombinedOutput()
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("%v\n%s", err, output)
			case tt.want != "" && (err == nil || !strings.Contains(string(output), tt.want) && !strings.Contains(string(output), strings.ReplaceAll(tt.want, `\"`, `"`))):
				t.Errorf("error %v\n%s\nwant %s", err, output, tt.want)
			}
			if _, err := os.Stat(s.store()); err == nil {
				t.Error("validating made the store")
			}
		})
	}
}

// Hanging deliveries of one guard do not delay those of another.
func TestEndToEndDeliveryOfOneGuardDoesNotDelayAnother(t *testing.T) {
	t.Parallel()
	ill, well := newUnsteady(t, hangs), newUnsteady(t, accepts)
	s := newDeliverySite(t, "handle_path /ill/* {\n"+guardtest.Guard("on after deliver", "name ill")+"\nreverse_proxy "+ill.address()+"\n}\n"+
		"handle_path /well/* {\n"+guardtest.Guard("on after deliver", "name well")+"\nreverse_proxy "+well.address()+"\n}")
	s.options = "workers 2"
	s.start(t)
	p := newPoster(t, s.listen)
	for i := range 10 {
		if _, answer, err := p.post("/ill/callback", callback.RecallCommand, event(fmt.Sprint("ill", i))); err != nil || answer != guardtest.OKJSON {
			t.Fatal(answer, err)
		}
	}
	eventually(t, 10*time.Second, "both workers hang", func() bool { return ill.tries.Load() == 2 })
	if _, answer, err := p.post("/well/callback", callback.RecallCommand, event("well")); err != nil || answer != guardtest.OKJSON {
		t.Fatal(answer, err)
	}
	start := time.Now()
	well.one(t, event("well"))
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
}
