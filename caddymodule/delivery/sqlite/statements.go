// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package sqlite

import (
	"context"
	"database/sql"
	"database/sql/driver"

	"modernc.org/sqlite"
)

// maxStatements is the number of statements that a connection keeps prepared. River
// has fewer; a filter by an operator makes a new one.
const maxStatements = 64

// openPreparing opens a database whose connections keep their statements prepared.
// River has SQLite parse the same statement for every row whose attempt has ended, which
// takes several times as long as executing it.
func openPreparing(dsn string, connect newConnector) (*sql.DB, error) {
	c, err := connect(dsn)
	if err != nil {
		return nil, err
	}
	return sql.OpenDB(preparingConnector{c}), nil
}

// newConnector returns a connector of the driver.
type newConnector func(dsn string) (driver.Connector, error)

func driverConnector(dsn string) (driver.Connector, error) { return sqlite.NewConnector(dsn) }

type preparingConnector struct{ driver.Connector }

// Connect implements [driver.Connector].
func (c preparingConnector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return &preparingConn{conn.(sqliteConn), make(map[string]*statement)}, nil
}

// sqliteConn is what a connection of the driver implements for database/sql.
type sqliteConn interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.Pinger
	driver.SessionResetter
	driver.Validator
}

// preparingConn is a connection that keeps its statements prepared.
type preparingConn struct {
	sqliteConn
	statements map[string]*statement
}

// statement is a prepared statement. It cannot be executed again while rows that it
// returned are being read.
type statement struct {
	driver.Stmt
	reading bool
}

// prepared returns the statement for the query. It returns [driver.ErrSkip] if
// database/sql is to prepare one for this call alone.
func (c *preparingConn) prepared(ctx context.Context, query string) (*statement, error) {
	s := c.statements[query]
	switch {
	case s != nil && s.reading, s == nil && len(c.statements) == maxStatements:
		return nil, driver.ErrSkip
	case s != nil:
		return s, nil
	}
	prepared, err := c.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	s = &statement{Stmt: prepared}
	c.statements[query] = s
	return s, nil
}

// QueryContext implements [driver.QueryerContext].
func (c *preparingConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	s, err := c.prepared(ctx, query)
	if err != nil {
		return nil, err
	}
	rows, err := s.Stmt.(driver.StmtQueryContext).QueryContext(ctx, args)
	if err != nil {
		return nil, err
	}
	s.reading = true
	return &statementRows{rows, s}, nil
}

// ExecContext implements [driver.ExecerContext].
func (c *preparingConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	s, err := c.prepared(ctx, query)
	if err != nil {
		return nil, err
	}
	return s.Stmt.(driver.StmtExecContext).ExecContext(ctx, args)
}

// Close implements [driver.Conn].
func (c *preparingConn) Close() error {
	for _, s := range c.statements {
		_ = s.Close()
	}
	return c.sqliteConn.Close()
}

// statementRows are rows of a statement that may be executed again once they are closed.
type statementRows struct {
	driver.Rows
	statement *statement
}

// Close implements [driver.Rows].
func (r *statementRows) Close() error {
	r.statement.reading = false
	return r.Rows.Close()
}

// Interface guards
var (
	_ driver.Connector      = preparingConnector{}
	_ driver.QueryerContext = (*preparingConn)(nil)
	_ driver.ExecerContext  = (*preparingConn)(nil)
)
