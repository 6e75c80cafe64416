// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package sqlite

import (
	"database/sql"
	"fmt"
	"path/filepath"
	"testing"
)

func openTest(t *testing.T) *sql.DB {
	t.Helper()
	db, err := openPreparing(filepath.Join(t.TempDir(), "test.db"))
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
