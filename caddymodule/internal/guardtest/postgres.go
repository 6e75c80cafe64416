// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package guardtest

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

var testSchemas atomic.Int64

// PostgresDSN returns a DSN with a new schema. If an address is given, it replaces that
// of the server.
func PostgresDSN(tb testing.TB, through string) string {
	tb.Helper()
	dsn, _ := PostgresSchema(tb, through)
	return dsn
}

// PostgresSchema is like PostgresDSN, and also returns the name of the schema.
func PostgresSchema(tb testing.TB, through string) (address, schema string) {
	tb.Helper()
	dsn, err := url.Parse(Postgres(tb))
	if err != nil {
		tb.Fatal("TIMGUARD_TEST_POSTGRES is not a URL")
	}
	schema = fmt.Sprintf("caddymodule_%d_%d", os.Getpid(), testSchemas.Add(1))
	ExecPostgres(tb, "CREATE SCHEMA "+schema)
	tb.Cleanup(func() { ExecPostgres(tb, "DROP SCHEMA "+schema+" CASCADE") })
	values := dsn.Query()
	values.Set("search_path", schema)
	dsn.RawQuery = values.Encode()
	if through != "" {
		dsn.Host = through
	}
	return dsn.String(), schema
}

// Postgres returns the DSN of the test server. It skips the test if there is none.
func Postgres(tb testing.TB) string {
	tb.Helper()
	dsn := os.Getenv("TIMGUARD_TEST_POSTGRES")
	if dsn == "" {
		tb.Skip("TIMGUARD_TEST_POSTGRES is not set")
	}
	return dsn
}

// ExecPostgres executes a statement.
func ExecPostgres(tb testing.TB, statement string) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, Postgres(tb))
	if err != nil {
		tb.Fatal(err)
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, statement); err != nil {
		tb.Fatal(err)
	}
}

// QueryPostgres returns the first value of the result of a statement, as text.
func QueryPostgres(tb testing.TB, dsn, statement string) (value string) {
	tb.Helper()
	value, err := queryPostgres(dsn, statement)
	if err != nil {
		tb.Fatal(err)
	}
	return value
}

func queryPostgres(dsn, statement string) (value string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return "", err
	}
	defer conn.Close(ctx)
	results, err := conn.PgConn().Exec(ctx, statement).ReadAll()
	if err == nil && len(results) > 0 && len(results[0].Rows) > 0 {
		value = string(results[0].Rows[0][0])
	}
	return value, err
}
