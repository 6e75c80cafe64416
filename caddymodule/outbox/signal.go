// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package outbox

import "sync"

// signals tell workers that a queue has something to do, so that they need not poll for what
// this process has stored.
type signals struct {
	mu     sync.Mutex
	queues map[Queue]chan struct{}
}

// woken returns a channel that is closed by the next wake of the queue.
func (o *Outbox) woken(q Queue) <-chan struct{} {
	s := &o.signals
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.queues == nil {
		s.queues = make(map[Queue]chan struct{})
	}
	if s.queues[q] == nil {
		s.queues[q] = make(chan struct{})
	}
	return s.queues[q]
}

// wake wakes the workers that wait for the queue.
func (o *Outbox) wake(q Queue) {
	s := &o.signals
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.queues[q] != nil {
		close(s.queues[q])
		delete(s.queues, q)
	}
}
