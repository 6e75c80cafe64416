// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/timguard/timguard/caddymodule/internal/guardtest"
	"github.com/timguard/timguard/caddymodule/outbox"
)

// Callbacks of a renamed guard are kept, and reported in the log, in status, and by a
// gauge. They are delivered by a guard with the old name.
func TestEndToEndDeliveryOfARenamedGuardIsReported(t *testing.T) {
	t.Parallel()
	b := newUnsteady(t, answers(http.StatusServiceUnavailable, ""))
	s := newDeliverySite(t, delivering(b, "name old"))
	p := s.start(t)
	newPoster(t, s.listen).wantOK(t, "renamed")
	s.wantError(t, "the status 503")
	p.terminate(t)
	b.will(accepts)

	s.body = delivering(b, "name new")
	p = s.start(t)
	eventually(t, 10*time.Second, "a warning", func() bool { return strings.Contains(p.log.String(), `"guard":"old"`) })
	if got, want := s.status(t).Unclaimed, []unclaimed{{"old", "", 1}}; !slices.Equal(got, want) {
		t.Errorf("status says %v, want %v", got, want)
	}
	if n := s.metric(t, `caddy_tim_callback_unclaimed_deliveries{consumer="",guard="old"}`); n != 1 {
		t.Errorf("the gauge is %v, want 1", n)
	}
	if text := s.cli(t, false, "status"); !strings.Contains(text, "1 await guard old, which is not configured") {
		t.Errorf("deliveries status prints\n%s", text)
	}
	if b.times(event("renamed")) != 0 {
		t.Error("it was delivered through another guard")
	}
	p.terminate(t)

	s.body = delivering(b, "name old")
	s.start(t)
	b.one(t, event("renamed"))
	s.wantState(t, outbox.Delivered, 1)
}

// A directive in a site with several listeners is one guard.
func TestEndToEndDeliveryOfASiteWithSeveralListeners(t *testing.T) {
	t.Parallel()
	b := newUnsteady(t, accepts)
	s := newDeliverySite(t, delivering(b))
	first, second := s.listen, guardtest.FreePort(t)
	s.listen = first + ", http://" + second
	s.start(t)
	newPoster(t, first).wantOK(t, "first")
	newPoster(t, second).wantOK(t, "second")
	for _, id := range []string{"first", "second"} {
		if err := b.one(t, event(id)).isDelivery("/callback", guardtest.Token); err != nil {
			t.Error(err)
		}
	}
	s.wantState(t, outbox.Delivered, 2)
}
