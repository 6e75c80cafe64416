// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp/headers"

	"github.com/timguard/timguard/caddymodule/callback"
)

// The header directive may modify header values in place.
func TestAnswersDoNotShareHeaderValues(t *testing.T) {
	t.Parallel()
	everywhere := headers.HeaderOps{Replace: map[string][]headers.Replacement{
		"Content-Type":   {{Search: "json", Replace: "problem"}},
		"Content-Length": {{Search: strconv.Itoa(len(okAnswer)), Replace: "1"}},
	}}
	for range 2 {
		for _, answer := range [][]byte{okAnswer, callback.Fail("x").JSON()} {
			w := httptest.NewRecorder()
			new(call).answer(w, http.StatusOK, answer)
			if kind, length := w.Header().Get("Content-Type"), w.Header().Get("Content-Length"); kind != "application/json" || length != strconv.Itoa(len(answer)) {
				t.Errorf("the answer %s has Content-Type %s and Content-Length %s", answer, kind, length)
			}
			everywhere.ApplyTo(w.Header(), nil)
		}
	}
}
