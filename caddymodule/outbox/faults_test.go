// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package outbox_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/riverqueue/river/riverdriver/riversqlite"

	"github.com/timguard/timguard/caddymodule/outbox"
)

func TestFilesAreOnlyAccessibleToTheirOwner(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "a", "b c%20?")
	o := mustOpen(t, config{driver: "sqlite", store: filepath.Join(dir, "outbox.db")})
	mustPut(t, o, recall("a"))
	want := map[string]fs.FileMode{"": 0o700, "outbox.db": 0o600, "outbox.db-wal": 0o600, "outbox.db-shm": 0o600, "outbox.db.lock": 0o600}
	for name, mode := range want {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
		} else if info.Mode().Perm() != mode {
			t.Errorf("%q has mode %v, want %v", name, info.Mode().Perm(), mode)
		}
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 4 {
		t.Errorf("unexpected files: %v", entries)
	}
}

func TestUnusablePathsAreNotReady(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte(strings.Repeat("no database ", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	readonly := filepath.Join(dir, "readonly")
	if err := os.WriteFile(readonly, nil, 0o400); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{
		"none": "", "a directory": dir, "below a file": filepath.Join(file, "outbox.db"), "no database": file, "read-only": readonly,
	} {
		if name == "read-only" && os.Getuid() == 0 {
			continue // root can write it anyway
		}
		o, _ := config{driver: "sqlite", store: path}.open()
		if _, err := o.put(context.Background(), recall("a")); !errors.Is(err, outbox.ErrNotReady) {
			t.Errorf("%s: error %v", name, err)
		}
		o.Close()
	}
}

func TestErrorsAndLogsContainNoPasswords(t *testing.T) {
	t.Parallel()
	var out buffer
	for _, dsn := range []string{
		"postgres://u:hunter2@127.0.0.1:notaport/db", "postgres://u:hunter2@[::1/db", "host=127.0.0.1 password=hunter2 port=x",
		"postgres://u:hunter2@127.0.0.1:1/db?connect_timeout=1", "postgres://u:hunter2@127.0.0.1:1/db?sslmode=nope",
	} {
		o, err := config{driver: "postgres", store: dsn, logger: out.logger()}.open()
		if _, putErr := o.put(context.Background(), recall("a")); !errors.Is(putErr, outbox.ErrNotReady) {
			t.Errorf("Put: %v", putErr)
		} else if err == nil {
			err = putErr
		}
		o.Close()
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("error %v", err)
		}
	}
	if s := out.String(); s == "" || strings.Contains(s, "hunter2") {
		t.Errorf("log: %s", s)
	}
}

func TestLogsContainNoPayloads(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		var out buffer
		c := configFor(t, driver)
		c.logger = out.logger()
		c.maxAttempts = 2
		c.timeout = 100 * time.Millisecond
		o := mustOpen(t, c)
		mustWork(t, o, func(ctx context.Context, d outbox.Attempt) error {
			switch d.Key {
			case "panic":
				panic("boom sesame")
			case "slow":
				<-ctx.Done()
			}
			return errors.New("backend answered 500")
		})
		for _, key := range []string{"panic", "slow", "fail"} {
			c := recall(key)
			c.Body, c.Header["Cookie"], c.URI = `{"x":"sesame"}`, []string{"sesame"}, "/sesame"
			mustPut(t, o, c)
		}
		eventually(t, 20*time.Second, "all dead", func() bool { return count(t, o, outbox.Dead) == 3 })
		if s := out.String(); s == "" || strings.Contains(s, "sesame") {
			t.Errorf("log: %s", s)
		}
		items, err := o.List(context.Background(), outbox.Filter{State: outbox.Dead})
		if err != nil {
			t.Fatal(err)
		}
		for _, it := range items {
			if len(it.Failures) != 2 || strings.Contains(it.Failures[0].Error, "sesame") {
				t.Errorf("failures of %s: %+v", it.Callback.Key, it.Failures)
			}
		}
	})
}

