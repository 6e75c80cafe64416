// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package publish_test

import (
	"context"
	"encoding/json"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/caddyserver/caddy/v2"

	"github.com/timguard/timguard/caddymodule/internal/guardtest"
	"github.com/timguard/timguard/caddymodule/publish"
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

func TestSpanHasTheCauseOfAFailure(t *testing.T) {
	t.Parallel()
	well, ill := provisioned(t, toKafka(cluster(t))), provisioned(t, "tim_publish kafka "+guardtest.FreePort(t)+" {\ntopic x\n}")
	for name, tt := range map[string]struct {
		handler   handler
		recording bool
		want      map[string]string
	}{
		"published":     {well, true, nil},
		"failed":        {ill, true, map[string]string{"tim_publish.cause": "unreachable"}},
		"not recording": {ill, false, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &span{recording: tt.recording, attributes: make(map[string]string)}
			tt.handler.publish(trace.ContextWithSpan(t.Context(), s), "{}")
			if !maps.Equal(s.attributes, tt.want) {
				t.Errorf("attributes %v, want %v", s.attributes, tt.want)
			}
		})
	}
}

// A body that cannot be read whole is not published, whatever the guard allows.
func TestBodyThatCannotBeReadIsNotPublished(t *testing.T) {
	t.Parallel()
	c := cluster(t)
	h := provisioned(t, toKafka(c))
	h.publish(t.Context(), strings.Repeat("x", 16<<20+1)).wantFailed(t, "too_large", "kafka: reading the body: http: request body too large")
	cut := io.MultiReader(strings.NewReader("{"), iotest.ErrReader(io.ErrUnexpectedEOF))
	h.publishFrom(t.Context(), cut).wantFailed(t, "other", "kafka: reading the body: unexpected EOF")
	if n := len(records(t, c.ListenAddrs()[0])); n > 0 {
		t.Errorf("%d records", n)
	}
}

// load provisions the handler as Caddy does.
func load(t *testing.T, config string) error {
	t.Helper()
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	defer cancel()
	_, err := ctx.LoadModuleByID("http.handlers.tim_publish", json.RawMessage(config))
	return err
}

