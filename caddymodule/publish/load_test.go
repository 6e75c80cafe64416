// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package publish_test

import (
	"testing"
	"time"

	"github.com/timguard/timguard/caddymodule/internal/guardtest"
	"github.com/timguard/timguard/caddymodule/outbox"
)

// tencentWaits is how long Tencent waits for an answer.
const tencentWaits = 2 * time.Second

// falling returns the directives of a site that publishes, and stores what could not be
// published.
func falling(b broker) string {
	return guardtest.Guard(block("on after forward", "fallback deliver"), block("backend", b.directive("")))
}

// Under load, with a broker that is killed, every callback is answered OK in time, and
// none of them is lost. While the broker is well, nothing is stored. In the long form,
// it is killed twice in a minute:
//
//	go test -run EndToEndPublishUnderLoad ./caddymodule/publish -timguard.long -v
func TestEndToEndPublishUnderLoad(t *testing.T) { //nolint:paralleltest // the load is the machine's
	for name, start := range map[string]func(*testing.T) broker{
		"kafka": func(t *testing.T) broker { t.Helper(); return newKafka(t) },
		"amqp": func(t *testing.T) broker {
			t.Helper()
			r := ownRabbit(t)
			queue := r.queue(t, nil)
			r.keep(t)
			return &rabbitQueue{rabbit: r, queue: queue}
		},
	} {
		t.Run(name, func(t *testing.T) { underLoad(t, start(t)) })
	}
}

func underLoad(t *testing.T, b broker) {
	t.Helper()
	well, down, least := time.Second, time.Second, time.Duration(0)
	if *guardtest.Long {
		well, down, least = 14*time.Second, 5*time.Second, time.Minute
	}
	s := guardtest.NewSite(t, falling(b))
	s.Global += "\nmetrics"
	s.Start(t)
	waitForStore(t, s)
	begin := time.Now()
	l := startSenders(guardtest.NewPoster(t, s.Listen), 16, 500, "load")
	time.Sleep(well)
	// A machine that is busy with other tests may hold up some for a second.
	if items := s.Items(t); len(items) > 0 && (*guardtest.Long || len(items) > l.count()/20) {
		t.Errorf("%d are stored, while the broker is well", len(items))
	}
	kills := guardtest.InLongForm(1, 2)
	for range kills {
		b.kill(t)
		time.Sleep(down)
		b.start(t)
		time.Sleep(well)
	}
	time.Sleep(time.Until(begin.Add(least)))
	l.finish()
	during := time.Since(begin)
	if len(l.other) > 0 || l.unanswered > 0 {
		t.Errorf("%d were not answered OK, %d not at all, the first of them %v", len(l.other), l.unanswered, append(l.other, "")[0])
	}
	fellBack := s.Metric(t, `caddy_tim_callback_fallbacks_total{command="Group.CallbackAfterRecallMsg",sdk_app_id="`+guardtest.App+`",verdict="deliver"}`)
	guardtest.Eventually(t, 90*time.Second, "what was stored is published", func() bool {
		// More than fell back if storing was answered too late, which a busy machine may do.
		states := s.Status(t).Deliveries
		return states[outbox.Delivered] >= int(fellBack) && states[outbox.Pending]+states[outbox.Running]+states[outbox.Retrying] == 0
	})
	drained := time.Since(begin) - during
	twice := wantNoneLost(t, b.all(t), l.acked)
	median, most, all := l.percentiles()
	t.Logf("figures: %d callbacks in %s, all answered OK after %s (median), %s (99th percentile), %s (at most); %.0f were stored, and published %s after the end; lost 0, there twice %d",
		len(l.acked), during.Round(time.Second), median, most, all, fellBack, drained.Round(time.Second), twice)
	if all > tencentWaits {
		t.Errorf("an answer took %s", all)
	}
	if fellBack == 0 {
		t.Error("nothing was stored, so that the kills show nothing")
	}
}
