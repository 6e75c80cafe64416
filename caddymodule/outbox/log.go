// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package outbox

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// repeatAfter is how long repetitions of a message are suppressed.
const repeatAfter = 10 * time.Second

// settle is how long warnings and errors are held back until it is known whether they only
// say that the store does not work.
const settle = time.Second

// quietHandler reduces River's logging: it lowers the level Info to Debug, and passes on
// repeated warnings and errors only once in a while, and not at all while the store does not
// work, which one line of its own says.
type quietHandler struct {
	slog.Handler
	seen  *seen
	works func() bool
}

type seen struct {
	mu   sync.Mutex
	last map[string]time.Time
}

func newQuietHandler(h slog.Handler, works func() bool) slog.Handler {
	return quietHandler{h, &seen{last: make(map[string]time.Time)}, works}
}

func quiet(level slog.Level) slog.Level {
	if level == slog.LevelInfo {
		return slog.LevelDebug
	}
	return level
}

// Enabled implements slog.Handler.
func (h quietHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.Handler.Enabled(ctx, quiet(level))
}

// Handle implements slog.Handler.
func (h quietHandler) Handle(ctx context.Context, r slog.Record) error {
	r.Level = quiet(r.Level)
	if r.Level < slog.LevelWarn {
		return h.Handler.Handle(ctx, r)
	}
	if !h.seen.recently(r.Message, r.Time) {
		time.AfterFunc(settle, func() {
			if h.works() {
				_ = h.Handler.Handle(context.WithoutCancel(ctx), r)
			}
		})
	}
	return nil
}

// recently reports whether the message was passed on less than repeatAfter ago. The
// map stays small, because messages are constants of this package and of River.
func (s *seen) recently(message string, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.Sub(s.last[message]) < repeatAfter {
		return true
	}
	s.last[message] = now
	return false
}

// WithAttrs implements slog.Handler.
func (h quietHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return quietHandler{h.Handler.WithAttrs(attrs), h.seen, h.works}
}

// WithGroup implements slog.Handler.
func (h quietHandler) WithGroup(name string) slog.Handler {
	return quietHandler{h.Handler.WithGroup(name), h.seen, h.works}
}

// Interface guards
var _ slog.Handler = quietHandler{}
