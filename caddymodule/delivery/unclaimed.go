// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"context"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/timguard/timguard/caddymodule/outbox"
)

// unclaimed returns the number of waiting deliveries in each queue that no guard has,
// because it, or its backend or consumer, was renamed or removed.
func (s *Service) unclaimed(counts []outbox.Count) map[outbox.Queue]int {
	unclaimed := make(map[outbox.Queue]int)
	for _, c := range counts {
		if c.State.Waiting() && s.guardOf(c.Queue) == nil {
			unclaimed[c.Queue] += c.N
		}
	}
	return unclaimed
}

// warnOfUnclaimed warns of deliveries that no guard has as soon as the store is open.
func (s *Service) warnOfUnclaimed() {
	select {
	case <-s.Outbox().Ready():
	case <-s.ctx.Done():
		return
	}
	ctx, cancel := context.WithTimeout(s.ctx, 10*time.Second)
	defer cancel()
	counts, err := s.Outbox().Counts(ctx)
	if err != nil {
		return // errors of the store are logged elsewhere
	}
	for queue, n := range s.unclaimed(counts) {
		what := "consumer"
		if queue.Consumer == "" {
			what = "backend"
		}
		s.logger.Warn("deliveries await a guard of this name with this "+what+"; configure it again, or discard them",
			zap.String("guard", queue.Guard), zap.String("consumer", queue.Consumer), zap.Int("deliveries", n))
	}
	s.warnOfPaused(ctx, counts)
}

// warnOfLeft warns of deliveries that stay behind in the store, because the configuration
// that has replaced this one does not use it, and returns their number. It does not warn of
// as many as it has warned of before.
func (s *Service) warnOfLeft(before int) (left int) {
	if now := running(); caddy.Exiting() || now != nil && now.key() == s.key() {
		return 0
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	counts, err := s.Outbox().Counts(ctx)
	if err != nil {
		return before // errors of the store are logged elsewhere
	}
	for _, c := range counts {
		if c.State.Waiting() && c.State != outbox.Running { // those may still be accepted
			left += c.N
		}
	}
	if left > before {
		caddy.Log().Named("tim_delivery").Warn("deliveries are left in a store that is no longer configured; configure it again to deliver them",
			zap.Int("deliveries", left))
	}
	return left
}

// warnOfPaused warns of deliveries that wait for an operator to resume their queue.
func (s *Service) warnOfPaused(ctx context.Context, counts []outbox.Count) {
	paused, err := s.Outbox().Paused(ctx)
	if err != nil {
		return
	}
	for _, queue := range paused {
		n := 0
		for _, c := range counts {
			if c.Queue == queue && c.State.Waiting() {
				n += c.N
			}
		}
		if n > 0 {
			s.logger.Warn("deliveries wait in a queue that is paused; resume it to deliver them",
				zap.String("guard", queue.Guard), zap.String("consumer", queue.Consumer), zap.Int("deliveries", n))
		}
	}
}
