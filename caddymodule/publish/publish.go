// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

// Package publish provides the HTTP handler tim_publish, which publishes callbacks to a
// message broker. The brokers are guest modules in packages of their own.
package publish

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/timguard/timguard/caddymodule/callback"
	"github.com/timguard/timguard/caddymodule/internal/answer"
	"github.com/timguard/timguard/caddymodule/internal/metric"
)

func init() {
	caddy.RegisterModule(Handler{})
}

// Handler publishes the request's body to a message broker, byte for byte. It answers
// `{"ActionStatus":"OK",…}` when the broker has acknowledged the message as stored, and 502
// with `"ActionStatus":"FAIL"` otherwise. It can be used wherever a backend can: after a
// tim_callback handler, in its `backend` block, or in a `consumer` block.
//
// The message has these headers, unless they are empty: `sdk_app_id`, `command`, `class`,
// `conversation`, `event_id` and `event_time`, which are the placeholders of tim_callback
// with these names. It never has the Sign.
//
// A message whose acknowledgement is lost may be published again by another attempt, so
// consumers should ignore an `event_id` that they have seen.
//
// If publishing fails, the variable `tim_publish_error` is set to the error.
type Handler struct {
	// The broker. Required.
	BrokerRaw json.RawMessage `json:"broker,omitempty" caddy:"namespace=tim_publish.brokers inline_key=module"`

	// Additional headers of the message. The values may contain placeholders, but none that
	// has the Sign, such as `{http.request.uri}`.
	Headers map[string]string `json:"headers,omitempty"`

	// How long to wait for the broker's acknowledgement. It should be less than the
	// deadline of the rule, so that the answer says what is wrong. Default: `1s`.
	Timeout caddy.Duration `json:"timeout,omitempty"`

	broker  Broker
	name    string // of the broker's module
	headers []string
	logger  *zap.Logger
}

// Broker is the interface of guest modules in the namespace tim_publish.brokers.
type Broker interface {
	// Publish returns when the broker has acknowledged the message as stored, or an error,
	// preferably an [*Error], if it has not until the context ends. The message may be
	// published nevertheless.
	Publish(ctx context.Context, m Message) error
}

// Message is a message to be published.
type Message struct {
	// Replacer replaces placeholders in options of the broker.
	Replacer *caddy.Replacer

	EventID string // may be empty
	Headers []Header
	Body    []byte // may be kept
}

// Header is a header of a message.
type Header struct{ Name, Value string }

// Error says why a message was not published.
type Error struct {
	// Cause is one of a few words, which are labels of a metric.
	Cause string

	// Err says what happened, and what to do about it. It must not contain secrets.
	Err error
}

// Causes that brokers have in common.
const (
	CauseUnreachable  = "unreachable"  // there is no connection to the broker
	CauseUnauthorized = "unauthorized" // the broker refuses the user
	CauseUnknown      = "unknown"      // the topic or exchange does not exist, or no queue is bound
	CauseTooLarge     = "too_large"
	CauseRefused      = "refused"     // the broker cannot store the message
	CauseBufferFull   = "buffer_full" // too many messages are waiting
	CauseReplicas     = "replicas"    // too few replicas are in sync
	CauseTimeout      = "timeout"     // there was no acknowledgement in time
	CauseOther        = "other"
)

// Errorf returns an [*Error] with the cause, which says what [fmt.Errorf] says.
func Errorf(cause, format string, args ...any) error {
	return &Error{Cause: cause, Err: fmt.Errorf(format, args...)}
}

// Error implements the error interface.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }

// CaddyModule returns the Caddy module information.
func (Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.tim_publish",
		New: func() caddy.Module { return new(Handler) },
	}
}

const (
	defaultTimeout = time.Second

	// maxBody limits the body in case no tim_callback handler does.
	maxBody = 16 << 20
)

// Provision sets up the handler. It does not connect to the broker.
func (h *Handler) Provision(ctx caddy.Context) error {
	h.logger = ctx.Logger()
	if h.Timeout == 0 {
		h.Timeout = caddy.Duration(defaultTimeout)
	}
	for name := range h.Headers {
		h.headers = append(h.headers, name)
	}
	slices.Sort(h.headers)
	if err := h.provisionBroker(ctx); err != nil {
		return err
	}
	return metric.Register(ctx.GetMetricsRegistry(), publishSeconds, publishFailures)
}

