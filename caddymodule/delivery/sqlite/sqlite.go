// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

// Package sqlite stores callbacks in a file, with SQLite (modernc.org/sqlite, in Go).
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
	"github.com/timguard/timguard/caddymodule/outbox"
)

func init() {
	caddy.RegisterModule(Store{})
}

// Store keeps stored callbacks in an SQLite file. It is for one Caddy: another
// process that opens the file delivers its callbacks too.
type Store struct {
	// The file. It and its directory are made if missing, for Caddy's user only.
	// Default: tim_callback/deliveries.db in Caddy's data directory.
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
	if s.Path, err = caddy.NewReplacer().ReplaceOrErr(s.Path, true, true); err != nil {
		return fmt.Errorf("store sqlite: %w; the environment of the running server counts", err)
	}
	return nil
}

// Key tells the file from others.
func (s *Store) Key() string { return s.Path }

// UnmarshalCaddyfile sets up the store from Caddyfile tokens. Syntax:
//
//	store sqlite [<path>]
func (s *Store) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume store name
	if d.NextArg() {
		s.Path = d.Val()
	}
	if d.NextArg() {
		return d.Errf("store: want sqlite [<path>] or postgres <dsn>, but %q stands after the path", d.Val())
	}
	return nil
}

// database says what SQLite is like. SQLite has one writer, and keeps times as text.
var database = outbox.Database{
	OneWriter:  true,
	IsBadRow:   isBadRow,
	SelectJSON: selectJSON,
	Time:       "strftime('%%Y-%%m-%%dT%%H:%%M:%%fZ', %s)",
	Arguments:  "json_remove(args, '$.body')",
	Errors:     "json(errors)",
	Schedule: "UPDATE river_job SET state = 'available' WHERE id IN (SELECT id FROM river_job" +
		" WHERE state IN ('retryable', 'scheduled') AND scheduled_at <= datetime($1, 'subsec') ORDER BY scheduled_at, id LIMIT 5000)",
}

func selectJSON(query string, columns, jsonColumns []string) string {
	var pairs []string
	for _, c := range columns {
		pairs = append(pairs, fmt.Sprintf("'%s', %s", c, c))
	}
	for _, c := range jsonColumns {
		pairs = append(pairs, fmt.Sprintf("'%s', json(%s)", c, c)) // a subquery's JSON is text
	}
	return "SELECT json_group_array(json_object(" + strings.Join(pairs, ", ") + ")) FROM (" + query + ")"
}

// Open opens or makes the file.
func (s *Store) Open(logger *slog.Logger) (outbox.Store, error) { return Open(s.Path, logger) }

// Open opens or makes the file at path.
func Open(path string, logger *slog.Logger) (outbox.Store, error) {
	if err := makeFile(path); err != nil {
		return outbox.Store{}, err
	}
	// SQLite has one writer. All that insert and deliver share one connection
	// and wait for it in Go, which is fair and wakes at once; two connections
	// would wait for each other by sleeping.
	writer, err := sql.Open("sqlite", dsn(path, "immediate", mustWrite))
	if err != nil {
		return outbox.Store{}, err
	}
	writer.SetMaxOpenConns(1)
	// Readers see a snapshot and hold up nobody.
	reader, err := sql.Open("sqlite", dsn(path, "deferred"))
	if err != nil {
		_ = writer.Close()
		return outbox.Store{}, err
	}
	reader.SetMaxOpenConns(4)
	reader.SetConnMaxLifetime(time.Minute) // one that was opened while the file was read-only stays so
	d := database
	d.Close = func() { _, _ = reader.Close(), writer.Close() }
	d.Check = unchanged(path)
	store, err := outbox.NewStore(d, riversqlite.New(writer), riversqlite.New(reader), logger)
	if err != nil {
		d.Close()
	}
	return store, err
}

// unchanged returns a function that returns an error once the file is not there
// any more, or is another one: what is committed then is lost with the old one.
func unchanged(path string) func() error {
	opened, err := os.Stat(path)
	if err != nil {
		return func() error { return err }
	}
	return func() error {
		now, err := os.Stat(path)
		if err != nil {
			return fmt.Errorf("sqlite: the file was removed; restart the server to make another: %w", err)
		}
		if !os.SameFile(opened, now) {
			return fmt.Errorf("sqlite: the file %s was replaced; restart the server to open it", path)
		}
		return nil
	}
}

// mustWrite writes what is there already. SQLite opens a file that may not be
// written for reading alone, and that connection would stay so after the file has
// become writable again; with this it fails, and the next try makes another.
const mustWrite = "user_version(0)"

// dsn says how each connection to path is set up.
func dsn(path, txlock string, pragmas ...string) string {
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

// isBadRow tells errors that a row causes from those of the file.
func isBadRow(err error) bool {
	e, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		return false
	}
	switch e.Code() & 0xff {
	case sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_MISMATCH:
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
