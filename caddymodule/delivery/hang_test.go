// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/timguard/timguard/caddymodule/callback"
	"github.com/timguard/timguard/caddymodule/internal/guardtest"
	"github.com/timguard/timguard/caddymodule/outbox"
)

func init() {
	caddy.RegisterModule(panics{})
	httpcaddyfile.RegisterHandlerDirective("test_panic", func(httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) { return new(panics), nil })
	httpcaddyfile.RegisterDirectiveOrder("test_panic", httpcaddyfile.Before, "reverse_proxy")
	caddy.RegisterModule(hang{})
	httpcaddyfile.RegisterHandlerDirective("test_hang", func(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
		handler := new(hang)
		h.Next()
		if !h.AllArgs(&handler.While) {
			return nil, h.ArgErr()
		}
		return handler, nil
	})
	httpcaddyfile.RegisterDirectiveOrder("test_hang", httpcaddyfile.Before, "reverse_proxy")
}

// panics is a handler that panics.
type panics struct{}

func (panics) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.test_panic", New: func() caddy.Module { return new(panics) }}
}

func (*panics) ServeHTTP(http.ResponseWriter, *http.Request, caddyhttp.Handler) error {
	panic("payload")
}

// hang is a handler that does not return while a file exists, whatever becomes of the
// request. Then it answers OK.
type hang struct {
	While string `json:"while"`
}

func (hang) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.test_hang", New: func() caddy.Module { return new(hang) }}
}

func (h *hang) ServeHTTP(w http.ResponseWriter, _ *http.Request, _ caddyhttp.Handler) error {
	for {
		if _, err := os.Stat(h.While); err != nil {
			_, err = io.WriteString(w, guardtest.OKJSON)
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
}

var _ caddyhttp.MiddlewareHandler = (*hang)(nil)

// hanging is a way to let attempts hang that do not heed their timeout.
type hanging struct {
	handler string // in the block of the backend
	release func()
}

// hangs returns the ways to hang.
func hangs() map[string]func(t *testing.T) hanging {
	return map[string]func(t *testing.T) hanging{
		"a handler": func(t *testing.T) hanging {
			t.Helper()
			file := filepath.Join(t.TempDir(), "hang")
			if err := os.WriteFile(file, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			return hanging{"test_hang * " + file, func() { _ = os.Remove(file) }}
		},
		"php_fastcgi": func(t *testing.T) hanging {
			t.Helper()
			b := guardtest.NewFastCGI(t, guardtest.Accepts)
			released := make(chan struct{})
			b.Will(func(b *guardtest.Backend) http.HandlerFunc {
				accept := guardtest.Accepts(b)
				return func(w http.ResponseWriter, r *http.Request) {
					<-released
					accept(w, r)
				}
			})
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "index.php"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			return hanging{"root * " + dir + "\nphp_fastcgi " + b.Address(), func() { close(released) }}
		},
	}
}

const (
	// abandoned is the gauge of attempts that go on although their timeout is over.
	abandoned = "caddy_tim_callback_abandoned_attempts"

	// allHang is what the log says if a queue has no worker left.
	allHang = "as many attempts hang as the queue has workers; it waits until one ends"
)

// An attempt has failed at its timeout, also if the handler goes on. The worker goes on with
// other callbacks, and is not held up when the callback is attempted again.
func TestEndToEndDeliveryEndsAtItsTimeoutWhateverTheHandlerDoes(t *testing.T) {
	t.Parallel()
	for name, start := range hangs() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, b := start(t), guardtest.NewBackend(t, guardtest.Accepts)
			s := guardtest.NewSite(t, guardtest.Guard("on after deliver",
				"backend {\ntimeout 500ms\nworkers 3\nhandle /hang {\n"+h.handler+"\n}\nhandle {\nreverse_proxy "+b.Address()+"\n}\n}"))
			guard := s.Start(t)
			p := guardtest.NewPoster(t, s.Listen)
			begun := time.Now()
			if _, answer, err := p.Post("/hang", callback.RecallCommand, guardtest.Event("hangs")); err != nil || answer != guardtest.OKJSON {
				t.Fatal(answer, err)
			}
			s.WantError(t, "no answer within 500ms, and the handler goes on")
			if took := time.Since(begun); took > 2*time.Second {
				t.Errorf("the attempt failed after %s, with a timeout of 500ms", took)
			}
			if n := s.Metric(t, abandoned); n < 1 || n > 2 {
				t.Errorf("%v attempts are abandoned, want one, or two after another attempt", n)
			}
			for i := range 10 {
				id := fmt.Sprint("other-", i)
				p.WantOK(t, id)
				start := time.Now()
				b.One(t, guardtest.Event(id))
				if took := time.Since(start); took > time.Second {
					t.Errorf("another callback took %s", took)
				}
			}
			h.release()
			guardtest.Eventually(t, 10*time.Second, "none is abandoned", func() bool { return s.Metric(t, abandoned) == 0 })
			s.WantState(t, outbox.Delivered, 11)
			if lines := guard.LogLines(t, allHang); len(lines) > 0 {
				t.Errorf("%v", lines)
			}
		})
	}
}

