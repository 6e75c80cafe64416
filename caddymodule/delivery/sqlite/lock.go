// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package sqlite

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/gofrs/flock"
)

// lock locks the database for this process until unlock is called, or the process ends.
// SQLite itself would let another one in, which would take running attempts for lost.
func lock(path string) (unlock func(), err error) {
	name := path + ".lock"
	l := flock.New(name, flock.SetPermissions(0o600))
	switch locked, err := l.TryLock(); {
	case err != nil:
		return nil, fmt.Errorf("sqlite: locking: %w", err)
	case !locked:
		return nil, fmt.Errorf("sqlite: %s is open in another process%s; each Caddy needs a file of its own, or a store that can be shared, such as postgres",
			path, holder(name))
	}
	// The ID is for the error above only.
	if err := os.WriteFile(name, []byte(strconv.Itoa(os.Getpid())), 0o600); err != nil {
		_ = l.Unlock()
		return nil, fmt.Errorf("sqlite: locking: %w", err)
	}
	return func() { _ = l.Unlock() }, nil
}

// holder returns the process ID in a lock file, as a part of an error.
func holder(name string) string {
	text, err := os.ReadFile(name)
	if id := strings.TrimSpace(string(text)); err == nil && id != "" {
		return " with the ID " + id
	}
	return ""
}