// buffer is a buffer that is safe for concurrent use.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) { b.mu.Lock(); defer b.mu.Unlock(); return b.b.Write(p) }

func (b *buffer) String() string { b.mu.Lock(); defer b.mu.Unlock(); return b.b.String() }

func (b *buffer) logger() *slog.Logger {
	return slog.New(slog.NewJSONHandler(b, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// writer runs a statement on SQLite's connection for writing.
func writer(t *testing.T, o *opened, statement string) {
	t.Helper()
	if err := o.Exec(context.Background(), statement); err != nil {
		t.Fatal(err)
	}
}

// degrades checks that Put fails in time during a fault, and that Put and the workers
// recover by themselves afterwards.
func degrades(t *testing.T, o *opened, begin, end func()) {
	t.Helper()
	mustWork(t, o, func(context.Context, outbox.Attempt) error { return nil })
	mustPut(t, o, recall("before"))
	eventually(t, 10*time.Second, "delivered before", func() bool { return count(t, o, outbox.Delivered) == 1 })
	begin()
	for range 3 {
		start := time.Now()
		c := recall("")
		c.Body = `{"a":"` + strings.Repeat("x", 1<<20) + `"}`
		_, err := o.put(context.Background(), c)
		if err == nil {
			t.Error("Put succeeded on a store at fault")
		}
		t.Logf("%v after %v", err, time.Since(start))
		if took := time.Since(start); took > outbox.PutTimeout+5*time.Second {
			t.Errorf("Put failed only after %v", took)
		}
	}
	end()
	start := time.Now()
	eventually(t, 10*time.Second, "Put recovers", func() bool { _, err := o.put(context.Background(), recall("after")); return err == nil })
	eventually(t, 30*time.Second, "deliveries recover", func() bool { return count(t, o, outbox.Delivered) >= 2 && count(t, o, outbox.Pending) == 0 })
	t.Logf("recovered after %v", time.Since(start))
}

func TestDegradesWhenTheFileIsFull(t *testing.T) {
	t.Parallel()
	o := mustOpen(t, configFor(t, "sqlite"))
	degrades(t, o, func() { writer(t, o, "PRAGMA max_page_count=60") }, func() { writer(t, o, "PRAGMA max_page_count=1000000") })
}

func TestDegradesWhenTheFileIsReadOnly(t *testing.T) {
	t.Parallel()
	c := configFor(t, "sqlite")
	o := mustOpen(t, c)
	// Root may write any file, so what turns read-only is the connection.
	db, err := sql.Open("sqlite", "file:"+c.store+"?mode=ro&_txlock=immediate")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	store, err := outbox.NewStore(outbox.Database{}, riversqlite.New(db), riversqlite.New(db), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	good := o.PutClient()
	degrades(t, o, func() { o.SetPutClient(outbox.PutClientOf(store)) }, func() { o.SetPutClient(good) })
}

func TestDegradesWhenTheFileIsLocked(t *testing.T) {
	t.Parallel()
	c := configFor(t, "sqlite")
	o := mustOpen(t, c)
	db, err := sql.Open("sqlite", "file:"+c.store+"?_txlock=immediate")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var tx *sql.Tx
	degrades(t, o, func() {
		if tx, err = db.Begin(); err != nil {
			t.Fatal(err)
		}
	}, func() {
		if err := tx.Rollback(); err != nil {
			t.Fatal(err)
		}
	})
}

// proxy is a TCP proxy to PostgreSQL that can be switched off.
type proxy struct {
	address string
	target  string

	mu       sync.Mutex
	listener net.Listener
	conns    []net.Conn
}

func (p *proxy) start(t *testing.T) {
	t.Helper()
	l, err := net.Listen("tcp", p.address)
	if err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	p.listener, p.address = l, l.Addr().String()
	p.mu.Unlock()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s, err := net.Dial("tcp", p.target)
			if err != nil {
				c.Close()
				continue
			}
			p.mu.Lock()
			p.conns = append(p.conns, c, s)
			p.mu.Unlock()
			go func() { _, _ = io.Copy(c, s); c.Close() }()
			go func() { _, _ = io.Copy(s, c); s.Close() }()
		}
	}()
}

func (p *proxy) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.listener.Close()
	for _, c := range p.conns {
		c.Close()
	}
	p.conns = nil
}

// proxied returns a configuration that connects to PostgreSQL through a proxy.
func proxied(t *testing.T) (config, *proxy) {
	t.Helper()
	c := configFor(t, "postgres")
	u, err := url.Parse(c.store)
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{address: "127.0.0.1:0", target: u.Host}
	p.start(t)
	t.Cleanup(p.stop)
	u.Host = p.address
	c.store = u.String()
	return c, p
}

func TestDegradesWhenPostgresIsStopped(t *testing.T) {
	t.Parallel()
	c, p := proxied(t)
	o := mustOpen(t, c)
	degrades(t, o, p.stop, func() { p.start(t) })
}

func TestOpensWhilePostgresIsStopped(t *testing.T) {
	t.Parallel()
	c, p := proxied(t)
	p.stop()
	o, err := c.open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.Close)
	if _, err := o.put(context.Background(), recall("a")); !errors.Is(err, outbox.ErrNotReady) {
		t.Errorf("Put: %v", err)
	}
	if _, err := o.Counts(context.Background()); !errors.Is(err, outbox.ErrNotReady) {
		t.Errorf("Counts: %v", err)
	}
	mustWork(t, o, func(context.Context, outbox.Attempt) error { return nil })
	p.start(t)
	eventually(t, 15*time.Second, "Put works", func() bool { _, err := o.put(context.Background(), recall("a")); return err == nil })
	eventually(t, 15*time.Second, "delivered", func() bool { return count(t, o, outbox.Delivered) == 1 })
}

