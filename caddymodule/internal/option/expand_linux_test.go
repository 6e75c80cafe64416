// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package option

import (
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
)

func TestExpandSaysThatAFileMayNotBeRead(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("secret"), 0); err != nil {
		t.Fatal(err)
	}
	// Root could read the file. The ID is the thread's; others cannot set it, and need not.
	runtime.LockOSThread()
	_ = syscall.Setfsuid(65534)
	defer func() { _ = syscall.Setfsuid(os.Getuid()) }()
	want := "{file." + file + "}: permission denied; the user that runs Caddy must be able to read it"
	if _, err := Expand("{file." + file + "}"); err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}
