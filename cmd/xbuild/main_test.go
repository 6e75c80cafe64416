// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/xcaddy"
)

// The shipped file must build the version of Caddy that go.mod requires, and this
// module from this checkout.
func TestConfigMatchesGoMod(t *testing.T) {
	caddyVersion, err := goModVersion(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	builder, err := loadConfig(filepath.Join("..", "..", "xcaddy.json"), caddyVersion)
	if err != nil {
		t.Fatal(err)
	}

	module := modulePath(t, filepath.Join(root, "go.mod"))
	if len(builder.Plugins) != 1 || builder.Plugins[0].PackagePath != module {
		t.Errorf("plugins %v, want %s alone", builder.Plugins, module)
	}
	want := xcaddy.NewReplace(module, root)
	if len(builder.Replacements) != 1 || builder.Replacements[0] != want {
		t.Errorf("replacements %v, want %v alone", builder.Replacements, want)
	}
}

func TestConfigHasTheVersionOfTheModule(t *testing.T) {
	source, err := os.ReadFile(filepath.Join("..", "..", "timguard.go"))
	if err != nil {
		t.Fatal(err)
	}
	_, version, _ := strings.Cut(string(source), `const Version = "`)
	version, _, found := strings.Cut(version, `"`)
	config, err := os.ReadFile(filepath.Join("..", "..", "xcaddy.json"))
	if err != nil {
		t.Fatal(err)
	}
	if want := ".CustomVersion=timguard v" + version + " on Caddy'"; !found || !strings.Contains(string(config), want) {
		t.Errorf("xcaddy.json has no %q", want)
	}
}

// modulePath returns the module path in the first line of go.mod.
func modulePath(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	line, _, _ := strings.Cut(string(data), "\n")
	path, ok := strings.CutPrefix(line, "module ")
	if !ok {
		t.Fatalf("%s begins with %q", file, line)
	}
	return strings.TrimSpace(path)
}

func TestLoadConfigErrors(t *testing.T) {
	for name, tc := range map[string]struct {
		json string
		want []string // what the message must hold
	}{
		"unknown key":           {`{"caddy_version":"v2.0.0","pluginz":[]}`, []string{"/pluginz", "plugins", "caddy_version"}},
		"unknown key in plugin": {`{"plugins":[{"path":"x"}]}`, []string{"/plugins/0/path", "one of module_path, version"}},
		"other case":            {`{"Caddy_Version":"v2.0.0"}`, []string{"/Caddy_Version", "caddy_version"}},
		"Go-only field":         {`{"Env":["A=b"]}`, []string{"/Env"}},
		"duplicate key":         {`{"caddy_version":"v2.0.0","caddy_version":"v2.0.0"}`, []string{"/caddy_version", "twice"}},
		"nested duplicate key":  {`{"plugins":[{"version":"a","version":"b"}]}`, []string{"/plugins/0/version", "twice"}},
		"second value":          {`{"caddy_version":"v2.0.0"} {}`, []string{"after the closing brace", "remove it"}},
		"stray brace":           {"{\"caddy_version\":\"v2.0.0\"}\n}", []string{"after the closing brace", "remove it"}},
		"wrong type":            {`{"plugins":"x"}`, []string{"/plugins", "string"}},
		"wrong outermost type":  {`[]`, []string{"one JSON object"}},
		"syntax":                {`{"caddy_version":}`, []string{"invalid character"}},
		"empty file":            {``, []string{"EOF"}},
		"no caddy version":      {`{}`, []string{`"caddy_version" is ""`, `write "caddy_version": "v2.0.0"`, "go.mod"}},
		"other caddy version":   {`{"caddy_version":"v2.1.0"}`, []string{`"v2.1.0"`, `write "caddy_version": "v2.0.0"`, "go get", "go.mod"}},
		"plugin without path":   {`{"caddy_version":"v2.0.0","plugins":[{"version":"v1.0.0"}]}`, []string{"plugins[0]", "module_path"}},
		"plugin without version": {
			`{"caddy_version":"v2.0.0","plugins":[{"module_path":"example.com/a"}]}`,
			[]string{"plugins[0]", "example.com/a", "v0.0.0", "replacements"},
		},
		"half a replacement": {`{"caddy_version":"v2.0.0","replacements":[{"old":"example.com/a"}]}`, []string{"replacements[0]", `"new"`}},
	} {
		t.Run(name, func(t *testing.T) {
			file := writeConfig(t, tc.json)
			_, err := loadConfig(file, "v2.0.0")
			if err == nil {
				t.Fatal("accepted")
			}
			for _, want := range append(tc.want, file) {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q lacks %q", err, want)
				}
			}
		})
	}
}

func TestLoadConfigPaths(t *testing.T) {
	file := writeConfig(t, `{
		"caddy_version": "v2.0.0",
		"replacements": [
			{"old": "example.com/a", "new": "."},
			{"old": "example.com/b", "new": "../b"},
			{"old": "example.com/c", "new": "/c"},
			{"old": "example.com/d", "new": "example.com/e v1.0.0"}
		],
		"embed_dir": [{"dir": "site"}],
		"pgo_profile": "cpu.pgo",
		"timeout_build": 60000000000
	}`)
	builder, err := loadConfig(file, "v2.0.0")
	if err != nil {
		t.Fatal(err)
	}

	dir := filepath.Dir(file)
	for i, want := range []string{dir, filepath.Join(filepath.Dir(dir), "b"), "/c", "example.com/e v1.0.0"} {
		if got := string(builder.Replacements[i].New); got != want {
			t.Errorf("replacement %d: %s, want %s", i, got, want)
		}
	}
	if got, want := builder.EmbedDirs[0].Dir, filepath.Join(dir, "site"); got != want {
		t.Errorf("embed_dir: %s, want %s", got, want)
	}
	if got, want := builder.PgoProfile, filepath.Join(dir, "cpu.pgo"); got != want {
		t.Errorf("pgo_profile: %s, want %s", got, want)
	}
	if got := builder.TimeoutBuild.Minutes(); got != 1 {
		t.Errorf("timeout_build: %v min, want 1", got)
	}
}

func writeConfig(t *testing.T, content string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "xcaddy.json")
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
