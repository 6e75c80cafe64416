// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"

	"github.com/timguard/timguard/caddymodule/callback"
	"github.com/timguard/timguard/caddymodule/internal/guardtest"
	"github.com/timguard/timguard/caddymodule/outbox"
)

// Only an accepted answer that a handler of the block has written ends a delivery. Handlers
// of the site have no part in it.
func TestEndToEndDeliveryIsRetriedUntilAccepted(t *testing.T) {
	t.Parallel()
	const page = "<html>系统维护中</html>"
	for name, tt := range map[string]struct {
		block   string // of the backend
		site    string // directives of the site after the guard
		backend func(*guardtest.Backend) http.HandlerFunc
		failed  string // error of the attempt; empty if it is a delivery
	}{
		"FAIL":                     {"reverse_proxy %s", "", guardtest.Answers(http.StatusOK, guardtest.FailJSON), "the answer says FAIL"},
		"FAIL among others":        {"reverse_proxy %s", "", guardtest.Answers(http.StatusOK, `{"a":[{}],"ActionStatus":"FAIL"}`), "the answer says FAIL"},
		"FAIL, encoded":            {"encode {\nminimum_length 1\nmatch {\nheader Content-Type *\n}\n}\nreverse_proxy %s", "", guardtest.Answers(http.StatusOK, guardtest.FailJSON), "the answer says FAIL"},
		"503":                      {"reverse_proxy %s", "", guardtest.Answers(http.StatusServiceUnavailable, guardtest.OKJSON), "the answer has the status 503"},
		"302":                      {"reverse_proxy %s", "", guardtest.Answers(http.StatusFound, ""), "the answer has the status 302"},
		"an HTML page":             {"reverse_proxy %s", "", guardtest.Answers(http.StatusOK, page), "an HTML page"},
		"nobody listens":           {"reverse_proxy 127.0.0.1:1 # %s", "", guardtest.Accepts, "connect: connection refused"},
		"nobody listens, and said": {"reverse_proxy 127.0.0.1:1 # %s", "handle_errors {\nrespond ok\n}", guardtest.Accepts, "connect: connection refused"},
		"no handler matches":       {"@no path /no\nreverse_proxy @no %s", "respond ok", guardtest.Accepts, "no handler in the block answered"},
		"no handler answers":       {"header X-Block %s", "respond ok", guardtest.Accepts, "no handler in the block answered"},
		"templates":                {"header X-Block %s", "templates\nrespond ok", guardtest.Accepts, "no handler in the block answered"},
		"templates in the block":   {"templates\nheader X-Block %s", "", guardtest.Accepts, "no handler in the block answered"},
		"an error":                 {"error 404 # %s", "", guardtest.Accepts, "a handler failed with the status 404"},
		"panics":                   {"test_panic # %s", "", guardtest.Accepts, "a handler panicked"},
		"hangs":                    {"reverse_proxy %s", "", guardtest.Hangs, "the backend did not answer in time"},
		"breaks off":               {"reverse_proxy %s", "", breaksOff, "the answer was cut off"},
		"204":                      {"reverse_proxy %s", "", guardtest.Answers(http.StatusNoContent, ""), ""},
		"202 of a word":            {"reverse_proxy %s", "", guardtest.Answers(http.StatusAccepted, "queued"), ""},
		"OK":                       {"reverse_proxy %s", "", guardtest.Answers(http.StatusOK, guardtest.OKJSON), ""},
		"FAIL in another name":     {"reverse_proxy %s", "", guardtest.Answers(http.StatusOK, `{"actionstatus":"FAIL"}`), ""},
		"an answer to an error":    {"reverse_proxy %s {\n@down status 5xx\nhandle_response @down {\nrespond ok\n}\n}", "", guardtest.Answers(http.StatusInternalServerError, ""), ""},
		"respond":                  {"respond ok # %s", "", guardtest.Accepts, ""},
		"a site that answers 500":  {"reverse_proxy %s", "templates\nencode\nrespond 500", guardtest.Answers(http.StatusOK, "ok"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := guardtest.NewBackend(t, tt.backend)
			s := guardtest.NewSite(t, guardtest.Guard("on after deliver", "backend {\n"+fmt.Sprintf(tt.block, b.Address())+"\n}")+"\n"+tt.site)
			s.Options = "timeout 500ms"
			s.Start(t)
			guardtest.NewPoster(t, s.Listen).WantOK(t, name)
			if tt.failed == "" {
				s.WantState(t, outbox.Delivered, 1)
				return
			}
			s.WantError(t, tt.failed)
			if n := s.Status(t).Deliveries[outbox.Delivered]; n != 0 {
				t.Error("it counts as delivered")
			}
			if strings.Contains(tt.block, "reverse_proxy %s") {
				b.Will(guardtest.Accepts)
				if a := b.One(t, guardtest.Event(name)); a.Header.Get("Tim-Delivery-Attempt") < "2" {
					t.Errorf("%s is %s, want at least 2", "Tim-Delivery-Attempt", a.Header.Get("Tim-Delivery-Attempt"))
				}
				s.WantState(t, outbox.Delivered, 1)
			}
		})
	}
}

