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
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/timguard/timguard/caddymodule/delivery"
	"github.com/timguard/timguard/caddymodule/internal/option"
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
	// parameter `pool_max_conns` is the maximum number of connections. Default: 8, or
	// the number of CPUs if that is more.
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
	if s.resolved, err = option.Expand(s.DSN); err != nil {
		return fmt.Errorf("store postgres: %w", err)
	}
	s.config, err = parse(s.resolved)
	return err
}

// Key implements [delivery.Store].
func (s *Store) Key() string { return s.resolved }

// Location implements [delivery.Store].
func (s *Store) Location() string {
	hosts := []string{net.JoinHostPort(s.config.ConnConfig.Host, strconv.Itoa(int(s.config.ConnConfig.Port)))}
	for _, f := range s.config.ConnConfig.Fallbacks {
		if host := net.JoinHostPort(f.Host, strconv.Itoa(int(f.Port))); !slices.Contains(hosts, host) {
			hosts = append(hosts, host)
		}
	}
	return strings.Join(hosts, ",") + "/" + s.config.ConnConfig.Database
}

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
	if !hasParameter(dsn, "pool_max_conns") {
		config.MaxConns = max(config.MaxConns, minConnections)
	}
	if !hasParameter(dsn, "default_query_exec_mode") {
		// PgBouncer gives a client another connection for each transaction, on which
		// statements that pgx has prepared are unknown, or exist already.
		config.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeExec
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
		Arguments: "args - 'body' - 'sealed'",
		Errors:    "to_json(errors)",
		Schedule: "UPDATE river_job SET state = 'available' WHERE id IN (SELECT id FROM river_job" +
			" WHERE state IN ('retryable', 'scheduled') AND scheduled_at <= $1 ORDER BY scheduled_at, id LIMIT 5000 FOR UPDATE SKIP LOCKED)",
		Lock:    func(ctx context.Context) (func(), error) { return lock(ctx, pool) },
		Explain: explain,
		Close:   pool.Close,
	}, driver, driver, logger)
	if err != nil {
		pool.Close()
	}
	return store, err
}

// hasParameter reports whether the DSN sets the parameter.
func hasParameter(dsn, name string) bool {
	if u, err := url.Parse(dsn); err == nil && u.Scheme != "" {
		return u.Query().Has(name)
	}
	return strings.Contains(dsn, name)
}

// lockID identifies the advisory lock, together with the schema: stores in other schemas of
// the database are migrated independently.
const lockID = 0x74696d67

// lock holds an advisory lock in a transaction, and thus on one connection of PgBouncer.
func lock(ctx context.Context, pool *pgxpool.Pool) (unlock func(), err error) {
	tx, err := pool.Begin(ctx)
	if err != nil {
		return nil, err
	}
	unlock = func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }
	_, err = tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1, hashtext(coalesce(current_schema(), '')))", int32(lockID))
	if e, ok := errors.AsType[*pgconn.PgError](err); ok && e.Code == "0A000" {
		return unlock, nil // some compatible databases have no advisory locks
	}
	if err != nil {
		unlock()
		return nil, err
	}
	return unlock, nil
}

// explain implements [outbox.Database].
func explain(err error) error {
	if text := err.Error(); strings.Contains(text, "unsupported startup parameter") && strings.Contains(text, "search_path") {
		return errors.New("PgBouncer does not pass search_path on; remove it from the DSN, and set it in the database instead: " +
			"ALTER ROLE <user> IN DATABASE <database> SET search_path = <schema>")
	}
	return err
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
