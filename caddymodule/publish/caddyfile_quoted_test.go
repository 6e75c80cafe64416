// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package publish_test

import (
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"

	_ "github.com/timguard/timguard/caddymodule/publish/amqp"
	_ "github.com/timguard/timguard/caddymodule/publish/kafka"
)

func TestQuotedArgumentsBeforeABlockAdapt(t *testing.T) {
	t.Parallel()
	for name, directive := range map[string]string{
		"URL":           "tim_publish amqp \"amqp://10.0.0.8/\" {\n\t\texchange im\n\t}",
		"broker":        "tim_publish \"kafka\" \"10.0.0.7:9092\" {\n\t\ttopic im\n\t}",
		"last of two":   "tim_publish kafka 10.0.0.7:9092 \"10.0.0.8:9092\" {\n\t\ttopic im\n\t}",
		"backquotes":    "tim_publish amqp `amqp://10.0.0.8/` {\n\t\texchange im\n\t}",
		"and an option": "tim_publish amqp \"amqp://10.0.0.8/\" {\n\t\texchange \"im\"\n\t\ttimeout 1s\n\t}",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			adapted, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(":8080 {\n\t"+directive+"\n}\n"), nil)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(string(adapted), `:"im"`) {
				t.Errorf("the block is lost: %s", adapted)
			}
		})
	}
}
