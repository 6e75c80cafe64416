// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/timguard/timguard/caddymodule/callback"
	"github.com/timguard/timguard/caddymodule/internal/guardtest"
	"github.com/timguard/timguard/caddymodule/outbox"
)

// looped is a site whose backend is a web server that leads back to the guard.
func looped(t *testing.T, rule string) *guardtest.Site {
	t.Helper()
	front := guardtest.FreePort(t)
	s := guardtest.NewSite(t, guardtest.Guard(rule, "backend "+front))
	s.After = "http://" + front + " {\nreverse_proxy " + s.Listen + "\n}"
	return s
}

// A callback that comes back as a delivery of its own is not taken for a duplicate, which
// would be answered OK: the backend would never get it, though it would be delivered.
func TestEndToEndDeliveryThatComesBackIsNotAccepted(t *testing.T) {
	t.Parallel()
	for name, rule := range map[string]string{
		"deliver":          "on after deliver",
		"fallback deliver": "on after forward {\nfallback deliver\n}",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachStore(t, func(t *testing.T, option string) {
				s := looped(t, rule)
				s.Options = option
				p := s.Start(t)
				guardtest.NewPoster(t, s.Listen).WantOK(t, "back")
				item := s.WantError(t, "508, with which a guard refuses what its backend leads back to it")
				if item.State == outbox.Delivered {
					t.Errorf("it is %s", item.State)
				}
				p.WantLog(t, "callback goes round in a circle: the address of the backend leads back to this guard", map[string]any{"level": "error"})
				time.Sleep(500 * time.Millisecond) // for what must not come
				if n := s.Status(t).Deliveries[outbox.Delivered]; n != 0 {
					t.Errorf("%d delivered", n)
				}
			})
		})
	}
}

func TestEndToEndForwardingInACircleEnds(t *testing.T) {
	t.Parallel()
	for name, options := range map[string]string{"enforce": "", "report": "\nmode report"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := looped(t, "on after forward"+options)
			p := s.Start(t)
			status, text, err := guardtest.NewPoster(t, s.Listen).Post("/callback", callback.RecallCommand, guardtest.Event("circle"))
			if err != nil || status != http.StatusLoopDetected || !strings.Contains(text, `"ActionStatus":"FAIL"`) {
				t.Errorf("%d %s, %v", status, text, err)
			}
			p.WantLog(t, "callback goes round in a circle: the address of the backend leads back to this guard", nil)
			if n := len(p.LogLines(t, "callback goes round in a circle: the address of the backend leads back to this guard")); n != 1 {
				t.Errorf("it is said %d times", n)
			}
		})
	}
}
