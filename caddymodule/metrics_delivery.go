// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/timguard/timguard/caddymodule/outbox"
)

var (
	deliveryAttemptsTotal = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "caddy", Subsystem: "tim_callback", Name: "delivery_attempts_total",
		Help: "Attempts at delivering a stored callback, by outcome.",
	}, []string{"command", "outcome"})

	storeSeconds = prometheus.NewHistogram(prometheus.HistogramOpts{
		Namespace: "caddy", Subsystem: "tim_callback", Name: "store_seconds",
		Help:    "Time until a callback is on stable storage, or could not be stored.",
		Buckets: prometheus.ExponentialBuckets(0.0005, 2, 13),
	})

	deliveryStats = &statsCollector{
		deliveries: prometheus.NewDesc("caddy_tim_callback_deliveries", "Stored callbacks by state.", []string{"state"}, nil),
		oldest: prometheus.NewDesc("caddy_tim_callback_oldest_delivery_age_seconds",
			"Age of the oldest stored callback that waits for delivery; 0 if none does.", nil, nil),
	}
)

func registerDeliveryMetrics(registry prometheus.Registerer) error {
	return register(registry, deliveryAttemptsTotal, storeSeconds, deliveryStats)
}

// statsMaxAge is how old the numbers of a scrape may be: to count, the store
// reads an index of all its rows.
const statsMaxAge = 5 * time.Second

// statsCollector asks the running store what it holds. While the store does not
// answer there are no samples, rather than old ones.
type statsCollector struct {
	deliveries, oldest *prometheus.Desc

	mu    sync.Mutex
	at    time.Time
	of    *outbox.Outbox
	stats outbox.Stats
}

// Describe implements prometheus.Collector.
func (s *statsCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- s.deliveries
	ch <- s.oldest
}

// Collect implements prometheus.Collector.
func (s *statsCollector) Collect(ch chan<- prometheus.Metric) {
	stats, ok := s.recent()
	if !ok {
		return
	}
	for state, n := range stats.Count {
		ch <- prometheus.MustNewConstMetric(s.deliveries, prometheus.GaugeValue, float64(n), string(state))
	}
	ch <- prometheus.MustNewConstMetric(s.oldest, prometheus.GaugeValue, stats.OldestAge.Seconds())
}

func (s *statsCollector) recent() (outbox.Stats, bool) {
	d := runningDelivery()
	if d == nil {
		return outbox.Stats{}, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of == d.outbox && time.Since(s.at) < statsMaxAge {
		return s.stats, true
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	stats, err := d.outbox.Stats(ctx)
	if err != nil {
		return outbox.Stats{}, false
	}
	s.at, s.of, s.stats = time.Now(), d.outbox, stats
	return stats, true
}
