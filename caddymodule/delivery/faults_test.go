// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/timguard/timguard/caddymodule/callback"
	"github.com/timguard/timguard/caddymodule/internal/guardtest"
	"github.com/timguard/timguard/caddymodule/outbox"
)

// storeFault is a fault of a store while Caddy is running.
type storeFault struct {
	// prepare changes where the site stores.
	prepare func(t *testing.T, s *guardtest.Site)
	// begin and end make the fault and mend it.
	begin, end func(t *testing.T, s *guardtest.Site)
}

func nothing(*testing.T, *guardtest.Site) {}

// During a fault of the store, callbacks are forwarded immediately, and refused if that
// fails too. Other rules are not affected, and recovery is automatic.
func TestEndToEndDeliveryDegradesWithItsStore(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]func() storeFault{
		"full": full, "read-only": readOnly, "locked": locked, "postgres gone": postgresGone,
		"removed":  func() storeFault { return moved(false) },
		"replaced": func() storeFault { return moved(true) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testStoreFault(t, fault())
		})
	}
}

func testStoreFault(t *testing.T, fault storeFault) {
	t.Helper()
	b := guardtest.NewBackend(t, guardtest.Accepts)
	s := guardtest.NewSite(t, guardtest.Guard("on State.* ack", "on Group.CallbackAfterRecallMsg deliver", "on Group.* forward", "backend "+b.Address()))
	fault.prepare(t, s)
	guard := s.Start(t)
	p := guardtest.NewPoster(t, s.Listen)
	p.WantOK(t, "before")
	if a := b.One(t, guardtest.Event("before")); a.Header.Get("Tim-Delivery-Attempt") != "1" {
		t.Error("what came before the fault was not stored")
	}

	fault.begin(t, s)
	for i := range 3 {
		id := fmt.Sprint("during-", i)
		start := time.Now()
		p.WantOK(t, id)
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("it was forwarded only after %s; Tencent gives up after 2s", took)
		}
		if b.Times(guardtest.Event(id)) == 0 {
			t.Error("it was answered OK, and the backend does not have it")
		}
	}
	b.Will(guardtest.Answers(http.StatusServiceUnavailable, "restarting"))
	for i := range 2 {
		status, answer, err := p.Post("/callback", callback.RecallCommand, guardtest.Event(fmt.Sprint("refused-", i)))
		if err != nil || status != http.StatusServiceUnavailable || !strings.Contains(answer, `"ActionStatus":"FAIL"`) {
			t.Errorf("answer %d %s, %v; want 503 FAIL: nothing stands behind an OK", status, answer, err)
		}
	}
	time.Sleep(500 * time.Millisecond) // in which deliveries are looked for a few times
	if s.Status(t).StoreError == "" {
		t.Error("the status says that the store works")
	}
	if n := len(guard.LogLines(t, "the store works again")); n > 0 {
		t.Errorf("the log says %d times that the store works again", n)
	}
	b.Will(guardtest.Accepts)
	wantOtherRules(t, p, b)

	fault.end(t, s)
	mended := time.Now()
	n := 0
	guardtest.Eventually(t, 30*time.Second, "callbacks are stored again", func() bool {
		n++
		id := fmt.Sprint("after-", n)
		p.WantOK(t, id)
		return b.One(t, guardtest.Event(id)).Header.Get("Tim-Delivery-Attempt") == "1"
	})
	t.Logf("stored again after %s", time.Since(mended).Round(time.Millisecond))
	s.WantState(t, outbox.Pending, 0)
}

// wantOtherRules fails the test unless rules that store nothing work.
func wantOtherRules(t *testing.T, p *guardtest.Poster, b *guardtest.Backend) {
	t.Helper()
	for command, tt := range map[string]struct {
		body      string
		forwarded bool
	}{
		"State.StateChange": {
			`{"CallbackCommand":"State.StateChange","Info":{"Action":"Login","To_Account":"a","Reason":"Register"}}`, false,
		},
		"Group.CallbackAfterGroupDestroyed": {
			`{"CallbackCommand":"Group.CallbackAfterGroupDestroyed","GroupId":"g","Type":"Public","Owner_Account":"o","MemberList":[]}`, true,
		},
	} {
		start := time.Now()
		status, answer, err := p.Post("/callback", command, []byte(tt.body))
		forwarded := b.Times([]byte(tt.body)) > 0
		if err != nil || status != http.StatusOK || answer != guardtest.OKJSON || forwarded != tt.forwarded {
			t.Errorf("%s: %d %s, %v; forwarded: %t", command, status, answer, err, forwarded)
		}
		if took := time.Since(start); took > 500*time.Millisecond {
			t.Errorf("%s: the answer took %s", command, took)
		}
	}
}

