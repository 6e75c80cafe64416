// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"fmt"
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

// record records the result of judge in placeholders, the access log, the trace and the
// metrics, and logs a rejection.
func (h *Handler) record(r *http.Request, c *call) {
	h.show(r, c)
	if c.attempt == nil { // a delivery was counted when it was received
		h.count(c)
	}
	if c.rejection != nil {
		h.logRejection(r, c)
	}
	if c.event.Drift != nil {
		h.recordDrift(c)
	}
}

// recordDrift counts a valid payload that differs from the table of commands, and logs the
// names once for each command.
func (h *Handler) recordDrift(c *call) {
	driftTotal.WithLabelValues(commandLabel(c.query.CallbackCommand)).Inc()
	if _, logged := h.drifted.LoadOrStore(c.event.Command, true); logged {
		return
	}
	h.logger.Info("payload differs from the documentation that this version knows; it is accepted",
		zap.String("guard", h.Name), zap.String("command", c.value("command")),
		zap.Strings("missing", c.event.Drift.Missing), zap.Strings("unknown", printables(c.event.Drift.Unknown)))
}

// printables returns the texts, which the caller may have chosen, as they may be logged.
func printables(texts []string) []string {
	var all []string
	for _, text := range texts {
		all = append(all, callback.Printable(text))
	}
	return all
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
	last := &lastCall{c}
	caddyhttp.SetVar(ctx, lastCallVar, last)
	if repl, ok := ctx.Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		repl.Map(last.placeholder)
	}
	if extra, ok := ctx.Value(caddyhttp.ExtraLogFieldsCtxKey).(*caddyhttp.ExtraLogFields); ok && h.logsAccess() {
		extra.Add(zap.Object("tim_callback", last))
	}
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
		entry.Write(
			zap.String("guard", h.Name),
			zap.String("reason", string(c.rejection.Reason)),
			zap.String("path", c.value("path")),
			zap.String("detail", c.rejection.Detail),
			zap.String("sdk_app_id", c.value("sdk_app_id")),
			zap.String("command", c.value("command")),
			zap.String("remote_ip", remote),
		)
	}
}

const placeholderPrefix = "http.tim_callback."

// placeholder implements [caddy.ReplacerFunc].
func (l *lastCall) placeholder(key string) (any, bool) {
	name, ok := strings.CutPrefix(key, placeholderPrefix)
	if !ok || !slices.Contains(valueNames, name) {
		return nil, false
	}
	return l.value(name), true
}

// String is the value of {http.vars.tim_callback}. It must not contain the Sign.
func (l *lastCall) String() string { return l.value("command") }

// valueNames are the names of a call's values in placeholders, logs and traces.
var valueNames = []string{
	"sdk_app_id", "command", "class", "group_id", "topic_id", "from", "to", "operator", "conversation", "group_type", "event_time",
	"event_id", "msg_seqs", "msg_key", "opt_platform", "client_ip", "action", "verdict", "consumer", "reason", "path",
}

// value returns the value of that name as printable text.
func (c *call) value(name string) string { return callback.Printable(c.rawValue(name)) }

func (c *call) rawValue(name string) string {
	switch name {
	case "sdk_app_id":
		return c.query.SdkAppID
	case "command":
		return c.query.CallbackCommand
	case "class":
		return string(c.class())
	case "opt_platform":
		return c.query.OptPlatform
	case "client_ip":
		return c.query.ClientIP
	case "action":
		return c.action
	case "verdict":
		return c.verdictName()
	case "consumer":
		return c.consumer()
	case "reason", "path":
		return c.fault(name)
	}
	return c.eventValue(name)
}

// eventValue returns a value of the payload.
func (c *call) eventValue(name string) string {
	switch name {
	case "group_id":
		return c.event.GroupID
	case "topic_id":
		return c.event.TopicID
	case "from":
		return c.event.From
	case "to":
		return c.event.To
	case "operator":
		return c.event.Operator
	case "conversation":
		return c.event.Conversation
	case "group_type":
		return c.event.GroupType
	case "event_time":
		return eventTime(c.event)
	case "event_id":
		return c.eventID()
	case "msg_seqs":
		return joinSeqs(c.event.MsgSeqs)
	case "msg_key":
		return c.event.MsgKey
	}
	return ""
}

// verdictName returns what was answered in the backend's place: the fallback, or the
// verdict of a rule about before-callbacks that does not ask the backend.
func (c *call) verdictName() string {
	switch {
	case c.verdict != nil:
		return c.verdict.Verdict
	case c.action == actionForbid:
		return verdictForbid
	case c.action == actionAck && c.class() == callback.Before:
		return verdictAllow
	}
	return ""
}

// consumer returns the consumer of a delivery.
func (c *call) consumer() string {
	if c.attempt == nil {
		return ""
	}
	return c.attempt.Consumer
}

// fault returns the reason or the path of the rejection, if any.
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

// maxSeqs is the maximum number of sequence numbers that are logged.
const maxSeqs = 100

// joinSeqs formats up to maxSeqs numbers. If there are more, it appends their count.
func joinSeqs(seqs []uint32) string {
	var b []byte
	for i, seq := range seqs[:min(len(seqs), maxSeqs)] {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendUint(b, uint64(seq), 10)
	}
	if len(seqs) > maxSeqs {
		b = fmt.Appendf(b, ",… (%d)", len(seqs))
	}
	return string(b)
}

// attributes returns the call's values as attributes of a span.
func (c *call) attributes() []attribute.KeyValue {
	var attributes []attribute.KeyValue
	for _, name := range valueNames {
		if value := c.value(name); value != "" {
			attributes = append(attributes, attribute.String("tim_callback."+name, value))
		}
	}
	return attributes
}

// MarshalLogObject implements [zapcore.ObjectMarshaler]. It omits empty values.
func (c *call) MarshalLogObject(enc zapcore.ObjectEncoder) error {
	for _, name := range valueNames {
		if value := c.value(name); value != "" {
			enc.AddString(name, value)
		}
	}
	return nil
}

// MarshalLogObject implements [zapcore.ObjectMarshaler]. It keeps literal tokens out of
// Caddy's trace log.
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