// An attempt is counted and logged when its timeout is over, not when its handler returns.
func TestEndToEndDeliveryCountsAnAttemptAtItsTimeout(t *testing.T) {
	t.Parallel()
	h := hangs()["a handler"](t)
	s := guardtest.NewSite(t, guardtest.Guard("on after deliver", "backend {\ntimeout 300ms\nmax_attempts 1\n"+h.handler+"\n}"))
	s.Global += "\nmetrics"
	p := s.Start(t)
	guardtest.NewPoster(t, s.Listen).WantOK(t, "hangs")
	p.WantLog(t, "last delivery attempt failed; delivery is dead", map[string]any{"error": "no answer within 300ms, and the handler goes on"})
	s.WantState(t, outbox.Dead, 1)
	const failed = `caddy_tim_callback_delivery_attempts_total{command="Group.CallbackAfterRecallMsg",consumer="",guard="default",outcome="failed"}`
	if n := s.Metric(t, failed); n != 1 {
		t.Errorf("%v attempts are counted, want 1", n)
	}
	h.release()
	guardtest.Eventually(t, 10*time.Second, "none is abandoned", func() bool { return s.Metric(t, abandoned) == 0 })
	if n := s.Metric(t, failed); n != 1 {
		t.Errorf("%v attempts are counted in the end, want 1", n)
	}
	if lines := p.LogLines(t, "delivered"); len(lines) > 0 {
		t.Errorf("%v, although it is dead", lines)
	}
}

// While as many attempts hang as the queue has workers, it waits, says so, and counts
// nothing. Other queues go on. It recovers when the handlers return.
func TestEndToEndDeliveryWaitsWhileAllWorkersHang(t *testing.T) {
	t.Parallel()
	for name, start := range hangs() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, b := start(t), guardtest.NewBackend(t, guardtest.Accepts)
			s := guardtest.NewSite(t, "handle /well {\n"+guardtest.Delivering(b, "name well")+"\n}\nhandle {\n"+
				guardtest.Guard("on after deliver", "name ill", "backend {\ntimeout 300ms\nworkers 2\nmax_attempts 3\n"+h.handler+"\n}")+"\n}")
			guard := s.Start(t)
			p := guardtest.NewPoster(t, s.Listen)
			for i := range 6 {
				p.WantOK(t, fmt.Sprint("ill-", i))
			}
			guard.WantLog(t, allHang, map[string]any{"level": "error", "logger": "tim_delivery", "guard": "ill", "workers": 2.0})
			counted := func() (failures, attempts int) {
				for _, item := range s.Items(t) {
					if failures += len(item.Failures); item.State != outbox.Running {
						attempts += item.Attempt
					}
				}
				return failures, attempts
			}
			time.Sleep(time.Second)
			// One may have begun before the last worker was found to hang.
			hung := s.Metric(t, abandoned)
			if failures, attempts := counted(); hung < 2 || hung > 3 || failures != int(hung) || attempts > failures {
				t.Errorf("%v attempts are abandoned, and %d failures of %d attempts are counted, want 2, or 3 at most", hung, failures, attempts)
			}
			time.Sleep(6 * time.Second) // longer than an attempt waits for another to end
			if failures, attempts := counted(); s.Metric(t, abandoned) != hung || failures != int(hung) || attempts > failures {
				t.Errorf("%v attempts are abandoned, and %d failures of %d attempts are counted, although the queue waits", s.Metric(t, abandoned), failures, attempts)
			}
			if _, answer, err := p.Post("/well", callback.RecallCommand, guardtest.Event("well")); err != nil || answer != guardtest.OKJSON {
				t.Fatal(answer, err)
			}
			b.One(t, guardtest.Event("well"))
			h.release()
			s.WantState(t, outbox.Delivered, 7)
			for _, item := range s.Items(t) {
				if len(item.Failures) > 1 {
					t.Errorf("%+v", item.Failures)
				}
			}
			if n := s.Metric(t, abandoned); n != 0 {
				t.Errorf("%v attempts are abandoned in the end", n)
			}
		})
	}
}

