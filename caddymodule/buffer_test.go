// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/timguard/timguard/caddymodule/callback"
	"github.com/timguard/timguard/caddymodule/internal/guardtest"
)

// recallOf returns a recall of about that many bytes, in which only the operator is
// another.
func recallOf(size int, operator byte) []byte {
	name := bytes.Repeat([]byte{operator}, size)
	return bytes.Replace(callback.Sample(callback.RecallCommand), []byte("admin"), name, 1)
}

// Whoever has got a callback may read its body for as long as he wants, also when
// the guard serves others.
func TestABodyThatWasHandedOnStaysAsItIs(t *testing.T) {
	t.Parallel()
	recalls := []string{callback.RecallCommand}
	for name, tt := range map[string]struct {
		handler Handler
		rule    Rule
		broken  bool
	}{
		"forward":                {Handler{}, Rule{Action: actionForward}, false},
		"fallback deliver":       {Handler{}, Rule{Action: actionForward, Fallback: &Fallback{Verdict: verdictDeliver}}, false},
		"deliver, store fails":   {Handler{}, Rule{Action: actionDeliver}, false},
		"report mode":            {Handler{Mode: modeReport}, Rule{Action: actionAck}, false},
		"report mode, refused":   {Handler{Mode: modeReport}, Rule{Action: actionAck}, true},
		"refused, handle_errors": {Handler{Rejections: rejectionsHandleErrors}, Rule{Action: actionAck}, true},
	} {
		for _, size := range []int{100, 10_000, 100_000, 900_000} {
			t.Run(name+"/"+strconv.Itoa(size), func(t *testing.T) {
				t.Parallel()
				h := tt.handler
				h.Apps, h.Rules = []App{{SdkAppID: guardtest.App, Tokens: []string{guardtest.Token}}}, []Rule{{Commands: recalls, Action: actionAck}}
				provisioned(t, &h)
				var got io.Reader
				h.Backend = &Backend{handler: caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
					got = r.Body
					return write(w, guardtest.OKJSON)
				})}
				h.deliveries = storing{errors.New("no store")}
				serve := func(rule Rule, body []byte) io.Reader {
					h.known[callback.RecallCommand] = &rule
					got = nil
					r := newPost(t, goodQuery(), bytes.NewReader(body))
					if err := h.ServeHTTP(httptest.NewRecorder(), r, nil); err != nil { // the error routes get the request
						got = r.Body
					}
					return got
				}
				want := recallOf(size, 'a')
				if tt.broken {
					want = bytes.Replace(want, []byte(`"Operator_Account":"`), []byte(`"Operator_Account":1,"x":"`), 1)
				}
				body := serve(tt.rule, want)
				for range 20 {
					serve(Rule{Action: actionAck}, recallOf(size, 'b'))
				}
				if got, err := io.ReadAll(body); err != nil || !bytes.Equal(got, want) {
					t.Errorf("read %d bytes that begin %.80q, %v; want the %d that came", len(got), got, err, len(want))
				}
			})
		}
	}
}

// storing stores nothing, or fails to.
type storing struct{ err error }

func (storing) Register(*Guard) error { return nil }

func (s storing) Store(context.Context, *StoredCallback) error { return s.err }

func (storing) Waits(context.Context, *Guard, string) bool { return false }

func (storing) Attempts(context.Context, *Guard, string, string) bool { return false }

func (storing) StoreName() string { return "none" }

func TestWhatAHandlerWritesTooLateIsInNoAnswer(t *testing.T) {
	t.Parallel()
	h := provisioned(t, &Handler{
		Apps:  []App{{SdkAppID: guardtest.App, Tokens: []string{guardtest.Token}}},
		Rules: []Rule{{Commands: []string{beforeSend}, Action: actionForward, Fallback: &Fallback{Verdict: verdictAllow}}},
	})
	q := sampleOf(beforeSend)
	var earlier []http.ResponseWriter
	for i := range 20 {
		want := []string{"{}", guardtest.OKJSON}[i%2] // the late piece of a short one would stand inside a longer one
		answer := httptest.NewRecorder()
		err := h.ServeHTTP(answer, newPost(t, q.query, bytes.NewReader(q.body)), caddyhttp.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) error {
			err := write(w, want)
			for _, other := range earlier {
				_ = write(other, "not yours")
			}
			earlier = append(earlier, w)
			return err
		}))
		if got := answer.Body.String(); err != nil || got != want {
			t.Fatalf("answer %s, %v; want %s", got, err, want)
		}
	}
}
