// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package sqlite

import (
	"errors"
	"fmt"
	"io"
	"os"
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
	_ = writeID(name) // the error above does without
	return func() { _ = l.Unlock() }, nil
}

// The process ID, which is for the error above only, is behind the first byte of the lock file.
// That byte is what is locked on Windows, where it can then be neither read nor written.
const (
	idOffset = 1
	idWidth  = 20
)

// writeID writes the ID of this process into a lock file, over that of an earlier one.
func writeID(name string) error {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(fmt.Appendf(nil, "%-*d", idWidth, os.Getpid()), idOffset)
	return errors.Join(err, f.Close())
}

// holder returns the process ID in a lock file, as a part of an error.
func holder(name string) string {
	f, err := os.Open(name)
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(io.NewSectionReader(f, idOffset, idWidth))
	if id := strings.TrimSpace(string(text)); err == nil && id != "" {
		return " with the ID " + id
	}
	return ""
}
