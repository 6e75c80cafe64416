// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package sqlite

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/timguard/timguard/caddymodule/outbox"
)

func openTest(t *testing.T) *sql.DB {
	t.Helper()
	db, err := openPreparing(filepath.Join(t.TempDir(), "test.db"), driverConnector)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	db.SetMaxOpenConns(1)
	if _, err := db.Exec("CREATE TABLE t (a); INSERT INTO t VALUES (1), (2)"); err != nil {
		t.Fatal(err)
	}
	return db
}

func values(t *testing.T, rows *sql.Rows, err error) (values []int) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var v int
		if err := rows.Scan(&v); err != nil {
			t.Fatal(err)
		}
		values = append(values, v)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return values
}

func TestAPreparedStatementIsExecutedAgain(t *testing.T) {
	t.Parallel()
	db := openTest(t)
	const query = "SELECT a FROM t WHERE a >= $1 ORDER BY a"
	for _, least := range []int{1, 2, 3, 1} {
		rows, err := db.Query(query, least)
		if got := values(t, rows, err); len(got) != 3-least {
			t.Errorf("from %d: %v", least, got)
		}
	}
	if _, err := db.Exec("ALTER TABLE t ADD COLUMN b"); err != nil {
		t.Fatal(err)
	}
	rows, err := db.Query(query, 1)
	if got := values(t, rows, err); len(got) != 2 {
		t.Errorf("after a change of the table: %v", got)
	}
}

// A statement whose rows are being read is not executed again before they are closed.
func TestAStatementInUseIsLeftAlone(t *testing.T) {
	t.Parallel()
	db := openTest(t)
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	const query = "SELECT a FROM t ORDER BY a"
	outer, err := tx.Query(query)
	if err != nil || !outer.Next() {
		t.Fatal(err)
	}
	inner, err := tx.Query(query)
	if got := values(t, inner, err); len(got) != 2 {
		t.Errorf("inner rows: %v", got)
	}
	if got := values(t, outer, nil); len(got) != 1 || got[0] != 2 {
		t.Errorf("outer rows go on with %v, want 2", got)
	}
}

func TestMoreStatementsThanAreKeptAreExecuted(t *testing.T) {
	t.Parallel()
	db := openTest(t)
	for n := range 2 * maxStatements {
		rows, err := db.Query(fmt.Sprint("SELECT a + ", n, " FROM t ORDER BY a"))
		if got := values(t, rows, err); len(got) != 2 || got[0] != n+1 {
			t.Errorf("statement %d: %v", n, got)
		}
	}
}

// counting counts the statements that the driver prepares.
type counting struct {
	driver.Connector
	prepared *atomic.Int64
}

func (c counting) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return countingConn{conn.(sqliteConn), c.prepared}, nil
}

type countingConn struct {
	sqliteConn
	prepared *atomic.Int64
}

func (c countingConn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	c.prepared.Add(1)
	return c.sqliteConn.PrepareContext(ctx, query)
}

// River must use the statements that are kept, or the rows of each attempt cost a quarter
// more CPU. If an update of River or of the driver goes another way, this fails.
func TestRiversStatementsAreKeptPrepared(t *testing.T) {
	t.Parallel()
	var prepared atomic.Int64
	silent := slog.New(slog.DiscardHandler)
	path := filepath.Join(t.TempDir(), "test.db") // which Windows can remove only after Close
	o := outbox.Open(func() (outbox.Store, error) {
		return open(path, silent, func(dsn string) (driver.Connector, error) {
			c, err := driverConnector(dsn)
			return counting{c, &prepared}, err
		})
	}, silent)
	t.Cleanup(o.Close)
	delivered := make(chan struct{}, 200)
	_, err := o.Work(outbox.WorkConfig{Keep: time.Hour, KeepDead: time.Hour, Queues: map[outbox.Queue]outbox.QueueConfig{
		{Guard: "default"}: {Workers: 1, Timeout: time.Second, Deliver: func(context.Context, outbox.Attempt) error { delivered <- struct{}{}; return nil }},
	}})
	if err != nil {
		t.Fatal(err)
	}
	put := func() {
		t.Helper()
		if _, err := o.Put(t.Context(), &outbox.Callback{Guard: "default", Method: "POST", URI: "/", MaxAttempts: 1}); err != nil {
			t.Fatal(err)
		}
		<-delivered
	}
	<-o.Ready()
	for range 10 {
		put()
	}
	before := prepared.Load()
	for range 100 {
		put()
	}
	if n := prepared.Load() - before; before == 0 || n > 60 {
		t.Errorf("%d statements were prepared for a hundred callbacks, after %d for ten", n, before)
	}
}
