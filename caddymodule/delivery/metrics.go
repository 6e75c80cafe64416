// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/timguard/timguard/caddymodule"
	"github.com/timguard/timguard/caddymodule/callback"
	"github.com/timguard/timguard/caddymodule/outbox"
)

// The collectors live as long as the process, so that counts survive a reload. They are
// registered with the registry of each configuration.
var (
	attemptsTotal = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "caddy", Subsystem: "tim_callback", Name: "delivery_attempts_total",
		Help: "Attempts to deliver a stored callback, by outcome. The consumer is empty for the guard's own backend.",
	}, []string{"command", "consumer", "outcome"})

	storeSeconds = prometheus.NewHistogram(prometheus.HistogramOpts{
		Namespace: "caddy", Subsystem: "tim_callback", Name: "store_seconds",
		Help:    "Time to store a callback durably, including failures.",
		Buckets: prometheus.ExponentialBuckets(0.0005, 2, 13),
	})

	stored = &countsCollector{
		deliveries: prometheus.NewDesc("caddy_tim_callback_deliveries", "Stored callbacks by state.", []string{"state"}, nil),
		oldest: prometheus.NewDesc("caddy_tim_callback_oldest_delivery_age_seconds",
			"Age of the oldest stored callback that awaits delivery; 0 if there is none.", nil, nil),
		unclaimed: prometheus.NewDesc("caddy_tim_callback_unclaimed_deliveries",
			"Stored callbacks that await delivery by a guard, or to a consumer, that is not configured.", []string{"guard", "consumer"}, nil),
	}
)

func registerMetrics(registry prometheus.Registerer) error {
	return caddymodule.RegisterCollectors(registry, attemptsTotal, storeSeconds, stored)
}

// otherLabel is the label of unknown commands and consumers, so that callers cannot create
// series.
const otherLabel = "other"

func (s *Service) countAttempt(a outbox.Attempt, err error) {
	command, consumer, outcome := a.Command, a.Consumer, "delivered"
	if _, known := callback.Lookup(command); !known {
		command = otherLabel
	}
	if !s.claims(outbox.Queue{Guard: a.Guard, Consumer: consumer}) {
		consumer = otherLabel
	}
	if err != nil {
		outcome = "failed"
	}
	attemptsTotal.WithLabelValues(command, consumer, outcome).Inc()
}

// countsMaxAge is how long counts are cached, because counting scans an index of all rows.
const countsMaxAge = 5 * time.Second

// countsCollector collects the counts of the running configuration's store. If the store
// does not respond, there are no samples.
type countsCollector struct {
	deliveries, oldest, unclaimed *prometheus.Desc

	mu     sync.Mutex
	at     time.Time
	of     *Service
	counts []outbox.Count
}

// Describe implements prometheus.Collector.
func (c *countsCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.deliveries
	ch <- c.oldest
	ch <- c.unclaimed
}

// Collect implements prometheus.Collector.
func (c *countsCollector) Collect(ch chan<- prometheus.Metric) {
	s := running()
	if s == nil {
		return
	}
	counts, ok := c.recent(s)
	if !ok {
		return
	}
	states, oldest := summary(counts)
	for state, n := range states {
		ch <- prometheus.MustNewConstMetric(c.deliveries, prometheus.GaugeValue, float64(n), string(state))
	}
	ch <- prometheus.MustNewConstMetric(c.oldest, prometheus.GaugeValue, oldest.Seconds())
	for queue, n := range s.unclaimed(counts) {
		ch <- prometheus.MustNewConstMetric(c.unclaimed, prometheus.GaugeValue, float64(n), queue.Guard, queue.Consumer)
	}
}

func (c *countsCollector) recent(s *Service) ([]outbox.Count, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.of == s && time.Since(c.at) < countsMaxAge {
		return c.counts, true
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	counts, err := s.outbox.Counts(ctx)
	if err != nil {
		return nil, false
	}
	c.at, c.of, c.counts = time.Now(), s, counts
	return counts, true
}

// summary returns the number of deliveries in every state, and the age of the oldest one
// that awaits delivery.
func summary(counts []outbox.Count) (states map[outbox.State]int, oldest time.Duration) {
	states = make(map[outbox.State]int)
	for _, state := range outbox.States() {
		states[state] = 0
	}
	for _, c := range counts {
		states[c.State] += c.N
		if !c.Oldest.IsZero() {
			oldest = max(oldest, time.Since(c.Oldest))
		}
	}
	return states, oldest
}
