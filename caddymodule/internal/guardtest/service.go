// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package guardtest

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// service is a server that a test runs by itself. Neither PostgreSQL nor PgBouncer runs as
// root: if the test does, they run as the user of Debian's package.
type service struct {
	Address string

	dir  string
	user *syscall.Credential // nil for that of the test
	cmd  *exec.Cmd
	log  SyncBuffer
	done chan struct{}
}

func newService(tb testing.TB) *service {
	tb.Helper()
	dir, err := os.MkdirTemp("", "guardtest") //nolint:usetesting // another user must be able to enter it
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = os.RemoveAll(dir) })
	s := &service{Address: FreePort(tb), dir: dir}
	if os.Geteuid() != 0 {
		return s
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		tb.Skipf("PostgreSQL does not run as root: %v", err)
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	if err := os.Chown(dir, uid, gid); err != nil {
		tb.Fatal(err)
	}
	s.user = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	return s
}

func (s *service) port() string {
	_, port, _ := net.SplitHostPort(s.Address)
	return port
}

func (s *service) command(path string, args ...string) *exec.Cmd {
	cmd := exec.Command(path, args...)
	cmd.Dir, cmd.Env = s.dir, append(os.Environ(), "LC_ALL=C")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.user}
	return cmd
}

// run runs a command to its end.
func (s *service) run(tb testing.TB, path string, args ...string) {
	tb.Helper()
	if output, err := s.command(path, args...).CombinedOutput(); err != nil {
		tb.Fatalf("%s: %v\n%s", path, err, output)
	}
}

// start starts the server, which the signal stops at the end of the test.
func (s *service) start(tb testing.TB, stop os.Signal, path string, args ...string) {
	tb.Helper()
	s.cmd = s.command(path, args...)
	s.cmd.Stdout, s.cmd.Stderr = &s.log, &s.log
	if err := s.cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	s.done = make(chan struct{})
	go func() {
		_ = s.cmd.Wait()
		close(s.done)
	}()
	tb.Cleanup(func() {
		_ = s.cmd.Process.Signal(stop)
		<-s.done
		if tb.Failed() {
			tb.Logf("%s says\n%s", filepath.Base(path), s.log.String())
		}
	})
	Eventually(tb, 30*time.Second, path+" listens", func() bool {
		conn, err := net.Dial("tcp", s.Address)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
}

// Kill ends the server with SIGKILL.
func (s *service) Kill() {
	_ = s.cmd.Process.Kill()
	<-s.done
}

// DSN returns a DSN of the server.
func (s *service) DSN() string { return dsnOf(s.Address) }

func dsnOf(address string) string {
	return "postgres://postgres@" + address + "/postgres?sslmode=disable"
}

// PostgresServer is a PostgreSQL server of the test itself, which it may kill.
type PostgresServer struct {
	*service
	programs string // their directory
}

// NewPostgresServer starts an empty server. It skips the test if PostgreSQL is not installed.
func NewPostgresServer(tb testing.TB) *PostgresServer {
	tb.Helper()
	s := newPostgresServer(tb)
	s.run(tb, filepath.Join(s.programs, "initdb"), "-D", "data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync")
	s.start(tb)
	return s
}

func newPostgresServer(tb testing.TB) *PostgresServer {
	tb.Helper()
	if versions, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb"); len(versions) > 0 { // where Debian has them
		return &PostgresServer{newService(tb), filepath.Dir(slices.Max(versions))}
	}
	initdb, err := exec.LookPath("initdb")
	if err != nil {
		tb.Skip("PostgreSQL is not installed")
	}
	return &PostgresServer{newService(tb), filepath.Dir(initdb)}
}

func (s *PostgresServer) start(tb testing.TB) {
	tb.Helper()
	s.service.start(tb, syscall.SIGQUIT, filepath.Join(s.programs, "postgres"), "-D", "data", "-p", s.port(),
		"-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "dynamic_shared_memory_type=mmap",
		"-c", "fsync=off") // what is killed is a process, not the machine
	Eventually(tb, 30*time.Second, "PostgreSQL is ready", func() bool { _, err := s.query("SELECT 1"); return err == nil })
}

// NewStandby starts a standby that has all that is committed from now on.
func (s *PostgresServer) NewStandby(tb testing.TB) *PostgresServer {
	tb.Helper()
	standby := newPostgresServer(tb)
	standby.run(tb, filepath.Join(s.programs, "pg_basebackup"), "-D", "data", "-d", s.DSN(), "-R", "-c", "fast", "--no-sync")
	standby.start(tb)
	s.Query(tb, "ALTER SYSTEM SET synchronous_standby_names = '*'")
	s.Query(tb, "SELECT pg_reload_conf()")
	Eventually(tb, 30*time.Second, "the standby is synchronous", func() bool {
		state, err := s.query("SELECT sync_state FROM pg_stat_replication")
		return err == nil && state == "sync"
	})
	return standby
}

// Promote makes a standby the primary.
func (s *PostgresServer) Promote(tb testing.TB) {
	tb.Helper()
	if done := s.Query(tb, "SELECT pg_promote()"); done != "t" {
		tb.Fatalf("promoted: %s", done)
	}
}

// Query runs a statement, and returns the first value of its result.
func (s *service) Query(tb testing.TB, statement string) string {
	tb.Helper()
	return QueryPostgres(tb, s.DSN(), statement)
}

func (s *service) query(statement string) (value string, err error) {
	return queryPostgres(s.DSN(), statement)
}

// PgBouncer is a PgBouncer of the test itself, in transaction mode.
type PgBouncer struct{ *service }

// NewPgBouncer starts one in front of a server. It skips the test if it is not installed.
func NewPgBouncer(tb testing.TB, server *PostgresServer) *PgBouncer {
	tb.Helper()
	path, err := exec.LookPath("pgbouncer")
	if err != nil {
		tb.Skip("PgBouncer is not installed")
	}
	b := &PgBouncer{newService(tb)}
	b.configure(tb, server)
	b.start(tb, syscall.SIGTERM, path, "pgbouncer.ini")
	return b
}

// PointTo makes another server the one behind it.
func (b *PgBouncer) PointTo(tb testing.TB, server *PostgresServer) {
	tb.Helper()
	b.configure(tb, server)
	if err := b.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		tb.Fatal(err)
	}
}

// configure writes the configuration. A pool that is smaller than that of a guard makes
// clients change their connections often.
func (b *PgBouncer) configure(tb testing.TB, server *PostgresServer) {
	tb.Helper()
	config := fmt.Sprintf("[databases]\n* = host=127.0.0.1 port=%s user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = %s\nunix_socket_dir =\n"+
		"auth_type = any\npool_mode = transaction\ndefault_pool_size = 4\nserver_login_retry = 1\n", server.port(), b.port())
	if err := os.WriteFile(filepath.Join(b.dir, "pgbouncer.ini"), []byte(config), 0o644); err != nil { //nolint:gosec // another user must read it
		tb.Fatal(err)
	}
}
