// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package publish

import "github.com/prometheus/client_golang/prometheus"

// The collectors live as long as the process, so that counts survive a reload.
var (
	publishSeconds = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: "caddy", Subsystem: "tim_callback", Name: "publish_seconds",
		Help:    "Time until the broker has acknowledged a message.",
		Buckets: []float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5},
	}, []string{"broker"})

	publishFailures = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "caddy", Subsystem: "tim_callback", Name: "publish_failures_total",
		Help: "Messages that the broker has not acknowledged, by cause.",
	}, []string{"broker", "cause"})
)
