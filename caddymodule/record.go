// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"net/http"
	"slices"
	"strconv"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/timguard/timguard/caddymodule/callback"
)

// record makes what inspect found visible: where show does, in the metrics, and a
// refusal in the handler's own log.
func (h *Handler) record(r *http.Request, c *call) {
	h.show(r, c)
	h.count(c)
	if c.rejection != nil {
		h.logRejection(r, c)
	}
}

// show makes the call visible in placeholders, the access log and the trace.
func (h *Handler) show(r *http.Request, c *call) {
	ctx := r.Context()
	if repl, ok := ctx.Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		repl.Map(c.placeholder)
	}
	if h.logsAccess() {
		if extra, ok := ctx.Value(caddyhttp.ExtraLogFieldsCtxKey).(*caddyhttp.ExtraLogFields); ok {
			extra.Add(zap.Object("tim_callback", c))
		}
	}
	if span := trace.SpanFromContext(ctx); span.IsRecording() {
		span.SetAttributes(c.attributes()...)
	}
}

// logsAccess reports whether the server may write an access log. Adding a field
// for one that it never writes costs more than reading the query.
func (h *Handler) logsAccess() bool { return h.server == nil || h.server.Logs != nil }

// logRejection writes one line. What anybody can cause is Info; what only a
// holder of a token can cause is a Warn, because it is real traffic. That goes for
// stale callbacks too: this machine's clock may be wrong.
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
		entry.Write(
			zap.String("guard", h.Name),
			zap.String("reason", string(c.rejection.Reason)),
			zap.String("path", c.rejection.Path),
			zap.String("detail", c.rejection.Detail),
			zap.String("sdk_app_id", c.value("sdk_app_id")),
			zap.String("command", c.value("command")),
			zap.String("remote_ip", remote),
		)
	}
}

const placeholderPrefix = "http.tim_callback."

// placeholder is a [caddy.ReplacerFunc]. The values are made when they are
// asked for, which for most requests is never.
func (c *call) placeholder(key string) (any, bool) {
	name, ok := strings.CutPrefix(key, placeholderPrefix)
	if !ok || !slices.Contains(valueNames, name) {
		return nil, false
	}
	return c.value(name), true
}

// valueNames are the names of a call's values, in placeholders and logs.
var valueNames = []string{
	"sdk_app_id", "command", "class", "group_id", "topic_id", "operator", "group_type", "event_time",
	"msg_seqs", "opt_platform", "client_ip", "action", "reason", "path",
}

// value returns the call's value of that name.
func (c *call) value(name string) string {
	switch name {
	case "sdk_app_id":
		return c.query.SdkAppID
	case "command":
		return c.query.CallbackCommand
	case "class":
		return string(c.class())
	case "group_id":
		return c.event.GroupID
	case "topic_id":
		return c.event.TopicID
	case "operator":
		return c.event.Operator
	case "group_type":
		return c.event.GroupType
	case "event_time":
		return eventTime(c.event)
	case "msg_seqs":
		return joinSeqs(c.event.MsgSeqs)
	case "opt_platform":
		return c.query.OptPlatform
	case "client_ip":
		return c.query.ClientIP
	case "action":
		return c.action
	}
	return c.fault(name)
}

// fault returns the reason or the path of the rejection, if there is one.
func (c *call) fault(name string) string {
	switch {
	case c.rejection == nil:
		return ""
	case name == "reason":
		return string(c.rejection.Reason)
	default:
		return c.rejection.Path
	}
}

func eventTime(e callback.Event) string {
	if e.EventTime == 0 {
		return ""
	}
	return strconv.FormatInt(e.EventTime, 10)
}

func joinSeqs(seqs []uint32) string {
	var b []byte
	for i, seq := range seqs {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendUint(b, uint64(seq), 10)
	}
	return string(b)
}

// attributes are the values that the call has, for a trace.
func (c *call) attributes() []attribute.KeyValue {
	var attributes []attribute.KeyValue
	for _, name := range valueNames {
		if value := c.value(name); value != "" {
			attributes = append(attributes, attribute.String("tim_callback."+name, value))
		}
	}
	return attributes
}

// MarshalLogObject writes the values that the call has.
func (c *call) MarshalLogObject(enc zapcore.ObjectEncoder) error {
	for _, name := range valueNames {
		if value := c.value(name); value != "" {
			enc.AddString(name, value)
		}
	}
	return nil
}

// MarshalLogObject keeps tokens that stand in the configuration as they are out
// of Caddy's trace log.
func (h *Handler) MarshalLogObject(enc zapcore.ObjectEncoder) error {
	enc.AddString("name", h.Name)
	enc.AddString("mode", h.Mode)
	return nil
}

// Interface guards
var (
	_ zapcore.ObjectMarshaler = (*call)(nil)
	_ zapcore.ObjectMarshaler = (*Handler)(nil)
)