// A store that cannot be opened when Caddy starts does not stop it: before-callbacks are
// answered, and what would be stored is forwarded immediately. The store is opened as soon as
// it can be, without another start.
func TestEndToEndDeliveryStartsWithoutItsStore(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]func() storeFault{
		"a directory": func() storeFault {
			return unopenable(func(path string) error { return os.Mkdir(path, 0o700) }, os.Remove)
		},
		"below a file": func() storeFault {
			return unopenable(func(path string) error { return os.WriteFile(filepath.Dir(path), nil, 0o600) }, func(path string) error { return os.Remove(filepath.Dir(path)) })
		},
		"corrupt": func() storeFault {
			return unopenable(func(path string) error { return os.WriteFile(path, bytes.Repeat([]byte("corrupt "), 1024), 0o600) }, os.Remove)
		},
		"read-only": readOnlyAtStart, "full": full, "postgres gone": postgresGone, "postgres hangs": postgresHangs,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testStartWithoutStore(t, fault())
		})
	}
}

func testStartWithoutStore(t *testing.T, fault storeFault) {
	t.Helper()
	b := guardtest.NewBackend(t, guardtest.Accepts)
	s := guardtest.NewSite(t, guardtest.Guard("on State.* ack {\ncopy archive\n}", "on Group.CallbackAfterRecallMsg deliver", "on Group.* forward",
		"backend "+b.Address(), "consumer archive "+b.Address()))
	s.Unopened = true
	fault.prepare(t, s)
	fault.begin(t, s)
	wait := notingEvents(t, s)
	start := time.Now()
	guard := s.Start(t)
	took := time.Since(start)
	t.Logf("it took %s to start", took.Round(10*time.Millisecond))
	if took > 5*time.Second {
		t.Errorf("it took %s to start", took)
	}
	guard.WantLog(t, "the store cannot be opened; callbacks are forwarded instead of stored, until it can; trying again every second", map[string]any{"level": "error", "logger": "tim_delivery"})
	p := guardtest.NewPoster(t, s.Listen)
	const before = "Group.CallbackBeforeSendMsg"
	want := func(command, body string, status int) {
		t.Helper()
		start := time.Now()
		if code, answer, err := p.Post("/callback", command, []byte(body)); err != nil || code != status || (answer == guardtest.OKJSON) != (status == http.StatusOK) {
			t.Errorf("%s: %d %s, %v; want %d", command, code, answer, err, status)
		}
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("%s: the answer took %s; Tencent gives up after 2s", command, took)
		}
	}
	message := `{"CallbackCommand":"` + before + `","GroupId":"g","Type":"Public","From_Account":"a","Operator_Account":"a","Random":1,"OnlineOnlyFlag":0,"MsgBody":[{"MsgType":"TIMTextElem","MsgContent":{"Text":"red packet"}}]}`
	want(before, message, http.StatusOK)
	want(callback.RecallCommand, string(guardtest.Event("forwarded")), http.StatusOK)
	if a := b.Of(guardtest.Event("forwarded")); len(a) != 1 || !a[0].AtOnce() || b.Times([]byte(message)) != 1 {
		t.Errorf("the backend got %d of what cannot be stored, and %d of what is forwarded", len(a), b.Times([]byte(message)))
	}
	const login = `{"CallbackCommand":"State.StateChange","Info":{"Action":"Login","To_Account":"a","Reason":"Register"}}`
	want("State.StateChange", login, http.StatusServiceUnavailable) // nothing stands behind an OK
	guard.WantLog(t, "storing callback failed; forwarding it", map[string]any{"level": "error", "guard": "default"})
	wait("tim_delivery.store_failed")
	b.Will(guardtest.Answers(http.StatusServiceUnavailable, "restarting"))
	want(callback.RecallCommand, string(guardtest.Event("refused")), http.StatusServiceUnavailable)
	b.Will(guardtest.Accepts)
	s.Directives = "header X-Generation 2\n" + s.Directives
	reloaded := time.Now()
	s.Reload(t)
	if took := time.Since(reloaded); took > 5*time.Second {
		t.Errorf("a reload took %s", took)
	}
	p.Client.CloseIdleConnections()

	fault.end(t, s)
	n := 0
	guardtest.Eventually(t, 30*time.Second, "callbacks are stored", func() bool {
		n++
		id := fmt.Sprint("mended-", n)
		_, answer, err := p.Post("/callback", callback.RecallCommand, guardtest.Event(id))
		return err == nil && answer == guardtest.OKJSON && !b.One(t, guardtest.Event(id)).AtOnce()
	})
	guard.WantLog(t, "the store works again", map[string]any{"logger": "tim_delivery"})
	wait("tim_delivery.store_recovered")
	want("State.StateChange", login, http.StatusOK)
	b.One(t, []byte(login))
}

