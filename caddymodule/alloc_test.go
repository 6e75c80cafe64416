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

// discarding is a ResponseWriter that makes nothing.
type discarding http.Header

func (d discarding) Header() http.Header         { return http.Header(d) }
func (d discarding) Write(p []byte) (int, error) { return len(p), nil }
func (d discarding) WriteHeader(int)             {}

// Not parallel, because others' allocations would count; and not under the race
// detector, which makes more.
func TestWhatTheGuardAllocatesForARequest(t *testing.T) {
	body := recallBody(t)
	target := "/callback?" + guardtest.Query(guardtest.App, callback.RecallCommand, guardtest.Signed(guardtest.Token, time.Now()))
	reads := caddyhttp.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) error {
		_, err := io.Copy(io.Discard, r.Body)
		return err
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
	without := allocations(reads)
	for action, most := range map[string]float64{
		// For both the call, its body and what restores it, two of its event, the Sign,
		// and what shows it.
		actionAck:     16, // and the headers of the answer
		actionForward: 14,
	} {
		h := provisioned(t, &Handler{
			Apps:  []App{{SdkAppID: guardtest.App, Tokens: []string{guardtest.Token}}},
			Rules: []Rule{{Commands: []string{callback.RecallCommand}, Action: action}},
		})
		guarded := caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error { return h.ServeHTTP(w, r, reads) })
		if got := allocations(guarded) - without; got > most {
			t.Errorf("%s: got %v allocations more than without the guard, want at most %v", action, got, most)
		}
	}
}
