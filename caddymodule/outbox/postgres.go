// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package outbox

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
)

const postgresAge = `coalesce(extract(epoch FROM now() - min(created_at))::float8, 0)`

// openPostgres prepares a pool for dsn. It does not connect.
func openPostgres(dsn string, log *slog.Logger) (store, error) {
	config, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		// pgx's own words can hold the DSN, and with it the password.
		return store{}, errors.New("postgres: malformed DSN")
	}
	// Putting, fetching, completing and looking at the same time, and a spare.
	config.MaxConns = max(config.MaxConns, 8)
	if config.ConnConfig.ConnectTimeout == 0 {
		config.ConnConfig.ConnectTimeout = 3 * time.Second
	}
	pool, err := pgxpool.NewWithConfig(context.Background(), config)
	if err != nil {
		return store{}, errors.New("postgres: unusable DSN")
	}
	driver := riverpgxv5.New(pool)
	put, err := newClient(driver, log)
	if err != nil {
		pool.Close()
		return store{}, err
	}
	return store{
		put: put, operate: put, postgres: put,
		newWorker: func(c *river.Config) (client, error) { return river.NewClient(driver, c) },
		migrate:   migrator(driver, log),
		count:     counter(driver, postgresAge),
		poison:    postgresPoison,
		close:     pool.Close,
	}, nil
}

// postgresPoison tells errors that a row causes from those of the server: class
// 22 is a bad value, class 23 a broken constraint, 54 a limit exceeded.
func postgresPoison(err error) bool {
	var e *pgconn.PgError
	if !errors.As(err, &e) {
		return false
	}
	return strings.HasPrefix(e.Code, "22") || strings.HasPrefix(e.Code, "23") || strings.HasPrefix(e.Code, "54")
}
