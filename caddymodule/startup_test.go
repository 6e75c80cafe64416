// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/timguard/timguard/caddymodule/internal/guardtest"
)

// One line at load tells who is let in, and what is done with which commands.
func TestEndToEndStartupShowsWhatTheGuardDoes(t *testing.T) {
	log := site{
		global: "tim_delivery {\nstore sqlite " + t.TempDir() + "/deliveries.db\n}",
		body: "tim_callback 1400000001 {\napp " + guardtest.App + " " + guardtest.Token + " " + guardtest.NewToken +
			"\non before forward {\nfallback forbid\n}\non after deliver {\ncopy archive moderation\n}\n}\nrespond 200",
	}.start(t)
	lines := logLines(t, log, func(line map[string]any) bool { return line["msg"] == "guarding callbacks" })
	for _, line := range lines {
		if line["msg"] != "guarding callbacks" {
			continue
		}
		for field, want := range map[string]string{
			"guard": "default", "mode": "enforce", "store": "sqlite", "consumers": "[archive moderation]",
			"apps":  "[1400000001 unsigned 1400000000 2 tokens]",
			"rules": "[before forward, fallback forbid after deliver, copy archive moderation others reject]",
		} {
			if got := fmt.Sprint(line[field]); got != want {
				t.Errorf("%s is %s, want %s", field, got, want)
			}
		}
	}
	text, err := os.ReadFile(log)
	if err != nil || strings.Contains(string(text), guardtest.Token) || strings.Contains(string(text), guardtest.NewToken) {
		t.Errorf("the log shows a token, or cannot be read: %v", err)
	}
}
