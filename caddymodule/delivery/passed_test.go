// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"net/http"
	"testing"

	"github.com/timguard/timguard/caddymodule/internal/guardtest"
	"github.com/timguard/timguard/caddymodule/outbox"
)

// An answer of another handler is not a delivery: only the guard that stored a callback
// passes it on to the right backend.
func TestEndToEndDeliveryFailsUnlessItsGuardPassedItOn(t *testing.T) {
	t.Parallel()
	own := func(b *unsteady) string {
		return guardtest.Guard("on after deliver", "name own") + "\nreverse_proxy " + b.address()
	}
	for name, tt := range map[string]struct {
		changed func(b *unsteady) string // the site after the callback was stored
		want    string                   // in the error
	}{
		"the path moved": {
			func(b *unsteady) string {
				return "handle /moved {\n" + own(b) + "\n}\nrespond `" + guardtest.OKJSON + "`"
			},
			"the site no longer routes this callback to the guard own: another handler answered",
		},
		"the path is gone": {
			func(b *unsteady) string { return "handle /moved {\n" + own(b) + "\n}\nerror 404" },
			"the site no longer routes this callback to the guard own: the answer has the status 404",
		},
		"a guard of another name": {
			func(b *unsteady) string {
				return "handle /callback {\n" + guardtest.Guard("on after ack", "name other") + "\n}\nhandle {\n" + own(b) + "\n}"
			},
			"the site no longer routes this callback to the guard own: another handler answered",
		},
		"a guard before it with another token": {
			func(b *unsteady) string {
				return "route {\ntim_callback {\napp " + guardtest.App + " " + guardtest.NewToken + "\non after forward\nname first\n}\n" + own(b) + "\n}"
			},
			"the site no longer routes this callback to the guard own: the answer has the status 401",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newUnsteady(t, answers(http.StatusServiceUnavailable, ""))
			s := newDeliverySite(t, own(b))
			p := s.start(t)
			newPoster(t, s.listen).wantOK(t, name)
			s.wantError(t, "the status 503")
			p.terminate(t)
			b.will(accepts)

			s.body = tt.changed(b)
			p = s.start(t)
			s.wantError(t, tt.want)
			if s.status(t).Deliveries[outbox.Delivered] != 0 || b.times(event(name)) != 0 {
				t.Error("it counts as delivered, or reached the backend")
			}
			p.terminate(t)

			s.body = own(b)
			s.start(t)
			b.one(t, event(name))
			s.wantState(t, outbox.Delivered, 1)
		})
	}
}
