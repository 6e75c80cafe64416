// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/timguard/timguard/caddymodule"
	"github.com/timguard/timguard/caddymodule/outbox"
)

// guardOf returns a guard that has the queue, or nil. If there are several, they are equal:
// different guards may have the same name if they store nothing, but then nobody can say
// whose the callbacks are that are stored under it.
func (s *Service) guardOf(q outbox.Queue) *caddymodule.Guard {
	guards := s.guards[q.Guard]
	if len(guards) == 0 || s.isAmbiguous(q.Guard) || guards[0].Routes[q.Consumer] == nil {
		return nil
	}
	return guards[0]
}

// isAmbiguous reports whether different guards have the name.
func (s *Service) isAmbiguous(name string) bool {
	guards := s.guards[name]
	return slices.ContainsFunc(guards, func(g *caddymodule.Guard) bool { return g.ConfigHash != guards[0].ConfigHash })
}

// Queues returns the queues of all guards, in order.
func (s *Service) Queues() []outbox.Queue {
	var queues []outbox.Queue
	for name, guards := range s.guards {
		if s.isAmbiguous(name) {
			continue
		}
		for _, consumer := range slices.Sorted(maps.Keys(guards[0].Routes)) {
			queues = append(queues, outbox.Queue{Guard: name, Consumer: consumer})
		}
	}
	slices.SortStableFunc(queues, func(a, b outbox.Queue) int { return strings.Compare(a.Guard, b.Guard) })
	return queues
}

// queueConfig returns how the workers deliver a configured queue.
func (s *Service) queueConfig(q outbox.Queue) outbox.QueueConfig {
	of := s.guardOf(q).Routes[q.Consumer]
	return outbox.QueueConfig{
		Deliver: s.deliver, Ended: s.ended, Rate: of.Rate, Ordered: of.Ordered,
		Workers: cmp.Or(of.Workers, s.Workers), Timeout: time.Duration(cmp.Or(of.Timeout, s.Timeout)),
	}
}

// optionsOf returns the options of a queue that rows depend on.
func (s *Service) optionsOf(q outbox.Queue) outbox.Options {
	g := s.guardOf(q)
	if g == nil {
		return outbox.Options{MaxAttempts: s.MaxAttempts}
	}
	of := g.Routes[q.Consumer]
	return outbox.Options{MaxAttempts: cmp.Or(of.MaxAttempts, s.MaxAttempts), Ordered: of.Ordered}
}
