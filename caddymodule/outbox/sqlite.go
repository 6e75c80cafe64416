// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package outbox

import (
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riversqlite"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

const sqliteAge = `coalesce((julianday('now') - julianday(min(created_at))) * 86400.0, 0.0)`

// openSQLite opens or makes the file at path.
func openSQLite(path string, log *slog.Logger) (store, error) {
	if path == "" {
		return store{}, errors.New("sqlite: no path")
	}
	if err := makeFile(path); err != nil {
		return store{}, err
	}
	// SQLite has one writer. All that insert and deliver share one connection
	// and wait for it in Go, which is fair and wakes at once; two connections
	// would wait for each other by sleeping.
	writer, err := sql.Open("sqlite", sqliteDSN(path, "immediate", mustWrite))
	if err != nil {
		return store{}, err
	}
	writer.SetMaxOpenConns(1)
	// Readers see a snapshot and hold up nobody.
	reader, err := sql.Open("sqlite", sqliteDSN(path, "deferred"))
	if err != nil {
		_ = writer.Close()
		return store{}, err
	}
	reader.SetMaxOpenConns(4)
	reader.SetConnMaxLifetime(time.Minute) // one that was opened while the file was read-only stays so
	return sqliteStore(writer, reader, log)
}

func sqliteStore(writer, reader *sql.DB, log *slog.Logger) (store, error) {
	s := store{close: func() { _, _ = reader.Close(), writer.Close() }}
	driver, operate := riversqlite.New(writer), riversqlite.New(reader)
	put, err := newClient(driver, log)
	if err == nil {
		s.sqlite, err = newClient(operate, log)
	}
	if err != nil {
		s.close()
		return store{}, err
	}
	s.put, s.operate = put, s.sqlite
	s.newWorker = func(c *river.Config) (client, error) { return river.NewClient(driver, c) }
	s.migrate = migrator(driver, log)
	s.count = counter(operate, sqliteAge)
	s.poison = sqlitePoison
	s.oneWriter = true
	return s, nil
}

// mustWrite writes what is there already. SQLite opens a file that may not be
// written for reading alone, and that connection would stay so after the file has
// become writable again; with this it fails, and the next try makes another.
const mustWrite = "user_version(0)"

// sqliteDSN says how each connection to path is set up.
func sqliteDSN(path, txlock string, pragmas ...string) string {
	q := url.Values{
		"_txlock": {txlock},
		"_pragma": append([]string{
			"busy_timeout(2000)",
			"journal_mode(WAL)",
			// With less than FULL, a commit in WAL mode is not synced, and an
			// answered callback could be lost to a power failure.
			"synchronous(FULL)",
			"wal_autocheckpoint(4000)",
			"journal_size_limit(67108864)",
			"cache_size(-32768)",
		}, pragmas...),
	}
	return (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: q.Encode()}).String()
}

// makeFile makes path and its directory if missing, for this user only: bodies
// are user data. SQLite gives its -wal and -shm files the mode of the file.
func makeFile(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		f, err = os.OpenFile(path, os.O_RDWR, 0)
	}
	if err != nil {
		return fmt.Errorf("sqlite: %w", err)
	}
	return f.Close()
}

// sqlitePoison tells errors that a row causes from those of the file.
func sqlitePoison(err error) bool {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.Code() & 0xff {
	case sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_MISMATCH:
		return true
	}
	return false
}