// A block in which no handler answers does not fall through to the site, by forward either.
func TestEndToEndForwardWithoutAnAnswerInTheBlockIs502(t *testing.T) {
	t.Parallel()
	for name, block := range map[string]string{
		"no handler matches": "@no path /no\nreverse_proxy @no 127.0.0.1:1",
		"no handler answers": "header X-Block 1",
		"templates":          "templates\nheader X-Block 1",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := guardtest.NewSite(t, guardtest.Guard("on after forward", "backend {\n"+block+"\n}")+"\nrespond ok")
			s.Start(t)
			status, answer, err := guardtest.NewPoster(t, s.Listen).Post("/callback", callback.RecallCommand, guardtest.Event(name))
			if err != nil || status != http.StatusBadGateway || strings.Contains(answer, "ok") {
				t.Errorf("answer %d %q, %v; want 502", status, answer, err)
			}
		})
	}
}

// breaksOff closes the connection in the middle of its answer.
func breaksOff(*guardtest.Backend) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Length", strconv.Itoa(len(guardtest.FailJSON)))
		_, _ = io.WriteString(w, guardtest.FailJSON[:10])
	}
}

// After max_attempts, a delivery is dead, and stays listed.
func TestEndToEndDeliveryIsDeadAfterMaxAttempts(t *testing.T) {
	t.Parallel()
	b := guardtest.NewBackend(t, guardtest.Answers(http.StatusInternalServerError, ""))
	s := guardtest.NewSite(t, guardtest.Delivering(b))
	s.Options = "max_attempts 2"
	s.Start(t)
	guardtest.NewPoster(t, s.Listen).WantOK(t, "dead")
	s.WantState(t, outbox.Dead, 1)
	if n := b.Tries.Load(); n != 2 {
		t.Errorf("%d attempts, want 2", n)
	}
}

// Deliveries are signed with the token of the current configuration, and fail if the
// app was removed.
func TestEndToEndDeliveryUsesTheCurrentConfiguration(t *testing.T) {
	t.Parallel()
	b := guardtest.NewBackend(t, guardtest.Answers(http.StatusServiceUnavailable, ""))
	s := guardtest.NewSite(t, guardtest.Delivering(b))
	p := s.Start(t)
	guardtest.NewPoster(t, s.Listen).WantOK(t, "config")
	s.WantError(t, "the status 503")
	wantNoAuthStored(t, s)
	p.Terminate(t)

	s.Directives = strings.Replace(guardtest.Delivering(b), guardtest.App, "1400000001", 1)
	p = s.Start(t)
	s.WantError(t, "app "+guardtest.App+" is no longer configured in this guard")
	p.Terminate(t)

	s.Directives = strings.Replace(guardtest.Delivering(b), guardtest.Token, guardtest.NewToken+" "+guardtest.Token, 1)
	b.Will(guardtest.Accepts)
	s.Start(t)
	if err := b.One(t, guardtest.Event("config")).IsDelivery("/callback", guardtest.NewToken); err != nil {
		t.Error(err)
	}
}

