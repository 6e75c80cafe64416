// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/timguard/timguard/caddymodule/callback"
	"github.com/timguard/timguard/caddymodule/internal/guardtest"
)

// span records its attributes.
type span struct {
	noop.Span
	recording  bool
	attributes map[string]string
}

func (s *span) IsRecording() bool { return s.recording }

func (s *span) SetAttributes(attributes ...attribute.KeyValue) {
	for _, a := range attributes {
		s.attributes[string(a.Key)] = a.Value.AsString()
	}
}

// traced serves the request within a span and returns the span's attributes.
func traced(t *testing.T, h *Handler, q request, recording bool) map[string]string {
	t.Helper()
	s := &span{recording: recording, attributes: make(map[string]string)}
	ctx := trace.ContextWithSpan(context.Background(), s)
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/?"+q.query, strings.NewReader(string(q.body)))
	h.record(r, h.judge(r))
	return s.attributes
}

// hashOf returns the event ID of a callback, as the documentation describes it.
func hashOf(app, command string, body []byte) string {
	sum := sha256.Sum256([]byte(app + "\x00" + command + "\x00" + string(body)))
	return hex.EncodeToString(sum[:])
}

func TestSpanHasTheValuesOfTheCall(t *testing.T) {
	t.Parallel()
	h := provisioned(t, &Handler{Apps: []App{{SdkAppID: guardtest.App, Tokens: []string{guardtest.Token}}}})
	for name, tt := range map[string]struct {
		request request
		want    map[string]string
	}{
		"forwarded": {
			request{query: goodQuery(), body: recallBody(t)},
			map[string]string{
				"sdk_app_id": guardtest.App, "command": callback.RecallCommand, "class": "after", "group_id": "1213456",
				"topic_id": "@TGS#_@TGS#cQVLVHIM62CJ@TOPIC#_TestTopic", "operator": "admin", "conversation": "@TGS#_@TGS#cQVLVHIM62CJ@TOPIC#_TestTopic",
				"event_id": hashOf(guardtest.App, callback.RecallCommand, recallBody(t)), "group_type": "Community",
				"event_time": "1670574414123", "msg_seqs": "130", "opt_platform": "RESTAPI", "client_ip": "203.0.113.7", "action": "forward",
			},
		},
		"refused": {
			request{query: guardtest.Query(guardtest.App, beforeSend, guardtest.Signed("guess", time.Now())), body: recallBody(t)},
			map[string]string{
				"sdk_app_id": guardtest.App, "command": beforeSend, "class": "before", "opt_platform": "RESTAPI", "client_ip": "203.0.113.7",
				"action": "reject", "reason": "sign", "path": "Sign",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want := make(map[string]string)
			for key, value := range tt.want {
				want["tim_callback."+key] = value
			}
			if got := traced(t, h, tt.request, true); !maps.Equal(got, want) {
				t.Errorf("attributes %v\nwant       %v", got, want)
			}
			if got := traced(t, h, tt.request, false); len(got) > 0 {
				t.Errorf("a span that does not record has the attributes %v", got)
			}
		})
	}
}

func TestTracingIsOptional(t *testing.T) {
	t.Parallel()
	h := provisioned(t, &Handler{Apps: []App{{SdkAppID: guardtest.App, Tokens: []string{guardtest.Token}}}})
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/?"+goodQuery(), strings.NewReader(string(recallBody(t))))
	c := h.judge(r)
	h.record(r, c)
	if c.rejection != nil || trace.SpanFromContext(r.Context()).IsRecording() {
		t.Errorf("rejection %v", c.rejection)
	}
}
