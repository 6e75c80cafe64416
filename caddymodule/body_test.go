// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/timguard/timguard/caddymodule/callback"
	"github.com/timguard/timguard/caddymodule/internal/guardtest"
)

// untouchable is a body that fails the test if it is read.
type untouchable struct{ t *testing.T }

func (u untouchable) Read([]byte) (int, error) {
	u.t.Error("the body was read")
	return 0, io.EOF
}

func (untouchable) Close() error { return nil }

func newPost(t *testing.T, query string, body io.Reader) *http.Request {
	t.Helper()
	return httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/callback?"+query, body)
}

// provisioned returns a handler after Provision and Validate.
func provisioned(t *testing.T, h *Handler) *Handler {
	t.Helper()
	if err := provision(t, h); err != nil {
		t.Fatal(err)
	}
	return h
}

func TestBodyIsNotReadBeforeAppAndSignAreVerified(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for name, tt := range map[string]struct {
		query    string
		encoding string
		length   int64
		reason   callback.Reason
	}{
		"query":     {query: goodQuery() + "&Sign=1", reason: callback.ReasonQuery},
		"app":       {query: guardtest.Query("1", callback.RecallCommand, guardtest.Signed("x", now)), reason: callback.ReasonApp},
		"unsigned":  {query: guardtest.Query(guardtest.App, callback.RecallCommand, ""), reason: callback.ReasonUnsigned},
		"stale":     {query: guardtest.Query(guardtest.App, callback.RecallCommand, guardtest.Signed(guardtest.Token, now.Add(-time.Hour))), reason: callback.ReasonStale},
		"sign":      {query: guardtest.Query(guardtest.App, callback.RecallCommand, guardtest.Signed("x", now)), reason: callback.ReasonSign},
		"command":   {query: guardtest.Query(guardtest.App, "Other", guardtest.Signed(guardtest.Token, now)), length: 300, reason: callback.ReasonCommand},
		"encoding":  {query: goodQuery(), encoding: "gzip", reason: callback.ReasonEncoding},
		"encodings": {query: goodQuery(), encoding: "identity, gzip", reason: callback.ReasonEncoding},
		"length":    {query: goodQuery(), length: 2000, reason: callback.ReasonTooLarge},
	} {
		t.Run(name, func(t *testing.T) { // not parallel: that could wait for longer than the window
			h := provisioned(t, &Handler{Apps: []App{{SdkAppID: guardtest.App, Tokens: []string{guardtest.Token}}}, MaxBody: 1000})
			r := newPost(t, tt.query, untouchable{t})
			r.ContentLength = tt.length
			if tt.encoding != "" {
				r.Header.Set("Content-Encoding", tt.encoding)
			}
			w := httptest.NewRecorder()
			if err := h.ServeHTTP(w, r, forbidden(t)); err != nil {
				t.Fatal(err)
			}
			response{w.Code, w.Header(), w.Body.Bytes()}.wantRefused(t, statuses[tt.reason], tt.reason)
		})
	}
}

// forbidden is a handler that must not be reached.
func forbidden(t *testing.T) caddyhttp.Handler {
	t.Helper()
	return caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error {
		t.Error("the request was forwarded")
		return nil
	})
}

func TestBodyIsLimited(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		body   io.Reader
		length int64           // declared
		reason callback.Reason // empty if only its JSON is wrong
	}{
		"at the limit":      {strings.NewReader("0123456789"), 10, callback.ReasonJSON},
		"unknown length":    {strings.NewReader("0123456789"), -1, callback.ReasonJSON},
		"declared over it":  {untouchable{t}, 1000, callback.ReasonTooLarge},
		"over it":           {strings.NewReader("0123456789a"), -1, callback.ReasonTooLarge},
		"broken":            {io.MultiReader(strings.NewReader("01"), iotest.ErrReader(io.ErrUnexpectedEOF)), 5, callback.ReasonBody},
		"late":              {iotest.ErrReader(os.ErrDeadlineExceeded), 5, callback.ReasonBody},
		"limited elsewhere": {iotest.ErrReader(caddyhttp.Error(413, &http.MaxBytesError{Limit: 3})), 5, callback.ReasonTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := provisioned(t, &Handler{Apps: []App{{SdkAppID: guardtest.App, Tokens: []string{guardtest.Token}}}, MaxBody: 10})
			r := newPost(t, goodQuery(), nil)
			r.Body, r.ContentLength = io.NopCloser(tt.body), tt.length
			if c := h.judge(r); c.rejection == nil || c.rejection.Reason != tt.reason {
				t.Errorf("rejection %v, want %s", c.rejection, tt.reason)
			}
		})
	}
}