// unopenable is an SQLite file that cannot be opened because of what is there instead.
func unopenable(begin, end func(path string) error) storeFault {
	var path string
	do := func(t *testing.T, change func(string) error) {
		t.Helper()
		if err := change(path); err != nil {
			t.Fatal(err)
		}
	}
	return storeFault{
		prepare: func(t *testing.T, s *guardtest.Site) {
			t.Helper()
			path = filepath.Join(t.TempDir(), "dir", "deliveries.db")
			if !strings.HasSuffix(t.Name(), "below_a_file") {
				if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			s.Options = "store sqlite " + path
		},
		begin: func(t *testing.T, _ *guardtest.Site) {
			t.Helper()
			do(t, begin)
		},
		end: func(t *testing.T, _ *guardtest.Site) { t.Helper(); do(t, end) },
	}
}

// readOnlyAtStart is a directory in which no file can be made.
func readOnlyAtStart() storeFault {
	var dir string
	return storeFault{
		prepare: func(t *testing.T, s *guardtest.Site) {
			t.Helper()
			dir = t.TempDir()
			s.Options = "store sqlite " + filepath.Join(dir, "deliveries.db")
		},
		begin: func(t *testing.T, _ *guardtest.Site) {
			t.Helper()
			t.Cleanup(func() { _ = exec.Command("chattr", "-i", dir).Run() })
			if output, err := exec.Command("chattr", "+i", dir).CombinedOutput(); err != nil {
				t.Skipf("directories cannot be made read-only for root: %v %s", err, output)
			}
		},
		end: func(t *testing.T, _ *guardtest.Site) {
			t.Helper()
			if output, err := exec.Command("chattr", "-i", dir).CombinedOutput(); err != nil {
				t.Errorf("%v %s", err, output)
			}
		},
	}
}

// postgresHangs is a database server that accepts connections, but does not answer.
func postgresHangs() storeFault {
	var w *way
	return storeFault{
		prepare: func(t *testing.T, s *guardtest.Site) {
			t.Helper()
			var dsn string
			w, dsn = newWay(t)
			w.open(t)
			t.Cleanup(func() { w.goOn(); w.close() })
			s.Options = "store postgres " + dsn
		},
		begin: func(*testing.T, *guardtest.Site) { w.hang() },
		end:   func(*testing.T, *guardtest.Site) { w.goOn() },
	}
}

// A database that hangs holds up neither a reload nor the end of the process.
func TestEndToEndDeliveryIsReloadedWhileItsDatabaseHangs(t *testing.T) {
	t.Parallel()
	generation := func(s *guardtest.Site) { s.Directives = "header X-Generation 2\n" + s.Directives }
	for name, change := range map[string]func(t *testing.T, s *guardtest.Site){
		"the same store": func(_ *testing.T, s *guardtest.Site) { generation(s) },
		"another store": func(t *testing.T, s *guardtest.Site) {
			t.Helper()
			s.Options = "store sqlite " + filepath.Join(t.TempDir(), "other.db")
		},
		"no store": func(_ *testing.T, s *guardtest.Site) { s.App, s.Directives = false, "respond 200" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testReloadWhileDatabaseHangs(t, change)
		})
	}
}

