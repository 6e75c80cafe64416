// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

// Package postgres stores callbacks in PostgreSQL, which any number of guards can
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

// Store keeps stored callbacks in PostgreSQL, or in YugabyteDB by the same
// protocol. Any guard that shares the database delivers what another of the same
// name stored.
type Store struct {
	// The connection string or URL, which may be a placeholder such as
	// `{env.DATABASE_URL}`. The database, or the schema in its search_path, must be
	// for this alone: the maintenance takes every job there for one of its own.
	// `pool_max_conns` in it is how many connections are opened at most. Default: 8.
	DSN string `json:"dsn,omitempty"`

	resolved string // unexported, because it holds a password
}

// CaddyModule returns the Caddy module information.
func (Store) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "tim_delivery.stores.postgres",
		New: func() caddy.Module { return new(Store) },
	}
}

// Provision replaces placeholders.
func (s *Store) Provision(caddy.Context) (err error) {
	if s.DSN == "" {
		return errors.New("store postgres: want a connection string, such as {env.DATABASE_URL}")
	}
	if s.resolved, err = caddy.NewReplacer().ReplaceOrErr(s.DSN, true, true); err != nil {
		return fmt.Errorf("store postgres: %w; the environment of the running server counts: a reload cannot bring it a new variable", err)
	}
	return nil
}

// Key tells the database from others.
func (s *Store) Key() string { return s.resolved }

// UnmarshalCaddyfile sets up the store from Caddyfile tokens. Syntax:
//
//	store postgres <dsn>
func (s *Store) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume store name
	if !d.AllArgs(&s.DSN) || s.DSN == "" {
		return d.Errf("store: want sqlite [<path>] or postgres <dsn>")
	}
	return nil
}

// Open prepares a pool. It does not connect.
func (s *Store) Open(logger *slog.Logger) (outbox.Store, error) { return Open(s.resolved, logger) }

// leastConnections are for putting, fetching, completing and looking at the same
// time, and as many to spare.
const leastConnections = 8

// Open prepares a pool for dsn. It does not connect.
func Open(dsn string, logger *slog.Logger) (outbox.Store, error) {
	config, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		// pgx's own words can hold the DSN, and with it the password.
		return outbox.Store{}, errors.New("postgres: malformed DSN")
	}
	if !namesPoolSize(dsn) {
		config.MaxConns = max(config.MaxConns, leastConnections)
	}
	if config.ConnConfig.ConnectTimeout == 0 {
		config.ConnConfig.ConnectTimeout = 3 * time.Second
	}
	pool, err := pgxpool.NewWithConfig(context.Background(), config)
	if err != nil {
		return outbox.Store{}, errors.New("postgres: unusable DSN")
	}
	driver := riverpgxv5.New(pool)
	store, err := outbox.NewStore(outbox.Database{
		Remote:   true,
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

// namesPoolSize reports whether the DSN says how many connections there may be.
func namesPoolSize(dsn string) bool {
	if u, err := url.Parse(dsn); err == nil && u.Scheme != "" {
		return u.Query().Has("pool_max_conns")
	}
	return strings.Contains(dsn, "pool_max_conns")
}

// isBadRow tells errors that a row causes from those of the server: class 22 is a
// bad value, class 23 a broken constraint, 54 a limit exceeded.
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
