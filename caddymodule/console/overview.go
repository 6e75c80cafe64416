// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package console

import (
	"context"
	"math"
	"net/http"
	"slices"

	"github.com/timguard/timguard/caddymodule"
	"github.com/timguard/timguard/caddymodule/delivery"
	"github.com/timguard/timguard/caddymodule/outbox"
)

// overview is what the page overview shows.
type overview struct {
	delivery.Status
	Chart     chart
	Calls     int
	Refused   int
	Actions   []share
	Reasons   []share
	Would     []share // would be refused, in report mode
	Fallbacks []share
	Dead      []outbox.Delivery // the latest
}

// latestDead is how many dead deliveries the overview shows.
const latestDead = 5

func (c *Console) overview(p *reply) {
	ctx, cancel := p.context()
	defer cancel()
	p.show(http.StatusOK, "overview", page{Section: "overview", Title: p.lang.t("nav.overview"), Notice: p.notice(), Data: c.overviewOf(ctx)})
}

func (c *Console) overviewOf(ctx context.Context) overview {
	s := c.stored()
	o := overview{Status: s.Status(ctx)}
	hour, minutes := caddymodule.HourOf(o.Guards)
	o.Chart = chartOf(minutes)
	o.Calls, o.Refused = caddymodule.Sum(hour.Actions), caddymodule.Sum(hour.Refused)
	o.Actions, o.Reasons, o.Would, o.Fallbacks = sharesOf(hour.Actions), sharesOf(hour.Refused), sharesOf(hour.WouldRefuse), sharesOf(hour.Fallbacks)
	if s != nil && o.StoreError == "" && o.Deliveries[outbox.Dead] > 0 {
		var err error
		if o.Dead, err = s.Outbox().List(ctx, outbox.Filter{State: outbox.Dead, Limit: latestDead}); err != nil {
			o.StoreError = err.Error()
		}
	}
	return o
}

// isOff reports whether the clock is wrong.
func isOff(skew *float64) bool { return skew != nil && math.Abs(*skew) > caddymodule.MaxSkewSeconds }

// The conditions of queues.
const (
	queueWell     = "well"
	queuePaused   = "paused"
	queueFailing  = "failing"
	queueRetrying = "retrying"
)

// queueMarks are the classes of their colors.
var queueMarks = map[string]string{queueWell: "ok", queuePaused: "off", queueFailing: "bad", queueRetrying: "warn"}

// conditionOf returns the condition of a queue.
func conditionOf(q delivery.QueueStatus) string {
	switch {
	case q.Paused:
		return queuePaused
	case q.Failing():
		return queueFailing
	case q.Deliveries[outbox.Retrying] > 0:
		return queueRetrying
	}
	return queueWell
}

// severalGuards reports whether names of queues need that of their guard.
func severalGuards(guards []caddymodule.Status) bool {
	return slices.ContainsFunc(guards, func(g caddymodule.Status) bool { return g.Name != guards[0].Name })
}