func TestSurvivesTerminatedBackends(t *testing.T) {
	t.Parallel()
	c := configFor(t, "postgres")
	o := mustOpen(t, c)
	u, _ := url.Parse(c.store)
	terminate := "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '" + u.Query().Get("application_name") + "'"
	mustWork(t, o, func(context.Context, outbox.Attempt) error { return nil })
	for i := range 20 {
		admin(t, terminate)
		eventually(t, 5*time.Second, "Put recovers", func() bool { _, err := o.put(context.Background(), recall(string(rune('a'+i)))); return err == nil })
	}
	eventually(t, 30*time.Second, "all delivered", func() bool { return count(t, o, outbox.Delivered) == 20 })
}

// Whatever is asked of a store that is not open yet, by however many at the same time, is
// answered with that error, also while it is closed.
func TestWhatIsAskedBeforeTheStoreIsOpenFails(t *testing.T) {
	t.Parallel()
	opening := make(chan struct{})
	o := outbox.Open(func() (outbox.Store, error) {
		<-opening
		return outbox.Store{}, errors.New("it cannot be opened")
	}, slog.New(slog.DiscardHandler))
	ctx := t.Context()
	queue := outbox.Queue{Guard: "default"}
	options := func(outbox.Queue) outbox.Options { return outbox.Options{MaxAttempts: 1} }
	for name, ask := range map[string]func() error{
		"Counts":       func() error { _, err := o.Counts(ctx); return err },
		"CountAll":     func() error { _, err := o.CountAll(ctx, outbox.Filter{}); return err },
		"DiscardAll":   func() error { _, err := o.DiscardAll(ctx, outbox.Filter{}); return err },
		"Discard":      func() error { _, err := o.Discard(ctx, 1); return err },
		"Get":          func() error { _, err := o.Get(ctx, 1); return err },
		"LastFailures": func() error { _, err := o.LastFailures(ctx); return err },
		"List":         func() error { _, err := o.List(ctx, outbox.Filter{}); return err },
		"Pause":        func() error { return o.Pause(ctx, queue) },
		"Paused":       func() error { _, err := o.Paused(ctx); return err },
		"Resume":       func() error { return o.Resume(ctx, queue) },
		"RetryAll":     func() error { _, err := o.RetryAll(ctx, outbox.Filter{}, options); return err },
		"Retry":        func() error { _, err := o.Retry(ctx, 1, options); return err },
		"Waits":        func() error { _, err := o.Waits(ctx, queue, "a"); return err },
		"Attempts":     func() error { _, err := o.Attempts(ctx, queue, "a"); return err },
	} {
		if err := ask(); !errors.Is(err, outbox.ErrNotReady) {
			t.Errorf("%s: %v", name, err)
		}
	}
	putAtOnce := func(want ...error) {
		var wg sync.WaitGroup
		for range 200 { // so that some are gathered in one batch
			wg.Go(func() {
				c := recall("")
				if _, err := o.Put(ctx, &c); !slices.ContainsFunc(want, func(w error) bool { return errors.Is(err, w) }) {
					t.Errorf("Put: %v", err)
				}
			})
		}
		wg.Wait()
	}
	putAtOnce(outbox.ErrNotReady)
	close(opening)
	var closed sync.WaitGroup
	closed.Go(o.Close)
	putAtOnce(outbox.ErrNotReady, outbox.ErrClosed)
	closed.Wait()
}