func (h *Handler) provisionBroker(ctx caddy.Context) error {
	if h.BrokerRaw == nil {
		return fmt.Errorf("tim_publish: want a broker, one of %s", strings.Join(brokerNames(), ", "))
	}
	var chosen struct{ Module string }
	if err := json.Unmarshal(h.BrokerRaw, &chosen); err != nil {
		return fmt.Errorf("tim_publish: broker: %w", err)
	}
	h.name = chosen.Module
	module, err := ctx.LoadModule(h, "BrokerRaw")
	if err != nil {
		return fmt.Errorf("tim_publish %s: %w", h.name, err)
	}
	broker, ok := module.(Broker)
	if !ok {
		return fmt.Errorf("tim_publish %s: %T does not implement publish.Broker", h.name, module)
	}
	h.broker = broker
	return nil
}

// brokerNames returns the names of the brokers in this binary.
func brokerNames() []string {
	var names []string
	for _, m := range caddy.GetModules("tim_publish.brokers") {
		names = append(names, m.ID.Name())
	}
	return names
}

// Validate rejects invalid settings.
func (h *Handler) Validate() error {
	if h.Timeout < 0 {
		return errors.New("tim_publish: timeout must be positive")
	}
	for _, name := range h.headers {
		if err := checkHeader(name, h.Headers[name]); err != nil {
			return fmt.Errorf("tim_publish: %w", err)
		}
	}
	return nil
}

func checkHeader(name, value string) error {
	switch {
	case name == "":
		return errors.New("header: want a name")
	case slices.Contains(fields, name):
		return fmt.Errorf("header %s is set for each message already", name)
	}
	return CheckText("header "+name, value)
}

// ServeHTTP implements [caddyhttp.MiddlewareHandler].
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		cause := CauseOther
		if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
			cause = CauseTooLarge
		}
		h.failed(w, r, Errorf(cause, "reading the body: %w", err))
		return nil
	}
	ctx, cancel := context.WithTimeout(r.Context(), time.Duration(h.Timeout))
	defer cancel()
	start := time.Now()
	if err := h.broker.Publish(ctx, h.message(r, body)); err != nil {
		h.failed(w, r, err)
		return nil
	}
	publishSeconds.WithLabelValues(h.name).Observe(time.Since(start).Seconds())
	answer.Write(w, http.StatusOK, callback.OK().JSON())
	return nil
}

// message returns the message of a request.
func (h *Handler) message(r *http.Request, body []byte) Message {
	repl := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	m := Message{Replacer: repl, Body: body, Headers: make([]Header, 0, len(fields)+len(h.headers))}
	for _, field := range fields {
		value, _ := repl.GetString("http.tim_callback." + field)
		if value == "" {
			continue
		}
		if field == "event_id" {
			m.EventID = value
		}
		m.Headers = append(m.Headers, Header{field, value})
	}
	for _, name := range h.headers {
		m.Headers = append(m.Headers, Header{name, repl.ReplaceAll(h.Headers[name], "")})
	}
	return m
}

// fields are the placeholders of tim_callback that are headers of each message.
var fields = []string{"sdk_app_id", "command", "class", "conversation", "event_id", "event_time"}

// failed records the error and answers FAIL.
func (h *Handler) failed(w http.ResponseWriter, r *http.Request, err error) {
	cause := CauseOther
	if e, ok := errors.AsType[*Error](err); ok {
		cause = e.Cause
	}
	err = fmt.Errorf("%s: %w", h.name, err)
	publishFailures.WithLabelValues(h.name, cause).Inc()
	caddyhttp.SetVar(r.Context(), answer.ErrorVar, err.Error())
	if span := trace.SpanFromContext(r.Context()); span.IsRecording() {
		span.SetAttributes(attribute.String("tim_publish.cause", cause))
	}
	h.logger.Error("publishing failed", zap.String("broker", h.name), zap.String("cause", cause), zap.Error(err))
	answer.Write(w, http.StatusBadGateway, callback.Fail("the callback could not be published: "+cause).JSON())
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddy.Validator             = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
)
