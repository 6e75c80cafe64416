// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"net/http"

	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// record records the result of judge in placeholders, the access log, the trace and the
// metrics, and logs a rejection.
func (h *Handler) record(r *http.Request, c *call) {
	h.show(r, c)
	h.count(c)
	if c.event.Drift != nil {
		h.logDrift(c)
	}
	if c.rejection != nil {
		h.logRejection(r, c)
	}
}

// logDrift logs once for each command, which is a known one, the names by which a payload
// differs from the table.
func (h *Handler) logDrift(c *call) {
	if _, logged := h.drifted.LoadOrStore(c.event.Command, true); logged {
		return
	}
	h.logger.Info("payload differs from the documentation that this version knows; it is accepted",
		zap.String("guard", h.Name), zap.String("command", c.event.Command),
		zap.Strings("missing", c.event.Drift.Missing), zap.Strings("unknown", c.event.Drift.Unknown))
}

// lastCall is the call of the last guard that the request has passed. It is stored as a
// variable of the request, so that several guards in a route share it.
type lastCall struct{ *call }

const lastCallVar = "tim_callback"

// show sets the call for placeholders, the access log and the trace.
func (h *Handler) show(r *http.Request, c *call) {
	ctx := r.Context()
	if span := trace.SpanFromContext(ctx); span.IsRecording() {
		span.SetAttributes(c.attributes()...)
	}
	if last, ok := caddyhttp.GetVar(ctx, lastCallVar).(*lastCall); ok {
		last.call = c
		return
	}
	last := setLastCall(r, c)
	if extra, ok := ctx.Value(caddyhttp.ExtraLogFieldsCtxKey).(*caddyhttp.ExtraLogFields); ok && h.logsAccess() {
		extra.Add(zap.Object("tim_callback", last))
	}
}

// setLastCall sets the call for placeholders.
func setLastCall(r *http.Request, c *call) *lastCall {
	last := &lastCall{c}
	caddyhttp.SetVar(r.Context(), lastCallVar, last)
	if repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		repl.Map(last.placeholder)
	}
	return last
}

// logsAccess reports whether the server may write an access log. Adding fields to it is
// relatively expensive.
func (h *Handler) logsAccess() bool { return h.server == nil || h.server.Logs != nil }

// logRejection logs a rejection. The level is Warn for correctly signed callbacks, which
// are genuine, and Info for others, which anybody can cause. Stale callbacks may be
// genuine too, if this machine's clock is wrong.
func (h *Handler) logRejection(r *http.Request, c *call) {
	level := zapcore.InfoLevel
	if c.verified || c.token > 0 {
		level = zapcore.WarnLevel
	}
	message := "callback refused"
	if h.Mode == modeReport {
		message = "callback would be refused"
	}
	if entry := h.logger.Check(level, message); entry != nil {
		remote, _ := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string)
		verdict := zap.Skip()
		if v := c.rawValue("verdict"); v != "" {
			verdict = zap.String("verdict", v)
		}
		entry.Write(
			zap.String("guard", h.Name),
			zap.String("reason", string(c.rejection.Reason)),
			zap.String("path", c.shown("path")),
			zap.String("detail", c.rejection.Detail),
			zap.String("sdk_app_id", c.shown("sdk_app_id")),
			zap.String("command", c.shown("command")),
			verdict,
			zap.String("remote_ip", remote),
		)
	}
}

// MarshalLogObject implements [zapcore.ObjectMarshaler]. It keeps literal tokens out of
// Caddy's trace log.
func (h *Handler) MarshalLogObject(enc zapcore.ObjectEncoder) error {
	enc.AddString("name", h.Name)
	enc.AddString("mode", h.Mode)
	return nil
}

// Interface guards
var _ zapcore.ObjectMarshaler = (*Handler)(nil)
