// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/timguard/timguard/caddymodule/internal/metric"
)

// The collectors live as long as the process, so that counts survive a reload. They are
// registered with the registry of each configuration.
var (
	callbacksTotal = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "caddy", Subsystem: "tim_callback", Name: "callbacks_total",
		Help: "Callbacks by what the guard did with them.",
	}, []string{"sdk_app_id", "command", "action"})

	rejectionsTotal = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "caddy", Subsystem: "tim_callback", Name: "rejections_total",
		Help: "Callbacks that were refused, or would have been refused in report mode.",
	}, []string{"sdk_app_id", "reason", "mode"})

	inspectSeconds = prometheus.NewHistogram(prometheus.HistogramOpts{
		Namespace: "caddy", Subsystem: "tim_callback", Name: "inspect_seconds",
		Help:    "Time to judge a callback, excluding the time to receive its body.",
		Buckets: []float64{1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 1e-2, 1e-1},
	})

	clockSkewSeconds = prometheus.NewHistogram(prometheus.HistogramOpts{
		Namespace: "caddy", Subsystem: "tim_callback", Name: "clock_skew_seconds",
		Help:    "How far the local clock is ahead of RequestTime, for correctly signed callbacks.",
		Buckets: []float64{-600, -60, -30, -10, -5, -2, -1, 0, 1, 2, 5, 10, 30, 60, 600},
	})

	tokenUsesTotal = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "caddy", Subsystem: "tim_callback", Name: "token_uses_total",
		Help: "Correctly signed callbacks by the position of the token that signed them, from 1.",
	}, []string{"sdk_app_id", "token"})

	fallbacksTotal = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "caddy", Subsystem: "tim_callback", Name: "fallbacks_total",
		Help: "Callbacks that were answered in place of the backend.",
	}, []string{"sdk_app_id", "command", "verdict"})

	driftTotal = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "caddy", Subsystem: "tim_callback", Name: "drift_total",
		Help: "Accepted callbacks whose payload differs from the documentation that this version knows.",
	}, []string{"command"})

	copyFailuresTotal = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "caddy", Subsystem: "tim_callback", Name: "copy_failures_total",
		Help: "Callbacks that could not be stored for the consumers of their rule.",
	}, []string{"command"})
)

func registerMetrics(registry prometheus.Registerer) error {
	return metric.Register(registry, callbacksTotal, rejectionsTotal, inspectSeconds, clockSkewSeconds, tokenUsesTotal, fallbacksTotal, driftTotal, copyFailuresTotal)
}

func (c *call) appLabel() string {
	if c.app == nil {
		return metric.Other
	}
	return c.app.id
}

// count counts a judged callback.
func (h *Handler) count(c *call) {
	command := metric.Command(c.query.CallbackCommand)
	callbacksTotal.WithLabelValues(c.appLabel(), command, c.action).Inc()
	inspectSeconds.Observe(c.took.Seconds())
	if c.rejection != nil {
		rejectionsTotal.WithLabelValues(c.appLabel(), string(c.rejection.Reason), h.Mode).Inc()
	}
	if c.fallback {
		countFallback(c)
	}
	if c.event.Drift != nil {
		driftTotal.WithLabelValues(command).Inc()
	}
	if c.token > 0 && c.app != nil {
		tokenUsesTotal.WithLabelValues(c.app.id, strconv.Itoa(c.token)).Inc()
		clockSkewSeconds.Observe(c.skew.Seconds())
	}
}

// initTokenCounters creates the counters of all tokens, so that increase() includes the
// first use.
func (h *Handler) initTokenCounters() {
	for _, app := range h.apps {
		for i := range app.secrets {
			tokenUsesTotal.WithLabelValues(app.id, strconv.Itoa(i+1))
		}
	}
}

// countFallback counts a callback whose verdict was answered in the backend's place.
func countFallback(c *call) {
	fallbacksTotal.WithLabelValues(c.appLabel(), metric.Command(c.query.CallbackCommand), c.rawValue("verdict")).Inc()
}

func countCopyFailure(c *call) {
	copyFailuresTotal.WithLabelValues(metric.Command(c.query.CallbackCommand)).Inc()
}
