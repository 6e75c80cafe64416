// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

// Package sqlite stores callbacks in an SQLite file, using modernc.org/sqlite.
package sqlite

import (
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/riverqueue/river/riverdriver/riversqlite"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/timguard/timguard/caddymodule/delivery"
	"github.com/timguard/timguard/caddymodule/internal/option"
	"github.com/timguard/timguard/caddymodule/outbox"
)

func init() {
	caddy.RegisterModule(Store{})
}

// Store stores callbacks in an SQLite file. The file cannot be shared by several instances of
// Caddy: each holds a lock on it, in a file of the same name with `.lock` behind it.
type Store struct {
	// The path of the file, in which placeholders such as `{env.STATE_DIRECTORY}` are
	// expanded at load. The file and its directory are created if missing, and are
	// accessible only to Caddy's user. Default: tim_callback/deliveries.db in Caddy's data
	// directory.
	Path string `json:"path,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (Store) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "tim_delivery.stores.sqlite",
		New: func() caddy.Module { return new(Store) },
	}
}

// Provision replaces placeholders.
func (s *Store) Provision(caddy.Context) (err error) {
	if s.Path == "" {
		s.Path = filepath.Join(caddy.AppDataDir(), "tim_callback", "deliveries.db")
	}
	if s.Path, err = option.Expand(s.Path); err != nil {
		return fmt.Errorf("store sqlite: %w", err)
	}
	s.Path, err = filepath.Abs(s.Path) // by which the open store is found again after a reload
	return err
}

// Key implements [delivery.Store].
func (s *Store) Key() string { return s.Path }

// Location implements [delivery.Store].
func (s *Store) Location() string { return s.Path }

// Exists implements [delivery.Store].
func (s *Store) Exists() bool {
	_, err := os.Stat(s.Path)
	return err == nil
}

// UnmarshalCaddyfile sets up the store from Caddyfile tokens. Syntax:
//
//	store sqlite [<path>]
func (s *Store) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume store name
	if d.NextArg() {
		s.Path = d.Val()
	}
	if d.NextArg() {
		return d.Errf("store sqlite: want at most one path, but got %q as well", d.Val())
	}
	if d.NextBlock(0) {
		return d.Errf("store sqlite takes no block")
	}
	return nil
}

// database describes SQLite, which has one writer and stores times as text.
var database = outbox.Database{
	IsBadRow:   isBadRow,
	SelectJSON: selectJSON,
	Time:       "strftime('%%Y-%%m-%%dT%%H:%%M:%%fZ', %s)",
	Arguments:  "json_remove(args, '$.body', '$.sealed')",
	Errors:     "json(errors)",
	Exclusive:  true,
	Schedule: "UPDATE river_job SET state = 'available' WHERE id IN (SELECT id FROM river_job" +
		" WHERE state IN ('retryable', 'scheduled') AND scheduled_at <= datetime($1, 'subsec') ORDER BY scheduled_at, id LIMIT 5000)",
}

func selectJSON(query string, columns, jsonColumns []string) string {
	var pairs []string
	for _, c := range columns {
		pairs = append(pairs, fmt.Sprintf("'%s', %s", c, c))
	}
	for _, c := range jsonColumns {
		pairs = append(pairs, fmt.Sprintf("'%s', json(%s)", c, c)) // the JSON of a subquery is text
	}
	return "SELECT json_group_array(json_object(" + strings.Join(pairs, ", ") + ")) FROM (" + query + ")"
}

// Open implements [delivery.Store].
func (s *Store) Open(logger *slog.Logger) (outbox.Store, error) { return Open(s.Path, logger) }

// Open opens the file, or creates it if missing.
func Open(path string, logger *slog.Logger) (outbox.Store, error) {
	return open(path, logger, driverConnector)
}

func open(path string, logger *slog.Logger, connect newConnector) (store outbox.Store, err error) {
	if err := createFile(path); err != nil {
		return outbox.Store{}, err
	}
	unlock, err := lock(path)
	if err != nil {
		return outbox.Store{}, err
	}
	defer func() {
		if err != nil {
			unlock()
		}
	}()
	// SQLite has one writer. All writers share one connection and wait for it in
	// Go, which is fair and immediate; several connections would wait for each other
	// by sleeping.
	writer, err := openPreparing(dsn(path, "immediate", mustWrite), connect)
	if err != nil {
		return outbox.Store{}, err
	}
	writer.SetMaxOpenConns(1)
	// Readers see a snapshot and do not block writers.
	reader, err := sql.Open("sqlite", dsn(path, "deferred"))
	if err != nil {
		_ = writer.Close()
		return outbox.Store{}, err
	}
	reader.SetMaxOpenConns(4)
	reader.SetConnMaxLifetime(time.Minute) // connections to a read-only file stay read-only
	d := database
	d.Close = func() {
		_, _ = reader.Close(), writer.Close()
		unlock()
	}
	d.Check = unchanged(path)
	store, err = outbox.NewStore(d, riversqlite.New(writer), riversqlite.New(reader), logger)
	if err != nil {
		_, _ = reader.Close(), writer.Close()
	}
	return store, err
}

// unchanged returns a function that returns an error if the file has been removed or
// replaced: whatever is committed then is lost with the old file.
func unchanged(path string) func() error {
	opened, err := os.Stat(path)
	if err != nil {
		return func() error { return err }
	}
	return func() error {
		now, err := os.Stat(path)
		if err != nil {
			return fmt.Errorf("sqlite: the file was removed; restart the server to create a new one: %w", err)
		}
		if !os.SameFile(opened, now) {
			return fmt.Errorf("sqlite: the file %s was replaced; restart the server to open it", path)
		}
		return nil
	}
}

// mustWrite is a pragma that makes opening a connection fail if the file is read-only,
// by writing the value that is already there. Otherwise, SQLite would open the file
// for reading, and the connection would stay read-only when the file becomes writable
// again.
const mustWrite = "user_version(0)"

// dsn returns the data source name of connections to path.
func dsn(path, txlock string, pragmas ...string) string {
	q := url.Values{
		"mode":    {"rw"}, // a connection must not create another file where the store's was
		"_txlock": {txlock},
		"_pragma": append([]string{
			"busy_timeout(2000)",
			"journal_mode(WAL)",
			// With less than FULL, commits in WAL mode are not synced, so an
			// acknowledged callback could be lost in a power failure.
			"synchronous(FULL)",
			"wal_autocheckpoint(4000)",
			"journal_size_limit(67108864)",
			"cache_size(-32768)",
		}, pragmas...),
	}
	return (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: q.Encode()}).String()
}

// createFile creates the file and its directory if missing. They are accessible only to
// the current user, because bodies contain user data. SQLite's -wal and -shm files get
// the mode of the file.
func createFile(path string) error {
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

// isBadRow implements [outbox.Database].
func isBadRow(err error) bool {
	e, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		return false
	}
	switch e.Code() & 0xff {
	case sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_MISMATCH:
		return true
	}
	return false
}

// Interface guards
var (
	_ caddy.Provisioner     = (*Store)(nil)
	_ caddyfile.Unmarshaler = (*Store)(nil)
	_ delivery.Store        = (*Store)(nil)
)
