// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"context"
	"log/slog"

	"go.uber.org/zap/exp/zapslog"

	"github.com/caddyserver/caddy/v2"
)

// currentLog is a handler that writes to Caddy's current log, because a store outlives
// the log of the configuration that opened it.
type currentLog struct{}

func (currentLog) handler() slog.Handler {
	return zapslog.NewHandler(caddy.Log().Core(), zapslog.WithName("tim_delivery"), zapslog.AddStacktraceAt(slog.Level(127)))
}

// Enabled implements slog.Handler.
func (l currentLog) Enabled(ctx context.Context, level slog.Level) bool {
	return l.handler().Enabled(ctx, level)
}

// Handle implements slog.Handler.
func (l currentLog) Handle(ctx context.Context, record slog.Record) error {
	return l.handler().Handle(ctx, record)
}

// WithAttrs implements slog.Handler. The returned handler is for short-lived loggers:
// it does not follow changes of Caddy's log.
func (l currentLog) WithAttrs(attrs []slog.Attr) slog.Handler { return l.handler().WithAttrs(attrs) }

// WithGroup implements slog.Handler, as WithAttrs does.
func (l currentLog) WithGroup(name string) slog.Handler { return l.handler().WithGroup(name) }

// Interface guards
var _ slog.Handler = currentLog{}
