// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"errors"

	"go.uber.org/zap"

	"github.com/timguard/timguard/caddymodule/callback"
	"github.com/timguard/timguard/caddymodule/outbox"
)

// emit emits an event of Caddy's events app, so that any handler of events can tell
// a person. It does not wait for them: who emits has an answer to give.
func (s *Service) emit(name string, data map[string]any) {
	go s.events.Emit(s.ctx, name, data)
}

// emitDead says that a delivery has had its last attempt.
func (s *Service) emitDead(a outbox.Attempt, err error) {
	command := callback.Printable(a.Command)
	s.logger.Error("a delivery is dead: it has had its last attempt, and stays listed to be retried or discarded",
		zap.Int64("id", a.ID), zap.String("guard", a.Guard), zap.String("consumer", a.Consumer), zap.String("command", command),
		zap.Int("attempts", a.Attempt), zap.Error(err))
	s.emit("tim_delivery.dead", map[string]any{
		"id": a.ID, "guard": a.Guard, "consumer": a.Consumer, "command": command, "sdk_app_id": a.SdkAppID,
		"attempts": a.Attempt, "error": err.Error(),
	})
}

// noteStored says that the store begins to fail, or has recovered. A callback that
// cannot be stored for what it holds says nothing of the store.
func (s *Service) noteStored(err error) {
	failed := err != nil
	if errors.Is(err, outbox.ErrInvalid) || s.failing.Swap(failed) == failed {
		return
	}
	if failed {
		s.emit("tim_delivery.store_failed", map[string]any{"store": s.name, "error": err.Error()})
		return
	}
	s.logger.Info("callbacks are stored again", zap.String("store", s.name))
	s.emit("tim_delivery.store_recovered", map[string]any{"store": s.name})
}