// A store that cannot be opened at first is used as soon as it can.
func TestAStoreIsOpenedAsSoonAsItCanBe(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "dir")
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	o, err := config{driver: "sqlite", store: filepath.Join(dir, "outbox.db")}.open()
	t.Cleanup(o.Close)
	if err == nil {
		t.Fatal("a file is used as a directory")
	}
	got := make(chan outbox.Attempt, 1)
	mustWork(t, o, func(_ context.Context, a outbox.Attempt) error { got <- a; return nil })
	if _, err := o.put(context.Background(), recall("a")); !errors.Is(err, outbox.ErrNotReady) {
		t.Errorf("Put: %v", err)
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	eventually(t, 15*time.Second, "it can be asked, also while it is being opened", func() bool {
		_, err := o.Counts(context.Background())
		_, listErr := o.List(context.Background(), outbox.Filter{})
		return err == nil && listErr == nil
	})
	eventually(t, 15*time.Second, "Put works", func() bool { _, err := o.put(context.Background(), recall("a")); return err == nil })
	<-got
}

// A statement that fails says nothing about the rows: the whole batch has failed.
func TestABrokenStatementIsNoBadRow(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o := mustOpen(t, configFor(t, driver))
		mustPut(t, o, recall("a"))
		if err := o.Exec(context.Background(), "ALTER TABLE river_job RENAME TO elsewhere"); err != nil {
			t.Fatal(err)
		}
		if _, err := o.Retry(context.Background(), 1, twenty); err == nil || errors.Is(err, outbox.ErrState) {
			t.Errorf("Retry: %v", err)
		}
		if done, err := o.RetryAll(context.Background(), outbox.Filter{}, twenty); err == nil || done != 0 {
			t.Errorf("RetryAll: %d, %v", done, err)
		}
		if _, err := o.put(context.Background(), recall("b")); err == nil || errors.Is(err, outbox.ErrInvalid) {
			t.Errorf("Put: %v", err)
		}
	})
}

// Reading while the SQLite file is away makes no other in its place, which the store
// would go on with when the file is back.
func TestAMissingSQLiteFileIsNotMadeAgain(t *testing.T) {
	t.Parallel()
	c := configFor(t, "sqlite")
	o := mustOpen(t, c)
	mustPut(t, o, recall("a"))
	if err := os.Rename(c.store, c.store+".away"); err != nil {
		t.Fatal(err)
	}
	if _, err := o.List(context.Background(), outbox.Filter{}); err == nil {
		t.Error("it lists a file that is not there")
	}
	if _, err := os.Stat(c.store); !os.IsNotExist(err) {
		t.Errorf("another file was made: %v", err)
	}
	if err := os.Rename(c.store+".away", c.store); err != nil {
		t.Fatal(err)
	}
	if items, err := o.List(context.Background(), outbox.Filter{}); err != nil || len(items) != 1 {
		t.Errorf("%d items, %v; want 1 as before", len(items), err)
	}
}
