// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/timguard/timguard/caddymodule/internal/metric"
	"github.com/timguard/timguard/caddymodule/outbox"
)

// The collectors live as long as the process, so that counts survive a reload. They are
// registered with the registry of each configuration.
var (
	attemptsTotal = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "caddy", Subsystem: "tim_callback", Name: "delivery_attempts_total",
		Help: "Attempts to deliver a stored callback, by outcome. The consumer is empty for the guard's own backend.",
	}, []string{"guard", "consumer", "command", "outcome"})

	storeSeconds = prometheus.NewHistogram(prometheus.HistogramOpts{
		Namespace: "caddy", Subsystem: "tim_callback", Name: "store_seconds",
		Help:    "Time to store a callback durably, including failures.",
		Buckets: prometheus.ExponentialBuckets(0.0005, 2, 13),
	})

	stored = &countsCollector{
		deliveries: prometheus.NewDesc("caddy_tim_callback_deliveries",
			"Stored callbacks by state. The consumer is empty for the guard's own backend.", []string{"guard", "consumer", "state"}, nil),
		oldest: prometheus.NewDesc("caddy_tim_callback_oldest_delivery_age_seconds",
			"Age of the oldest stored callback of a queue that awaits delivery; 0 if there is none.", []string{"guard", "consumer"}, nil),
		unclaimed: prometheus.NewDesc("caddy_tim_callback_unclaimed_deliveries",
			"Stored callbacks that await a guard, or a backend or consumer of it, that is not configured.", nil, nil),
		paused: prometheus.NewDesc("caddy_tim_callback_queue_paused",
			"1 if an operator has paused the queue, 0 otherwise.", []string{"guard", "consumer"}, nil),
		abandoned: prometheus.NewDesc("caddy_tim_callback_abandoned_attempts",
			"Attempts whose handlers go on although their timeout is over.", nil, nil),
	}
)

func (s *Service) countAttempt(a outbox.Attempt, err error) {
	outcome := "delivered"
	if err != nil {
		outcome = "failed"
	}
	attemptsTotal.WithLabelValues(a.Guard, a.Consumer, metric.Command(a.Command), outcome).Inc()
}

// countsMaxAge is how long counts are cached, because counting scans an index of all rows.
const countsMaxAge = 5 * time.Second

// countsCollector collects the counts of the running configuration's store. If the store
// does not respond, there are no samples.
type countsCollector struct {
	deliveries, oldest, unclaimed, paused, abandoned *prometheus.Desc

	mu     sync.Mutex
	at     time.Time
	of     *Service
	counts []outbox.Count
	pauses []outbox.Queue
}

// Describe implements prometheus.Collector.
func (c *countsCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.deliveries
	ch <- c.oldest
	ch <- c.unclaimed
	ch <- c.paused
	ch <- c.abandoned
}

// Collect implements prometheus.Collector. The labels are the names of configured guards and
// consumers.
func (c *countsCollector) Collect(ch chan<- prometheus.Metric) {
	s := running()
	if s == nil {
		return
	}
	gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	gauge(c.abandoned, float64(s.Outbox().Abandoned()))
	counts, paused, ok := c.recent(s)
	if !ok {
		return
	}
	for _, q := range s.Queues() {
		states, oldest := summary(counts, q)
		for state, n := range states {
			gauge(c.deliveries, float64(n), q.Guard, q.Consumer, string(state))
		}
		gauge(c.oldest, oldest.Seconds(), q.Guard, q.Consumer)
		isPaused := 0.0
		if slices.Contains(paused, q) {
			isPaused = 1
		}
		gauge(c.paused, isPaused, q.Guard, q.Consumer)
	}
	unclaimed := 0
	for _, n := range s.unclaimed(counts) {
		unclaimed += n
	}
	gauge(c.unclaimed, float64(unclaimed))
}

func (c *countsCollector) recent(s *Service) (counts []outbox.Count, paused []outbox.Queue, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.of == s && time.Since(c.at) < countsMaxAge {
		return c.counts, c.pauses, true
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	counts, err := s.Outbox().Counts(ctx)
	if err == nil {
		paused, err = s.Outbox().Paused(ctx)
	}
	if err != nil {
		return nil, nil, false
	}
	c.at, c.of, c.counts, c.pauses = time.Now(), s, counts, paused
	return counts, paused, true
}

// summary returns the number of a queue's deliveries in every state, and the age of the
// oldest one that awaits delivery. Without a queue, it is about all.
func summary(counts []outbox.Count, queues ...outbox.Queue) (states map[outbox.State]int, oldest time.Duration) {
	states = make(map[outbox.State]int)
	for _, state := range outbox.States() {
		states[state] = 0
	}
	for _, c := range counts {
		if len(queues) > 0 && !slices.Contains(queues, c.Queue) {
			continue
		}
		states[c.State] += c.N
		if !c.Oldest.IsZero() {
			oldest = max(oldest, time.Since(c.Oldest))
		}
	}
	return states, oldest
}

// Interface guards
var _ prometheus.Collector = (*countsCollector)(nil)