// A handler that does not return holds up the end of the process no longer than the grace
// period, whether it delivers or forwards. The attempt does not count, and is made again.
func TestEndToEndDeliveryThatHangsHoldsUpNoTermination(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		rule, queue string
		global      string
		running     int
	}{
		"deliver":                  {"on after deliver", "timeout 30s", "grace_period 1s", 2},
		"deliver, no worker left":  {"on after deliver", "timeout 200ms\nworkers 1", "grace_period 1s", 1},
		"deliver, no grace period": {"on after deliver", "timeout 1s", "", 2}, // then an attempt may take until its timeout
		"forward":                  {"on after forward", "", "grace_period 1s", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := hangs()["a handler"](t)
			s := guardtest.NewSite(t, guardtest.Guard(tt.rule, "backend {\n"+tt.queue+"\n"+h.handler+"\n}"))
			s.Global = tt.global
			guard := s.Start(t)
			p := guardtest.NewPoster(t, s.Listen)
			if tt.running == 0 {
				go func() { _, _, _ = p.Post("/callback", callback.RecallCommand, guardtest.Event("a")) }()
				time.Sleep(300 * time.Millisecond)
			} else {
				p.WantOK(t, "a")
				p.WantOK(t, "b")
				s.WantState(t, outbox.Running, tt.running)
			}
			if tt.running == 1 {
				guardtest.Eventually(t, 10*time.Second, "an attempt is abandoned", func() bool { return s.Metric(t, abandoned) == 1 })
			}
			took := guard.Terminate(t)
			t.Logf("it took %s to stop", took.Round(10*time.Millisecond))
			if took > 3*time.Second {
				t.Errorf("it took %s to stop, with a grace period of 1s", took)
			}
			if tt.running == 0 {
				return
			}
			h.release()
			start := time.Now()
			s.Start(t)
			s.WantState(t, outbox.Delivered, 2)
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("they were delivered %s after the next start", took)
			}
		})
	}
}

// A handler that does not return holds up no reload, and its callback is delivered by the
// next configuration.
func TestEndToEndDeliveryThatHangsHoldsUpNoReload(t *testing.T) {
	t.Parallel()
	for name, start := range hangs() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := start(t)
			site := guardtest.Guard("on after deliver", "backend {\ntimeout 3s\n"+h.handler+"\n}")
			s := guardtest.NewSite(t, site)
			guard := s.Start(t)
			p := guardtest.NewPoster(t, s.Listen)
			p.WantOK(t, "a")
			s.WantState(t, outbox.Running, 1)
			for n := range 3 {
				s.Directives = fmt.Sprintf("header X-Generation %d\n%s", n, site)
				start := time.Now()
				s.Reload(t)
				if took := time.Since(start); took > 2*time.Second {
					t.Errorf("a reload took %s", took)
				}
			}
			s.WantError(t, "no answer within 3s, and the handler goes on")
			h.release()
			s.WantState(t, outbox.Delivered, 1)
			if took := guard.Terminate(t); took > 3*time.Second {
				t.Errorf("it took %s to stop", took)
			}
		})
	}
}