// wantNoAuthStored fails the test if a file of the store contains a Sign or token.
func wantNoAuthStored(t *testing.T, s *guardtest.Site) {
	t.Helper()
	found := false
	for _, suffix := range []string{"", "-wal"} {
		data, err := os.ReadFile(s.StorePath() + suffix)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		found = found || bytes.Contains(data, []byte("CallbackAfterRecallMsg"))
		for _, secret := range []string{"Sign=", "RequestTime", guardtest.Token} {
			if bytes.Contains(data, []byte(secret)) {
				t.Errorf("%s holds %s", s.StorePath()+suffix, secret)
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
	b := guardtest.NewBackend(t, guardtest.Answers(http.StatusServiceUnavailable, ""))
	s := guardtest.NewSite(t, guardtest.Guard("on New.* deliver", "on Other.CallbackAfter* forward {\nfallback deliver\n}", "backend "+b.Address()))
	s.Start(t)
	p := guardtest.NewPoster(t, s.Listen)
	for command, want := range map[string]int{
		"New.CallbackBeforeSomething": http.StatusForbidden,
		"New.CallbackAfterSomething":  http.StatusOK,
		"Other.CallbackAfterThis":     http.StatusOK,
	} {
		if status, answer, err := p.Post("/callback", command, fmt.Appendf(nil, `{"CallbackCommand":%q}`, command)); err != nil || status != want {
			t.Errorf("%s: %d %s, %v; want %d", command, status, answer, err, want)
		}
	}
	for _, item := range s.Items(t) {
		if callback.ClassOf(item.Callback.Command) != callback.After {
			t.Errorf("%s is stored", item.Callback.Command)
		}
	}
	if n := len(s.Items(t)); n != 2 {
		t.Errorf("%d are stored, want 2", n)
	}
}

func TestDeliveryConfigIsValidated(t *testing.T) {
	t.Parallel()
	guards := func(names ...string) (directives string) {
		for i, name := range names {
			directives += fmt.Sprintf("handle /%d {\n%s\n}\n", i, guardtest.Guard("on after deliver", "backend 127.0.0.1:1", name))
		}
		return directives
	}
	const (
		same    = "tim_callback default stores callbacks, and another one with a backend or consumers has the same name"
		missing = "needs a backend block, which says where stored callbacks go:"
	)
	consumers := "backend 127.0.0.1:1\nconsumer archive 127.0.0.1:2"
	second := func(guard string) string { return "http://" + guardtest.FreePort(t) + " {\n" + guard + "\n}" }
	stores := guardtest.Guard("on after deliver", "backend 127.0.0.1:1")
	for name, tt := range map[string]struct {
		directives, options string
		after               string // another site
		want                string // in the error; empty if there is none
	}{
		"two of the same name":              {guards("", ""), "", "", same},
		"two names":                         {guards("name a", "name b"), "", "", ""},
		"one of them stores":                {guardtest.Guard() + "\nhandle {\n" + stores + "\n}", "", "", ""},
		"one of them stores, both have one": {guardtest.Guard("backend 127.0.0.1:1") + "\nhandle {\n" + stores + "\n}", "", "", same},
		"in one route":                      {"route {\n" + stores + "\n" + stores + "\n}", "", "", same},
		"equal on two listeners":            {stores, "", second(stores), ""},
		"another backend":                   {stores, "", second(guardtest.Guard("on after deliver", "backend 127.0.0.1:2")), same},
		"another backend in a block":        {stores, "", second(guardtest.Guard("on after deliver", "backend {\nreverse_proxy 127.0.0.1:1\ntimeout 3s\n}")), same},
		"another consumer":                  {guardtest.Guard("on after ack {\ncopy archive\n}", consumers), "", second(guardtest.Guard("on after ack {\ncopy archive\n}", strings.Replace(consumers, ":2", ":3", 1))), same},
		"another rule":                      {stores, "", second(guardtest.Guard("on after forward", "backend 127.0.0.1:1")), same},
		"another name":                      {stores, "", second(guardtest.Guard("on after deliver", "backend 127.0.0.1:2", "name other")), ""},
		"no backend, deliver":               {guardtest.Guard("on after deliver"), "", "", "deliver " + missing},
		"no backend, fallback":              {guardtest.Guard("on after forward {\nfallback deliver\n}"), "", "", "fallback deliver " + missing},
		"no consumer":                       {guardtest.Guard("on after ack {\ncopy archive\n}"), "", "", "copy archive needs a consumer block, which says where its copies go:"},
		"a consumer, but another":           {guardtest.Guard("on after ack {\ncopy archiv\n}", consumers), "", "", "copy archiv needs a consumer block"},
		"names that are long together":      {guardtest.Guard("backend 127.0.0.1:1", "name "+strings.Repeat("a", 40), "consumer "+strings.Repeat("b", 40)+" 127.0.0.1:1"), "", "", "must not have more than 63 characters together"},
		"no such variable":                  {guards(""), "store postgres {env.TIMGUARD_TEST_UNSET}", "", "TIMGUARD_TEST_UNSET"},
		"before-callbacks":                  {guardtest.Guard("on * deliver", "backend 127.0.0.1:1"), "", "", "deliver is only for after-callbacks, but Group.CallbackBeforeCreateGroup is a before-callback"},
		"before-callbacks above":            {guardtest.Guard("on before forward", "on * deliver", "backend 127.0.0.1:1"), "", "", ""},
		"console without a guard":           {"tim_console /deliveries", "", "", ""},
		"fallback for both classes":         {guardtest.Guard("on Group.* forward {\nfallback deliver\n}", "backend 127.0.0.1:1"), "", "", "fallback deliver is only for after-callbacks"},
	} {
		t.Run(name, func(t *testing.T) {
			s := guardtest.NewSite(t, tt.directives)
			s.Options, s.After = tt.options, tt.after
			switch err := validate(t, s); {
			case tt.want == "" && err != nil:
				t.Error(err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("error %v, want %s", err, tt.want)
			}
			if _, err := os.Stat(s.StorePath()); err == nil {
				t.Error("validating made the store")
			}
		})
	}
}

// validate does what caddy validate does with the site.
func validate(t *testing.T, s *guardtest.Site) error {
	t.Helper()
	adapted, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(s.Caddyfile()), nil)
	if err != nil {
		return err
	}
	var config caddy.Config
	if err := json.Unmarshal(adapted, &config); err != nil {
		t.Fatal(err)
	}
	return caddy.Validate(&config)
}

// Hanging deliveries of one guard do not delay those of another.
func TestEndToEndDeliveryOfOneGuardDoesNotDelayAnother(t *testing.T) {
	t.Parallel()
	ill, well := guardtest.NewBackend(t, guardtest.Hangs), guardtest.NewBackend(t, guardtest.Accepts)
	s := guardtest.NewSite(t, "handle_path /ill/* {\n"+guardtest.Delivering(ill, "name ill")+"\n}\n"+
		"handle_path /well/* {\n"+guardtest.Delivering(well, "name well")+"\n}")
	s.Options = "workers 2"
	s.Start(t)
	p := guardtest.NewPoster(t, s.Listen)
	for i := range 10 {
		if _, answer, err := p.Post("/ill/callback", callback.RecallCommand, guardtest.Event(fmt.Sprint("ill", i))); err != nil || answer != guardtest.OKJSON {
			t.Fatal(answer, err)
		}
	}
	guardtest.Eventually(t, 10*time.Second, "both workers hang", func() bool { return ill.Tries.Load() == 2 })
	if _, answer, err := p.Post("/well/callback", callback.RecallCommand, guardtest.Event("well")); err != nil || answer != guardtest.OKJSON {
		t.Fatal(answer, err)
	}
	start := time.Now()
	well.One(t, guardtest.Event("well"))
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
}
