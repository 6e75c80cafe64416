// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

// Package postgres stores callbacks in PostgreSQL, which several instances of Caddy can
// share.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/timguard/timguard/caddymodule/delivery"
	"github.com/timguard/timguard/caddymodule/outbox"
)

func init() {
	caddy.RegisterModule(Store{})
}

// Store stores callbacks in PostgreSQL, or in a compatible database such as YugabyteDB.
// Guards with the same name that share the database deliver each other's callbacks.
type Store struct {
	// The connection string or URL. It may be a placeholder such as
	// `{env.DATABASE_URL}`. The database, or the schema in its search_path, must not
	// contain any other River jobs, which would be maintained as callbacks. The
	// parameter `pool_max_conns` is the maximum number of connections. Default: 8.
	DSN string `json:"dsn,omitempty"`

	resolved string // unexported, because it holds a password
	config   *pgxpool.Config
}

// CaddyModule returns the Caddy module information.
func (Store) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "tim_delivery.stores.postgres",
		New: func() caddy.Module { return new(Store) },
	}
}

// Provision replaces placeholders and parses the connection string. It does not connect.
func (s *Store) Provision(caddy.Context) (err error) {
	if s.DSN == "" {
		return errors.New("store postgres: want a connection string, such as {env.DATABASE_URL}")
	}
	if s.resolved, err = caddy.NewReplacer().ReplaceOrErr(s.DSN, true, true); err != nil {
		return fmt.Errorf("store postgres: %w; it must be set for the running server: a reload cannot add a variable", err)
	}
	s.config, err = parse(s.resolved)
	return err
}

// Key implements [delivery.Store].
func (s *Store) Key() string { return s.resolved }

// Exists implements [delivery.Store].
func (*Store) Exists() bool { return true }

// UnmarshalCaddyfile sets up the store from Caddyfile tokens. Syntax:
//
//	store postgres <dsn>
func (s *Store) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume store name
	if !d.AllArgs(&s.DSN) || s.DSN == "" {
		return d.Errf("store postgres: want one connection string, such as {env.DATABASE_URL}")
	}
	if d.NextBlock(0) {
		return d.Errf("store postgres takes no block")
	}
	return nil
}

// Open implements [delivery.Store].
func (s *Store) Open(logger *slog.Logger) (outbox.Store, error) { return open(s.config, logger) }

// Open returns a store with a connection pool for the DSN. It does not connect yet.
func Open(dsn string, logger *slog.Logger) (outbox.Store, error) {
	config, err := parse(dsn)
	if err != nil {
		return outbox.Store{}, err
	}
	return open(config, logger)
}

// minConnections is the minimum size of the pool, unless the DSN has one. Storing,
// fetching, completing and listing may each need a connection at the same time; the
// rest are spare.
const minConnections = 8

func parse(dsn string) (*pgxpool.Config, error) {
	config, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		// The error of pgx may contain the DSN, and thus the password.
		return nil, errors.New("store postgres: malformed connection string, or a file that it names cannot be read; want postgres://<user>:<password>@<host>/<database>")
	}
	if !hasPoolSize(dsn) {
		config.MaxConns = max(config.MaxConns, minConnections)
	}
	if config.ConnConfig.ConnectTimeout == 0 {
		config.ConnConfig.ConnectTimeout = 3 * time.Second
	}
	return config, nil
}

func open(config *pgxpool.Config, logger *slog.Logger) (outbox.Store, error) {
	pool, err := pgxpool.NewWithConfig(context.Background(), config)
	if err != nil {
		return outbox.Store{}, errors.New("postgres: unusable DSN")
	}
	driver := riverpgxv5.New(pool)
	store, err := outbox.NewStore(outbox.Database{
		IsBadRow: isBadRow,
		SelectJSON: func(query string, _, _ []string) string {
			return "SELECT coalesce(json_agg(j), '[]')::text FROM (" + query + ") j"
		},
		Time:      "to_char(%s AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')",
		Arguments: "args - 'body'",
		Errors:    "to_json(errors)",
		Schedule: "UPDATE river_job SET state = 'available' WHERE id IN (SELECT id FROM river_job" +
			" WHERE state IN ('retryable', 'scheduled') AND scheduled_at <= $1 ORDER BY scheduled_at, id LIMIT 5000 FOR UPDATE SKIP LOCKED)",
		Close: pool.Close,
	}, driver, driver, logger)
	if err != nil {
		pool.Close()
	}
	return store, err
}

// hasPoolSize reports whether the DSN sets the maximum number of connections.
func hasPoolSize(dsn string) bool {
	if u, err := url.Parse(dsn); err == nil && u.Scheme != "" {
		return u.Query().Has("pool_max_conns")
	}
	return strings.Contains(dsn, "pool_max_conns")
}

// isBadRow implements [outbox.Database]. Error class 22 is a data exception, 23 an
// integrity constraint violation, and 54 a program limit exceeded.
func isBadRow(err error) bool {
	e, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (strings.HasPrefix(e.Code, "22") || strings.HasPrefix(e.Code, "23") || strings.HasPrefix(e.Code, "54"))
}

// Interface guards
var (
	_ caddy.Provisioner     = (*Store)(nil)
	_ caddyfile.Unmarshaler = (*Store)(nil)
	_ delivery.Store        = (*Store)(nil)
)
