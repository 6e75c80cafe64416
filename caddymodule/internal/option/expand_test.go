// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package option

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestExpandNamesPlaceholdersButNoSecrets(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("from a file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]struct{ value, err, without string }{
		"plain":                                  {"plain", "", ""},
		"{file." + file + "}":                    {"from a file", "", ""},
		`a\{b\}`:                                 {"a{b}", "", ""},
		"{env.TIMGUARD_TEST_UNSET}":              {"", "TIMGUARD_TEST_UNSET", ""},
		"postgres://u:{env.TIMGUARD_UNSET}@h/db": {"", "TIMGUARD_UNSET", "postgres"},
		"postgres://u:pa{ss}word@h/db":           {"", "literal brace", "ss}"},
	} {
		value, err := Expand(text)
		switch {
		case want.err == "" && (err != nil || value != want.value):
			t.Errorf("%s: %q, %v", text, value, err)
		case want.err != "" && (err == nil || !strings.Contains(err.Error(), want.err) || want.without != "" && strings.Contains(err.Error(), want.without)):
			t.Errorf("%s: %v, want %q", text, err, want.err)
		}
	}
}
