// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"errors"
	"sync"

	"go.uber.org/zap"

	"github.com/timguard/timguard/caddymodule/callback"
	"github.com/timguard/timguard/caddymodule/outbox"
)

// maxEvents is how many events may wait for their handlers.
const maxEvents = 256

// eventQueue holds the events that wait for their handlers, which get one at a time.
type eventQueue struct {
	mu      sync.Mutex
	waiting []func()
	running bool
}

// emit emits an event. It does not wait for the event handlers, because the caller may
// be serving a request.
func (s *Service) emit(name string, data map[string]any) {
	q := s.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) >= maxEvents {
		s.logger.Warn("event dropped because its handlers are too slow", zap.String("event", name))
		return
	}
	q.waiting = append(q.waiting, func() { s.events.Emit(s.ctx, name, data) })
	if !q.running {
		q.running = true
		go q.run()
	}
}

// run calls the handlers until no event waits.
func (q *eventQueue) run() {
	for {
		q.mu.Lock()
		if len(q.waiting) == 0 {
			q.running = false
			q.mu.Unlock()
			return
		}
		next := q.waiting[0]
		q.waiting = q.waiting[1:]
		q.mu.Unlock()
		next()
	}
}

// emitDead logs and emits that the last attempt of a delivery has failed.
func (s *Service) emitDead(a outbox.Attempt, err error) {
	command := callback.Printable(a.Command)
	s.logger.Warn("last delivery attempt failed; delivery is dead",
		zap.Int64("id", a.ID), zap.String("guard", a.Guard), zap.String("consumer", a.Consumer), zap.String("command", command),
		zap.Int("attempts", a.Attempt), zap.Error(err))
	s.emit("tim_delivery.dead", map[string]any{
		"id": a.ID, "guard": a.Guard, "consumer": a.Consumer, "command": command, "sdk_app_id": a.SdkAppID,
		"attempts": a.Attempt, "error": err.Error(),
	})
}

// noteStored emits that the store has failed, or has recovered. err is the result of
// storing a callback. An invalid callback says nothing about the store.
func (s *Service) noteStored(err error) {
	failed := err != nil
	if errors.Is(err, outbox.ErrInvalid) || s.failing.Swap(failed) == failed {
		return
	}
	if failed {
		s.emit("tim_delivery.store_failed", map[string]any{"store": s.name, "error": err.Error()})
		return
	}
	s.emit("tim_delivery.store_recovered", map[string]any{"store": s.name})
}
