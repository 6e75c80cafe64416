// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

//go:build !race

package caddymodule

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/timguard/timguard/caddymodule/callback"
	"github.com/timguard/timguard/caddymodule/internal/guardtest"
)

// discarding is a ResponseWriter that discards everything.
type discarding http.Header

func (d discarding) Header() http.Header         { return http.Header(d) }
func (d discarding) Write(p []byte) (int, error) { return len(p), nil }
func (d discarding) WriteHeader(int)             {}

// Not parallel, because others' allocations would count; and not under the race
// detector, which makes more.
func TestWhatTheGuardAllocatesForARequest(t *testing.T) {
	body := recallBody(t)
	target := "/callback?" + guardtest.Query(guardtest.App, callback.RecallCommand, guardtest.Signed(guardtest.Token, time.Now()))
	answers := caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		answering(w, r)
		return nil
	})
	// allocations is what a request costs that the handler serves, of which the
	// test itself makes some.
	allocations := func(handler caddyhttp.Handler) float64 {
		answer := make(discarding)
		return testing.AllocsPerRun(1000, func() {
			r, err := http.NewRequest(http.MethodPost, target, io.NopCloser(bytes.NewReader(body)))
			if err != nil {
				t.Fatal(err)
			}
			r = r.WithContext(context.WithValue(r.Context(), caddy.ReplacerCtxKey, caddy.NewEmptyReplacer()))
			r.ContentLength = int64(len(body))
			r.Header.Set("Content-Length", strconv.Itoa(len(body)))
			if err := handler.ServeHTTP(answer, r); err != nil {
				t.Fatal(err)
			}
		})
	}
	without := allocations(answers)
	forward := Rule{Commands: []string{callback.RecallCommand}, Action: actionForward}
	with := func(verdict string) Rule {
		rule := forward
		rule.Fallback = &Fallback{Verdict: verdict}
		return rule
	}
	for name, tt := range map[string]struct {
		rule Rule
		most float64
	}{
		// All have the call, two for its event, the Sign, and what shows it.
		"ack":     {Rule{Action: actionAck}, 11},     // and the headers of the answer
		"forbid":  {Rule{Action: actionForbid}, 14},  // and the answer
		"deliver": {Rule{Action: actionDeliver}, 17}, // and what is handed to the store, and the time that it has
		"forward": {forward, 14},                     // and the body, and what restores it
		// As forward, and a timer, a context, a request with it, and what holds the answer.
		"fallback allow":   {with(verdictAllow), 29},
		"fallback deliver": {with(verdictDeliver), 32}, // and the headers as they came
	} {
		h := provisioned(t, &Handler{Apps: []App{{SdkAppID: guardtest.App, Tokens: []string{guardtest.Token}}}, Rules: []Rule{forward}})
		h.known[callback.RecallCommand], h.deliveries = &tt.rule, storing{}
		guarded := caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error { return h.ServeHTTP(w, r, answers) })
		if got := allocations(guarded) - without; got > tt.most {
			t.Errorf("%s: got %v allocations more than without the guard, want at most %v", name, got, tt.most)
		}
	}
}
