// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/timguard/timguard/caddymodule/callback"
	"github.com/timguard/timguard/caddymodule/internal/guardtest"
	"github.com/timguard/timguard/caddymodule/outbox"
)

// fallingBack returns the directives of a site that stores callbacks if the backend does
// not answer in time.
func fallingBack(b *guardtest.Backend, options ...string) string {
	options = append(options, "fallback deliver")
	rule := "on after forward {\n"
	for _, o := range options {
		rule += o + "\n"
	}
	return guardtest.Guard(rule+"}", "on before forward", "backend "+b.Address())
}

func TestEndToEndDeliveryAsFallbackStoresNothingWithAHealthyBackend(t *testing.T) {
	t.Parallel()
	b := guardtest.NewBackend(t, guardtest.Accepts)
	s := guardtest.NewSite(t, fallingBack(b))
	s.Global += "\nmetrics"
	s.Start(t)
	p := guardtest.NewPoster(t, s.Listen)
	for i := range 200 {
		p.WantOK(t, fmt.Sprint("well-", i))
		if n := b.Times(guardtest.Event(fmt.Sprint("well-", i))); n != 1 {
			t.Fatalf("callback %d was answered before the backend had it", i)
		}
	}
	wantNothingStored(t, s)
	if n := s.Metric(t, "caddy_tim_callback_store_seconds_count"); n != 0 {
		t.Errorf("the store was asked %v times to store", n)
	}
}

// wantNothingStored fails the test unless the SQLite store is empty and has always been.
func wantNothingStored(t *testing.T, s *guardtest.Site) {
	t.Helper()
	if now, ever := rows(t, s); now != 0 || ever != 0 {
		t.Errorf("the store holds %d rows and has held %d, want none", now, ever)
	}
}

// If the backend gives no good answer, the callback is answered before Tencent gives up, and
// delivered when the backend has recovered. FAIL asks for another attempt here too.
func TestEndToEndDeliveryAsFallbackAnswersInTime(t *testing.T) {
	t.Parallel()
	const tencentWaits = 2 * time.Second
	for name, tt := range map[string]struct {
		options []string
		backend func(*guardtest.Backend) http.HandlerFunc
		least   time.Duration
		most    time.Duration
	}{
		"hangs":                 {nil, guardtest.Hangs, 1500 * time.Millisecond, tencentWaits},
		"hangs, short deadline": {[]string{"deadline 300ms"}, guardtest.Hangs, 300 * time.Millisecond, time.Second},
		"503":                   {nil, guardtest.Answers(http.StatusServiceUnavailable, guardtest.OKJSON), 0, time.Second},
		"FAIL":                  {nil, guardtest.Answers(http.StatusOK, guardtest.FailJSON), 0, time.Second},
		"an HTML page":          {nil, guardtest.Answers(http.StatusOK, "<html>系统维护中</html>"), 0, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := guardtest.NewBackend(t, tt.backend)
			s := guardtest.NewSite(t, fallingBack(b, tt.options...))
			s.Options = "timeout 1s"
			s.Start(t)
			p := guardtest.NewPoster(t, s.Listen)
			var ids []string
			for i := range 3 {
				ids = append(ids, fmt.Sprint(name, i))
				start := time.Now()
				p.WantOK(t, ids[i])
				if took := time.Since(start); took < tt.least || took > tt.most {
					t.Errorf("the answer took %s, want %s to %s", took, tt.least, tt.most)
				}
			}
			if n := len(s.Items(t)); n != 3 {
				t.Errorf("%d are stored, want 3", n)
			}
			b.Will(guardtest.Accepts)
			b.WantAll(t, 30*time.Second, ids)
			s.WantState(t, outbox.Delivered, 3)
		})
	}
}

// What a backend answers that accepts the callback is what the rule's fallback takes too:
// the backend gets the event once. If Tencent could not read the answer, it gets OK.
func TestEndToEndDeliveryAsFallbackTakesWhatTheBackendAccepts(t *testing.T) {
	t.Parallel()
	answers := map[string]struct {
		status       int
		answer, want string
		accept       string
	}{
		"ok":      {http.StatusOK, "ok", guardtest.OKJSON, ""},
		"success": {http.StatusOK, "success\n", guardtest.OKJSON, ""},
		"nothing": {http.StatusNoContent, "", guardtest.OKJSON, ""},
		"201":     {http.StatusCreated, `{"ActionStatus":"OK","ErrorInfo":"","ErrorCode":0,"of":"201"}`, guardtest.OKJSON, ""},
		"json":    {http.StatusOK, `{"code":0}`, `{"code":0}`, ""},
		"code":    {http.StatusOK, `{"code":200}`, `{"code":200}`, "accept /code 0 200"},
		"html":    {http.StatusOK, "<p>fine</p>", guardtest.OKJSON, "accept 2xx"},
	}
	b := guardtest.NewBackend(t, func(b *guardtest.Backend) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			tt := answers[r.URL.Path[1:]]
			guardtest.AcceptsWith(tt.status, tt.answer)(b)(w, r)
		}
	})
	directives := ""
	for name, tt := range answers {
		directives += "handle /" + name + " {\n" + guardtest.Guard("name "+name, "on after forward {\nfallback deliver\n}",
			"backend {\n"+tt.accept+"\nreverse_proxy "+b.Address()+"\n}") + "\n}\n"
	}
	s := guardtest.NewSite(t, directives)
	s.Start(t)
	p := guardtest.NewPoster(t, s.Listen)
	for name, tt := range answers {
		status, answer, err := p.Post("/"+name, callback.RecallCommand, guardtest.Event(name))
		if err != nil || status != http.StatusOK || answer != tt.want {
			t.Errorf("%s: answer %d %s, %v; want %s", name, status, answer, err, tt.want)
		}
	}
	time.Sleep(500 * time.Millisecond) // for deliveries
	for name := range answers {
		if n := b.Times(guardtest.Event(name)); n != 1 {
			t.Errorf("%s: the backend got the event %d times", name, n)
		}
	}
	wantNothingStored(t, s)
}
