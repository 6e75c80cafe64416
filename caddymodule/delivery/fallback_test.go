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

// rows returns how many rows the store has, and how many it has ever had.
func (s *deliverySite) rows(t *testing.T) (now, ever int) {
	t.Helper()
	db := s.stored(t)
	defer db.Close()
	err := db.QueryRow("SELECT (SELECT count(*) FROM river_job), (SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'river_job')").Scan(&now, &ever)
	if err != nil {
		t.Fatal(err)
	}
	return now, ever
}

// fallingBack returns the directives of a site that stores callbacks if the backend does
// not answer in time.
func fallingBack(b *unsteady, options ...string) string {
	options = append(options, "fallback deliver")
	rule := "on after forward {\n"
	for _, o := range options {
		rule += o + "\n"
	}
	return guardtest.Guard(rule+"}", "on before forward") + "\nreverse_proxy " + b.address()
}

func TestEndToEndDeliveryAsFallbackStoresNothingWithAHealthyBackend(t *testing.T) {
	t.Parallel()
	b := newUnsteady(t, accepts)
	s := newDeliverySite(t, fallingBack(b))
	s.global += "\nmetrics"
	s.start(t)
	p := newPoster(t, s.listen)
	for i := range 200 {
		p.wantOK(t, fmt.Sprint("well-", i))
		if n := b.times(event(fmt.Sprint("well-", i))); n != 1 {
			t.Fatalf("callback %d was answered before the backend had it", i)
		}
	}
	if now, ever := s.rows(t); now != 0 || ever != 0 {
		t.Errorf("the store holds %d rows and has held %d, want none", now, ever)
	}
	if n := s.metric(t, "caddy_tim_callback_store_seconds_count"); n != 0 {
		t.Errorf("the store was asked %v times to store", n)
	}
}

// If the backend hangs, the callback is answered before Tencent gives up, and delivered
// when the backend has recovered.
func TestEndToEndDeliveryAsFallbackAnswersInTime(t *testing.T) {
	t.Parallel()
	const tencentWaits = 2 * time.Second
	for name, tt := range map[string]struct {
		options []string
		backend func(*unsteady) http.HandlerFunc
		least   time.Duration
		most    time.Duration
	}{
		"hangs":                 {nil, hangs, 1500 * time.Millisecond, tencentWaits},
		"hangs, short deadline": {[]string{"deadline 300ms"}, hangs, 300 * time.Millisecond, time.Second},
		"503":                   {nil, answers(http.StatusServiceUnavailable, guardtest.OKJSON), 0, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newUnsteady(t, tt.backend)
			s := newDeliverySite(t, fallingBack(b, tt.options...))
			s.options = "timeout 1s"
			s.start(t)
			p := newPoster(t, s.listen)
			var ids []string
			for i := range 3 {
				ids = append(ids, fmt.Sprint(name, i))
				start := time.Now()
				p.wantOK(t, ids[i])
				if took := time.Since(start); took < tt.least || took > tt.most {
					t.Errorf("the answer took %s, want %s to %s", took, tt.least, tt.most)
				}
			}
			if n := len(s.items(t)); n != 3 {
				t.Errorf("%d are stored, want 3", n)
			}
			b.will(accepts)
			b.wantAll(t, 30*time.Second, ids)
			s.wantState(t, outbox.Delivered, 3)
		})
	}
}

// FAIL is a valid answer of the backend, which is passed on to the caller.
func TestEndToEndDeliveryAsFallbackPassesAFailOn(t *testing.T) {
	t.Parallel()
	b := newUnsteady(t, answers(http.StatusOK, failJSON))
	s := newDeliverySite(t, fallingBack(b))
	s.start(t)
	status, answer, err := newPoster(t, s.listen).post("/callback", callback.RecallCommand, event("fail"))
	if err != nil || status != http.StatusOK || answer != failJSON {
		t.Errorf("answer %d %s, %v; want the backend's", status, answer, err)
	}
	if now, ever := s.rows(t); now != 0 || ever != 0 {
		t.Errorf("the store holds %d rows and has held %d, want none", now, ever)
	}
}