func TestConfigIsValidated(t *testing.T) {
	t.Parallel()
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	const unset = "{env.TIMGUARD_TEST_UNSET}"
	const hint = "it must have a value in the environment or files of the running server: a reload cannot add environment variables"
	kafka := func(more string) string {
		return `{"broker":{"module":"kafka","brokers":["10.0.0.7:9092"],` + more + `}}`
	}
	amqp := func(more string) string { return `{"broker":{"module":"amqp",` + more + `}}` }
	for name, tt := range map[string]struct {
		config string
		want   []string // in the error; none if there is none
	}{
		"kafka":               {kafka(`"topic":"x"`), nil},
		"amqp":                {amqp(`"url":"amqp://guard:guard-secret@10.0.0.8","exchange":"x"`), nil},
		"no broker":           {`{}`, []string{"tim_publish: want a broker, one of amqp, kafka"}},
		"unknown broker":      {`{"broker":{"module":"nats"}}`, []string{"tim_publish nats: ", "unknown module: tim_publish.brokers.nats"}},
		"negative timeout":    {`{"timeout":-1,"broker":{"module":"kafka","brokers":["10.0.0.7:9092"],"topic":"x"}}`, []string{"tim_publish: timeout must be positive"}},
		"reserved header":     {`{"headers":{"class":"x"},"broker":{"module":"kafka","brokers":["10.0.0.7:9092"],"topic":"x"}}`, []string{"tim_publish: header class is set for each message already"}},
		"nameless header":     {`{"headers":{"":"x"},"broker":{"module":"kafka","brokers":["10.0.0.7:9092"],"topic":"x"}}`, []string{"tim_publish: header: want a name"}},
		"Sign in a header":    {`{"headers":{"x":"{http.request.orig_uri.query:none}"},"broker":{"module":"kafka","brokers":["10.0.0.7:9092"],"topic":"x"}}`, []string{"header x: {http.request.orig_uri.query:none} contains the Sign"}},
		"Sign in a topic":     {kafka(`"topic":"{http.request.uri.query.Sign}"`), []string{"topic: {http.request.uri.query.Sign} contains the Sign"}},
		"no topic":            {kafka(`"key":"x"`), []string{"tim_publish kafka: ", "topic is missing: want topic <topic>"}},
		"no address":          {`{"broker":{"module":"kafka","topic":"x"}}`, []string{"want the address of a broker, such as 10.0.0.7:9092"}},
		"bad address":         {`{"broker":{"module":"kafka","brokers":["10.0.0.7:x:y"],"topic":"x"}}`, []string{`broker "10.0.0.7:x:y": want an address with a port, such as 10.0.0.7:9092`}},
		"no port":             {`{"broker":{"module":"kafka","brokers":["10.0.0.7"],"topic":"x"}}`, []string{`broker "10.0.0.7": want an address with a port`}},
		"several addresses":   {`{"broker":{"module":"kafka","brokers":["10.0.0.7:9092, [::1]:9092"],"topic":"x"}}`, nil},
		"unset address":       {`{"broker":{"module":"kafka","brokers":["` + unset + `"],"topic":"x"}}`, []string{"broker: ", "env.TIMGUARD_TEST_UNSET", hint}},
		"unset password":      {kafka(`"topic":"x","sasl":{"mechanism":"plain","user":"guard","password":"` + unset + `"}`), []string{"sasl: ", "env.TIMGUARD_TEST_UNSET", hint}},
		"no password":         {kafka(`"topic":"x","sasl":{"mechanism":"plain","user":"guard"}`), []string{"sasl: want a mechanism, a user and a password"}},
		"no certificate file": {kafka(`"topic":"x","tls":{"ca":"/no/such.pem"}`), []string{"tls: open /no/such.pem: no such file"}},
		"no certificates":     {kafka(`"topic":"x","tls":{"ca":"` + empty + `"}`), []string{"tls: " + empty + " contains no certificate in PEM"}},
		"unset certificates":  {kafka(`"topic":"x","tls":{"ca":"` + unset + `"}`), []string{"tls: ", hint}},
		"no URL":              {amqp(`"exchange":"x"`), []string{"tim_publish amqp: ", "want one URL, such as {env.AMQP_URL}"}},
		"unset URL":           {amqp(`"url":"` + unset + `","exchange":"x"`), []string{"url: ", hint}},
		"unset exchange":      {amqp(`"url":"amqp://10.0.0.8","exchange":"` + unset + `"`), []string{"exchange: ", hint}},
		"malformed URL":       {amqp(`"url":"amqp://guard:guard-secret@10.0.0.8:x","exchange":"x"`), []string{"malformed URL: want amqp://<user>:<password>@<host>[:<port>][/<vhost>]"}},
		"URL of HTTP":         {amqp(`"url":"http://guard:guard-secret@10.0.0.8","exchange":"x"`), []string{"malformed URL"}},
		"no exchange":         {amqp(`"url":"amqp://10.0.0.8"`), []string{"want an exchange, or a routing_key, which then is the name of a queue"}},
		"tls without amqps":   {amqp(`"url":"amqp://10.0.0.8","exchange":"x","tls":{}`), []string{"tls needs a URL that begins with amqps://"}},
		"no such file":        {amqp(`"url":"amqps://10.0.0.8","exchange":"x","tls":{"ca":"/no/such.pem"}`), []string{"tls: open /no/such.pem: no such file"}},
		"Sign as routing key": {amqp(`"url":"amqp://10.0.0.8","routing_key":"{http.request.uri}"`), []string{"routing_key: {http.request.uri} contains the Sign"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := load(t, tt.config)
			if (err == nil) != (tt.want == nil) {
				t.Fatalf("error %v, want %v", err, tt.want)
			}
			for _, text := range tt.want {
				if !strings.Contains(err.Error(), text) {
					t.Errorf("error %q, want %s", err, text)
				}
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("error %q has the password", err)
			}
		})
	}
}

// Placeholders that have nothing of the Sign can be published.
func TestTextWithoutTheSignMayBePublished(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"x", "{http.request.uri.path}", "{http.request.uri.query.ClientIP}", "{http.tim_callback.conversation}", "{http.request.host}"} {
		if err := publish.CheckText("key", text); err != nil {
			t.Error(err)
		}
	}
}
