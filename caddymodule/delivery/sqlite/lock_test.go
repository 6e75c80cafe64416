// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package sqlite

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// On Windows, nothing but the lock itself can read or write the first byte.
func TestTheLockNamesItsProcessBehindTheFirstByte(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "test.db")
	if err := os.WriteFile(path+".lock", []byte("#12345678901"), 0o600); err != nil {
		t.Fatal(err)
	}
	unlock, err := lock(path)
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("is open in another process with the ID %d;", os.Getpid())
	if _, err := lock(path); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("the second lock: %v, want %q", err, want)
	}
	unlock()
	if text, err := os.ReadFile(path + ".lock"); err != nil || text[0] != '#' {
		t.Errorf("the lock file is %q, %v: its first byte was written", text, err)
	}
	unlock, err = lock(path)
	if err != nil {
		t.Fatal(err)
	}
	unlock()
}