// Nor does one that is new in the configuration.
func TestEndToEndDeliveryIsReloadedToADatabaseThatHangs(t *testing.T) {
	t.Parallel()
	b := guardtest.NewBackend(t, guardtest.Accepts)
	s := guardtest.NewSite(t, guardtest.Delivering(b))
	s.Start(t)
	fault := postgresHangs()
	fault.prepare(t, s)
	fault.begin(t, s)
	s.Unopened = true
	start := time.Now()
	s.Reload(t)
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("the reload took %s", took)
	}
	start = time.Now()
	guardtest.NewPoster(t, s.Listen).WantOK(t, "during")
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("an answer took %s", took)
	}
	b.One(t, guardtest.Event("during"))
	fault.end(t, s)
	guardtest.Eventually(t, 20*time.Second, "the store is open", func() bool { return s.Status(t).StoreError == "" })
	guardtest.NewPoster(t, s.Listen).WantOK(t, "after")
	s.WantState(t, outbox.Delivered, 1)
}

func testReloadWhileDatabaseHangs(t *testing.T, change func(t *testing.T, s *guardtest.Site)) {
	t.Helper()
	b := guardtest.NewBackend(t, guardtest.Answers(http.StatusServiceUnavailable, ""))
	s := guardtest.NewSite(t, guardtest.Delivering(b))
	fault := postgresHangs()
	fault.prepare(t, s)
	s.Global = "grace_period 1s"
	guard := s.Start(t)
	p := guardtest.NewPoster(t, s.Listen)
	p.WantOK(t, "waiting")
	s.WantState(t, outbox.Retrying, 1)
	options, directives := s.Options, s.Directives

	fault.begin(t, s)
	s.Unopened = true
	change(t, s)
	start := time.Now()
	s.Reload(t)
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("a reload took %s", took)
	}
	p.Client.CloseIdleConnections()
	b.Will(guardtest.Accepts)
	if s.App {
		start := time.Now()
		p.WantOK(t, "during")
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("an answer took %s", took)
		}
		b.One(t, guardtest.Event("during"))
	}

	s.App, s.Options, s.Directives = true, options, directives // back to the database that hangs
	start = time.Now()
	s.Reload(t)
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("the reload to the database that hangs took %s", took)
	}
	fault.end(t, s)
	b.One(t, guardtest.Event("waiting"))

	fault.begin(t, s)
	if took := guard.Terminate(t); took > 5*time.Second {
		t.Errorf("it took %s to stop", took)
	}
}

// full is a full disk, on a small file system that is mounted for the test.
func full() storeFault {
	var ballast string
	return storeFault{
		prepare: func(t *testing.T, s *guardtest.Site) {
			t.Helper()
			disk := t.TempDir()
			if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=4m"); err != nil {
				t.Skipf("a small disk cannot be mounted: %v", err)
			}
			t.Cleanup(func() {
				if err := syscall.Unmount(disk, 0); err != nil {
					t.Error(err)
				}
			})
			s.Options = "store sqlite " + filepath.Join(disk, "deliveries.db")
			ballast = filepath.Join(disk, "ballast")
		},
		begin: func(t *testing.T, _ *guardtest.Site) {
			t.Helper()
			f, err := os.Create(ballast)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			for err == nil {
				_, err = f.Write(make([]byte, 4096))
			}
		},
		end: func(t *testing.T, _ *guardtest.Site) {
			t.Helper()
			if err := os.Remove(ballast); err != nil {
				t.Error(err)
			}
		},
	}
}

// readOnly makes the files read-only.
func readOnly() storeFault {
	suffixes := []string{"", "-wal", "-shm"}
	if raceDetector() {
		// A write to the index in shared memory is a fault that SQLite survives, but
		// not where the race detector watches memory.
		suffixes = suffixes[:2]
	}
	mark := func(t *testing.T, s *guardtest.Site, mark string) error {
		t.Helper()
		for _, suffix := range suffixes {
			if output, err := exec.Command("chattr", mark, s.StorePath()+suffix).CombinedOutput(); err != nil {
				return fmt.Errorf("%w: %s", err, output)
			}
		}
		return nil
	}
	return storeFault{
		prepare: nothing,
		begin: func(t *testing.T, s *guardtest.Site) {
			t.Helper()
			t.Cleanup(func() { _ = mark(t, s, "-i") })
			if err := mark(t, s, "+i"); err != nil {
				t.Skipf("files cannot be made read-only for root: %v", err)
			}
		},
		end: func(t *testing.T, s *guardtest.Site) {
			t.Helper()
			if err := mark(t, s, "-i"); err != nil {
				t.Error(err)
			}
		},
	}
}

