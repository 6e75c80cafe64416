// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package outbox

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// repeatAfter is how long the same complaint is kept back.
const repeatAfter = 10 * time.Second

// quietHandler makes River fit into the log of a server: its daily business goes
// to Debug, and a complaint that comes back with every poll while a database is
// away is passed on once in a while.
type quietHandler struct {
	slog.Handler
	seen *seen
}

type seen struct {
	mu   sync.Mutex
	last map[string]time.Time
}

func newQuietHandler(h slog.Handler) slog.Handler {
	return quietHandler{h, &seen{last: make(map[string]time.Time)}}
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
	if r.Level >= slog.LevelWarn && h.seen.lately(r.Message, r.Time) {
		return nil
	}
	return h.Handler.Handle(ctx, r)
}

// lately tells whether message was passed on within repeatAfter. The messages
// are constants of this package and of River, so the map stays small.
func (s *seen) lately(message string, now time.Time) bool {
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
	return quietHandler{h.Handler.WithAttrs(attrs), h.seen}
}

// WithGroup implements slog.Handler.
func (h quietHandler) WithGroup(name string) slog.Handler {
	return quietHandler{h.Handler.WithGroup(name), h.seen}
}
