// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package guardtest

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig"
)

var update = flag.Bool("update", false, "update the JSON in the golden files")

// CaddyfilesAdapt tests the golden files in testdata/caddyfile_adapt. Each consists of a
// Caddyfile, a line of dashes, and either the adapted JSON, or lines that the error,
// which must have its position, contains.
func CaddyfilesAdapt(t *testing.T) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", "caddyfile_adapt", "*.caddyfiletest"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".caddyfiletest"), func(t *testing.T) {
			t.Parallel()
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			caddyfile, want, found := strings.Cut(string(data), "\n----------\n")
			if want = strings.TrimSpace(want); !found || want == "" {
				t.Fatal("want a Caddyfile, a line of ten dashes, and JSON or an error")
			}
			got, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(caddyfile+"\n"), nil)
			if !strings.HasPrefix(want, "{") {
				wantAdaptError(t, err, want)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for _, w := range warnings {
				t.Errorf("warning: %s", w)
			}
			if pretty := indented(t, got); *update {
				golden := caddyfile + "\n----------\n" + pretty + "\n"
				if err := os.WriteFile(file, []byte(golden), 0o600); err != nil {
					t.Fatal(err)
				}
			} else if pretty != want {
				t.Errorf("adapts to\n%s\nwant\n%s", pretty, want)
			}
		})
	}
}

func wantAdaptError(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want %s", want)
	}
	for line := range strings.Lines(want + "\nat Caddyfile:") {
		if line = strings.TrimSpace(line); !strings.Contains(err.Error(), line) {
			t.Errorf("error  %v\nwant   %s", err, line)
		}
	}
}

func indented(t *testing.T, data []byte) string {
	t.Helper()
	var buf bytes.Buffer
	if err := json.Indent(&buf, data, "", "\t"); err != nil {
		t.Fatal(err)
	}
	return buf.String()
}
