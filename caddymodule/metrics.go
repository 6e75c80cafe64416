// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"errors"
	"strconv"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/timguard/timguard/caddymodule/callback"
)

// The collectors live as long as the process, so that counts survive a reload.
// Each configuration has a registry of its own, to which they are added.
var (
	callbacksTotal = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "caddy", Subsystem: "tim_callback", Name: "callbacks_total",
		Help: "Callbacks by what the guard did with them.",
	}, []string{"sdk_app_id", "command", "action"})

	rejectionsTotal = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "caddy", Subsystem: "tim_callback", Name: "rejections_total",
		Help: "Callbacks that were refused, or in report mode would have been.",
	}, []string{"sdk_app_id", "reason", "mode"})

	inspectSeconds = prometheus.NewHistogram(prometheus.HistogramOpts{
		Namespace: "caddy", Subsystem: "tim_callback", Name: "inspect_seconds",
		Help:    "Time to judge a callback, without the wait for its body.",
		Buckets: []float64{1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 1e-2, 1e-1},
	})

	clockSkewSeconds = prometheus.NewHistogram(prometheus.HistogramOpts{
		Namespace: "caddy", Subsystem: "tim_callback", Name: "clock_skew_seconds",
		Help:    "How far the local clock is ahead of RequestTime, in truly signed callbacks.",
		Buckets: []float64{-600, -60, -30, -10, -5, -2, -1, 0, 1, 2, 5, 10, 30, 60, 600},
	})

	tokenUsesTotal = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "caddy", Subsystem: "tim_callback", Name: "token_uses_total",
		Help: "Truly signed callbacks by the position of the token that signed them, from 1.",
	}, []string{"sdk_app_id", "token"})

	fallbacksTotal = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "caddy", Subsystem: "tim_callback", Name: "fallbacks_total",
		Help: "Callbacks that were answered in place of the backend.",
	}, []string{"command", "verdict"})
)

func registerMetrics(registry prometheus.Registerer) error {
	return register(registry, callbacksTotal, rejectionsTotal, inspectSeconds, clockSkewSeconds, tokenUsesTotal, fallbacksTotal)
}

// register adds the collectors to a configuration's registry. Another handler
// of the same configuration may have done so.
func register(registry prometheus.Registerer, collectors ...prometheus.Collector) error {
	for _, c := range collectors {
		err := registry.Register(c)
		if _, already := errors.AsType[prometheus.AlreadyRegisteredError](err); err != nil && !already {
			return err
		}
	}
	return nil
}

// otherLabel stands for what is not known, so that a caller cannot make labels.
const otherLabel = "other"

func commandLabel(command string) string {
	if _, known := callback.Lookup(command); known {
		return command
	}
	return otherLabel
}

func (c *call) appLabel() string {
	if c.app == nil {
		return otherLabel
	}
	return c.app.id
}

// count counts a judged callback.
func (h *Handler) count(c *call) {
	app := c.appLabel()
	if done := c.done(); done != nil {
		done.counter().Inc()
	} else {
		callbacksTotal.WithLabelValues(app, commandLabel(c.query.CallbackCommand), c.action).Inc()
	}
	inspectSeconds.Observe((c.inspected - c.body.took).Seconds())
	if c.rejection != nil {
		rejectionsTotal.WithLabelValues(app, string(c.rejection.Reason), h.Mode).Inc()
	}
	if c.token > 0 && c.app != nil {
		c.app.tokenUses[c.token-1].Inc()
		clockSkewSeconds.Observe(c.skew.Seconds())
	}
}

// tokenCounters returns the counters of an app's tokens. They are there from the
// begin, because a counter that appears with its first use hides it from rates.
func tokenCounters(app string, tokens int) []prometheus.Counter {
	counters := make([]prometheus.Counter, tokens)
	for i := range counters {
		counters[i] = tokenUsesTotal.WithLabelValues(app, strconv.Itoa(i+1))
	}
	return counters
}

// doneCounter is the counter of callbacksTotal for what the rule of a known
// command does. It is looked up once, and not before it is needed: to look it up
// by its labels for every callback would cost as much as to read the query.
type doneCounter struct {
	action  string
	counter func() prometheus.Counter
}

func doneCounters(app string, rules map[string]*Rule) map[string]*doneCounter {
	counters := make(map[string]*doneCounter, len(rules))
	for command, rule := range rules {
		counters[command] = &doneCounter{action: rule.Action, counter: sync.OnceValue(func() prometheus.Counter {
			return callbacksTotal.WithLabelValues(app, command, rule.Action)
		})}
	}
	return counters
}

// done returns the counter of what was done with the callback, nil if that is not
// what its rule does.
func (c *call) done() *doneCounter {
	if c.app == nil || c.rejection != nil {
		return nil
	}
	if done := c.app.done[c.query.CallbackCommand]; done != nil && done.action == c.action {
		return done
	}
	return nil
}

func countFallback(command, verdict string) {
	fallbacksTotal.WithLabelValues(commandLabel(command), verdict).Inc()
}
