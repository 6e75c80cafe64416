// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddytest"

	"github.com/timguard/timguard/caddymodule/callback"
	"github.com/timguard/timguard/caddymodule/internal/guardtest"
)

func exampleCaddyfile(t *testing.T) []byte {
	t.Helper()
	example, err := os.ReadFile(filepath.Join("..", "Caddyfile.example"))
	if err != nil {
		t.Fatal(err)
	}
	return example
}

func TestExampleIsFormattedAndAdaptsWithoutWarnings(t *testing.T) {
	t.Parallel()
	example := exampleCaddyfile(t)
	if !bytes.Equal(caddyfile.Format(example), example) {
		t.Error("caddy fmt would change Caddyfile.example")
	}
	_, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt(example, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range warnings {
		t.Errorf("adapting Caddyfile.example: %s", w)
	}
}

// uncommented returns the production site in the comments at the end of the example.
func uncommented(example []byte) []byte {
	var site bytes.Buffer
	inside := false
	for line := range strings.Lines(string(example)) {
		text, isComment := strings.CutPrefix(line, "# ")
		inside = inside || isComment && strings.HasSuffix(text, " {\n")
		if inside && isComment {
			site.WriteString(text)
		} else if inside && line == "#\n" {
			site.WriteString("\n")
		}
	}
	return site.Bytes()
}

func TestProductionSiteOfExampleAdapts(t *testing.T) {
	t.Parallel()
	site := uncommented(exampleCaddyfile(t))
	if !bytes.Contains(site, []byte("tim_callback")) {
		t.Fatalf("no site stands in the comments: %q", site)
	}
	if !bytes.Equal(caddyfile.Format(site), site) {
		t.Errorf("caddy fmt would change the production site:\n%s", site)
	}
	if _, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt(site, nil); err != nil || len(warnings) > 0 {
		t.Errorf("error %v, warnings %v", err, warnings)
	}
}

func TestEndToEndExampleRuns(t *testing.T) {
	t.Setenv("TIM_CALLBACK_TOKEN", guardtest.Token)
	t.Setenv("XDG_DATA_HOME", t.TempDir())
	config := string(exampleCaddyfile(t))
	config = strings.Replace(config, "\n{\n", "\n{\n\tadmin localhost:2999\n\tgrace_period 1ns\n\tskip_install_trust\n", 1)
	config = strings.NewReplacer(":8080", ":9080", ":8081", ":9081").Replace(config)
	http.DefaultClient.CloseIdleConnections()
	caddytest.NewTester(t).InitServer(config, "caddyfile")
	if t.Failed() {
		t.FailNow()
	}
	t.Cleanup(func() { // closes the store; other tests count goroutines
		const nothing = `{"admin":{"listen":"localhost:2999"}}`
		if err := caddy.Load([]byte(nothing), false); err != nil {
			t.Error(err)
		}
		stacks := make([]byte, 1<<20)
		for bytes.Contains(stacks[:runtime.Stack(stacks, true)], []byte("caddymodule/outbox.")) {
			time.Sleep(10 * time.Millisecond)
		}
	})
	p := protocols(t)[0]
	p.send(t, request{path: "/callback", query: goodQuery(), body: recallBody(t)}).wantOK(t)
	p.send(t, request{path: "/callback", query: guardtest.Query(guardtest.App, callback.RecallCommand, guardtest.Signed("x", time.Now())), body: recallBody(t)}).
		wantRefused(t, 401, callback.ReasonSign)
}