// moved is an SQLite file that was moved away and, optionally, replaced by another one.
func moved(replaced bool) storeFault {
	return storeFault{
		prepare: nothing,
		begin: func(t *testing.T, s *guardtest.Site) {
			t.Helper()
			if err := os.Rename(s.StorePath(), s.StorePath()+".moved"); err != nil {
				t.Fatal(err)
			}
			if replaced {
				if err := os.WriteFile(s.StorePath(), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
		},
		end: func(t *testing.T, s *guardtest.Site) {
			t.Helper()
			if err := os.Rename(s.StorePath()+".moved", s.StorePath()); err != nil {
				t.Error(err)
			}
		},
	}
}

func raceDetector() bool {
	info, _ := debug.ReadBuildInfo()
	return info != nil && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// locked is a file that is locked by another program.
func locked() storeFault {
	var conn *sql.Conn
	run := func(t *testing.T, statement string) {
		t.Helper()
		if _, err := conn.ExecContext(context.Background(), statement); err != nil {
			t.Fatal(err)
		}
	}
	return storeFault{
		prepare: nothing,
		begin: func(t *testing.T, s *guardtest.Site) {
			t.Helper()
			var err error
			if conn, err = s.OpenStore(t).Conn(context.Background()); err != nil {
				t.Fatal(err)
			}
			run(t, "BEGIN EXCLUSIVE")
		},
		end: func(t *testing.T, _ *guardtest.Site) {
			t.Helper()
			run(t, "ROLLBACK")
		},
	}
}

// postgresGone is a database server that is down temporarily.
func postgresGone() storeFault {
	var w *way
	return storeFault{
		prepare: func(t *testing.T, s *guardtest.Site) {
			t.Helper()
			var dsn string
			w, dsn = newWay(t)
			w.open(t)
			t.Cleanup(w.close)
			s.Options = "store postgres " + dsn
		},
		begin: func(*testing.T, *guardtest.Site) { w.close() },
		end:   func(t *testing.T, _ *guardtest.Site) { t.Helper(); w.open(t) },
	}
}

// newWay returns a way to the PostgreSQL server, and a DSN through it.
func newWay(t *testing.T) (w *way, dsn string) {
	t.Helper()
	target, err := url.Parse(guardtest.Postgres(t))
	if err != nil {
		t.Fatal("TIMGUARD_TEST_POSTGRES is not a URL")
	}
	w = &way{address: guardtest.FreePort(t), target: target.Host}
	return w, guardtest.PostgresDSN(t, w.address)
}

// way is a TCP proxy to a server that can be interrupted.
type way struct {
	address, target string

	mu       sync.Mutex
	listener net.Listener
	conns    []net.Conn
	hangs    chan struct{} // closed when the way does not hang any longer; nil if it does not
}

// hang stops forwarding, without closing connections.
func (w *way) hang() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hangs = make(chan struct{})
}

// goOn ends hang.
func (w *way) goOn() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.hangs != nil {
		close(w.hangs)
	}
	w.hangs = nil
}

// await waits while the way hangs.
func (w *way) await() {
	w.mu.Lock()
	hangs := w.hangs
	w.mu.Unlock()
	if hangs != nil {
		<-hangs
	}
}

// forwarded is a connection through the way.
type forwarded struct {
	net.Conn
	way *way
}

// Write implements [io.Writer].
func (f forwarded) Write(p []byte) (int, error) {
	f.way.await()
	return f.Conn.Write(p)
}

func (w *way) open(t *testing.T) {
	t.Helper()
	listener, err := net.Listen("tcp", w.address)
	if err != nil {
		t.Fatal(err)
	}
	w.mu.Lock()
	w.listener = listener
	w.mu.Unlock()
	go func() {
		for {
			here, err := listener.Accept()
			if err != nil {
				return
			}
			there, err := net.Dial("tcp", w.target)
			if err != nil {
				_ = here.Close()
				continue
			}
			w.mu.Lock()
			w.conns = append(w.conns, here, there)
			w.mu.Unlock()
			for _, pair := range [][2]net.Conn{{here, there}, {there, here}} {
				go func() {
					_, _ = io.Copy(forwarded{pair[0], w}, pair[1])
					_ = pair[0].Close()
				}()
			}
		}
	}()
}

func (w *way) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	_ = w.listener.Close()
	for _, conn := range w.conns {
		_ = conn.Close()
	}
	w.conns = nil
}
