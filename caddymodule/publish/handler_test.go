// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package publish_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/timguard/timguard/caddymodule/internal/answer"
	"github.com/timguard/timguard/caddymodule/internal/guardtest"
	"github.com/timguard/timguard/caddymodule/publish"
)

// handler is a provisioned handler.
type handler struct {
	*publish.Handler
	cleanUp func()
}

func provision(t *testing.T, directive string) (handler, error) {
	t.Helper()
	h := new(publish.Handler)
	if err := h.UnmarshalCaddyfile(caddyfile.NewTestDispenser(directive)); err != nil {
		return handler{}, err
	}
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	t.Cleanup(cancel)
	return handler{h, cancel}, errors.Join(h.Provision(ctx), h.Validate())
}

func provisioned(t *testing.T, directive string) handler {
	t.Helper()
	h, err := provision(t, directive)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// outcome is what became of a callback.
type outcome struct {
	status int
	answer string
	err    string // as deliveries show it
	took   time.Duration
}

// publish publishes a body, with placeholders as of a guard.
func (h handler) publish(ctx context.Context, body string, placeholders ...string) outcome {
	return h.publishFrom(ctx, strings.NewReader(body), placeholders...)
}

func (h handler) publishFrom(ctx context.Context, body io.Reader, placeholders ...string) outcome {
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/callback?Sign="+strings.Repeat("a", 64), body)
	w := httptest.NewRecorder()
	repl := caddy.NewReplacer()
	r = caddyhttp.PrepareRequest(r, repl, w, nil)
	for pair := range slices.Chunk(placeholders, 2) {
		repl.Set(pair[0], pair[1])
	}
	start := time.Now()
	if err := h.ServeHTTP(w, r, nil); err != nil {
		failed, _ := errors.AsType[caddyhttp.HandlerError](err)
		return outcome{status: failed.StatusCode, err: err.Error()}
	}
	text, _ := caddyhttp.GetVar(r.Context(), answer.ErrorVar).(string)
	return outcome{w.Code, w.Body.String(), text, time.Since(start)}
}

// deadline is that of rules by default.
const deadline = 1500 * time.Millisecond

// wantFailed fails the test unless the answer is FAIL, with the cause, within the deadline of
// rules, and the error contains the texts.
func (o outcome) wantFailed(t *testing.T, cause string, texts ...string) {
	t.Helper()
	want := `{"ActionStatus":"FAIL","ErrorInfo":"the callback could not be published: ` + cause + `","ErrorCode":1}`
	if o.status != http.StatusBadGateway || o.answer != want {
		t.Errorf("answer %d %s, want 502 %s; error %s", o.status, o.answer, want, o.err)
	}
	if o.took > deadline {
		t.Errorf("answered after %s", o.took)
	}
	for _, text := range texts {
		if !strings.Contains(o.err, text) {
			t.Errorf("error %q, want %s", o.err, text)
		}
	}
	if strings.Contains(o.err, "secret") || strings.Contains(o.err, strings.Repeat("a", 64)) {
		t.Errorf("error %q has a secret", o.err)
	}
}

func (o outcome) wantOK(t *testing.T) {
	t.Helper()
	if o.status != http.StatusOK || o.answer != guardtest.OKJSON || o.err != "" {
		t.Errorf("answer %d %s, error %q; want OK", o.status, o.answer, o.err)
	}
}

// patient returns the directive with a timeout that is long enough for a busy machine, where
// the test is about something else.
func patient(directive string) string {
	return strings.Replace(directive, "{\n", "{\ntimeout 20s\n", 1)
}

// warmUp waits until a message is published.
func (h handler) warmUp(t *testing.T) {
	t.Helper()
	guardtest.Eventually(t, 30*time.Second, "a message is published", func() bool { return h.publish(t.Context(), "first").status == http.StatusOK })
}

// settle publishes until the broker has had the time to say what is wrong.
func (h handler) settle(t *testing.T, cause string) {
	t.Helper()
	guardtest.Eventually(t, 30*time.Second, "another cause than its slowness", func() bool {
		o := h.publish(t.Context(), "{}")
		return strings.Contains(o.answer, cause) || !strings.Contains(o.answer, "timeout") && !strings.Contains(o.err, "no connection")
	})
}
