// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package option

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestExpandNamesPlaceholdersButNoSecrets(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file, empty := filepath.Join(dir, "token"), filepath.Join(dir, "empty")
	if err := errors.Join(os.WriteFile(file, []byte("from a file\n"), 0o600), os.WriteFile(empty, []byte("\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]struct{ value, err, without string }{
		"plain":                                  {"plain", "", ""},
		"{file." + file + "}":                    {"from a file", "", ""},
		`a\{b\}`:                                 {"a{b}", "", ""},
		"{env.TIMGUARD_TEST_UNSET}":              {"", "TIMGUARD_TEST_UNSET", ""},
		"postgres://u:{env.TIMGUARD_UNSET}@h/db": {"", "TIMGUARD_UNSET", "postgres"},
		"postgres://u:pa{ss}word@h/db":           {"", "literal brace", "ss}"},
		"{TOKEN}":                                {"", "unrecognized placeholder {TOKEN}; want {env.NAME} or {file./path}", "environment"},
		"{file.nowhere/token}":                   {"", "{file.nowhere/token}: no such file or directory", "environment"},
		"secret{file.nowhere/token}":             {"", "{file.nowhere/token}: no such file or directory", "secret"},
		"{file." + dir + "}":                     {"", "{file." + dir + "}: is a directory", "environment"},
		"{file." + empty + "}":                   {"", "{file." + empty + "}: the file is empty", "environment"},
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
