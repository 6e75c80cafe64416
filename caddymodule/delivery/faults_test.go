// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package delivery

import (
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
	prepare func(t *testing.T, s *deliverySite)
	// begin and end make the fault and mend it.
	begin, end func(t *testing.T, s *deliverySite)
}

func nothing(*testing.T, *deliverySite) {}

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
	b := newUnsteady(t, accepts)
	s := newDeliverySite(t, guardtest.Guard("on State.* ack", "on Group.CallbackAfterRecallMsg deliver", "on Group.* forward")+
		"\nreverse_proxy "+b.address())
	fault.prepare(t, s)
	s.start(t)
	p := newPoster(t, s.listen)
	p.wantOK(t, "before")
	if a := b.one(t, event("before")); a.Header.Get("Tim-Delivery-Attempt") != "1" {
		t.Error("what came before the fault was not stored")
	}

	fault.begin(t, s)
	for i := range 3 {
		id := fmt.Sprint("during-", i)
		start := time.Now()
		p.wantOK(t, id)
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("it was forwarded only after %s; Tencent gives up after 2s", took)
		}
		if b.times(event(id)) == 0 {
			t.Error("it was answered OK, and the backend does not have it")
		}
	}
	b.will(answers(http.StatusServiceUnavailable, "restarting"))
	for i := range 2 {
		status, answer, err := p.post("/callback", callback.RecallCommand, event(fmt.Sprint("refused-", i)))
		if err != nil || status != http.StatusServiceUnavailable || !strings.Contains(answer, `"ActionStatus":"FAIL"`) {
			t.Errorf("answer %d %s, %v; want 503 FAIL: nothing stands behind an OK", status, answer, err)
		}
	}
	b.will(accepts)
	wantOtherRules(t, p, b)

	fault.end(t, s)
	mended := time.Now()
	n := 0
	eventually(t, 30*time.Second, "callbacks are stored again", func() bool {
		n++
		id := fmt.Sprint("after-", n)
		p.wantOK(t, id)
		return b.one(t, event(id)).Header.Get("Tim-Delivery-Attempt") == "1"
	})
	t.Logf("stored again after %s", time.Since(mended).Round(time.Millisecond))
	s.wantState(t, outbox.Pending, 0)
}

// wantOtherRules fails the test unless rules that store nothing work.
func wantOtherRules(t *testing.T, p *poster, b *unsteady) {
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
		tries, start := b.tries.Load(), time.Now()
		status, answer, err := p.post("/callback", command, []byte(tt.body))
		if err != nil || status != http.StatusOK || answer != guardtest.OKJSON || (b.tries.Load() > tries) != tt.forwarded {
			t.Errorf("%s: %d %s, %v; forwarded: %t", command, status, answer, err, !tt.forwarded)
		}
		if took := time.Since(start); took > 500*time.Millisecond {
			t.Errorf("%s: the answer took %s", command, took)
		}
	}
}

// full is a full disk, on a small file system that is mounted for the test.
func full() storeFault {
	var ballast string
	return storeFault{
		prepare: func(t *testing.T, s *deliverySite) {
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
			s.options = "store sqlite " + filepath.Join(disk, "deliveries.db")
			ballast = filepath.Join(disk, "ballast")
		},
		begin: func(t *testing.T, _ *deliverySite) {
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
		end: func(t *testing.T, _ *deliverySite) {
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
	mark := func(t *testing.T, s *deliverySite, mark string) error {
		t.Helper()
		for _, suffix := range suffixes {
			if output, err := exec.Command("chattr", mark, s.store()+suffix).CombinedOutput(); err != nil {
				return fmt.Errorf("%w: %s", err, output)
			}
		}
		return nil
	}
	return storeFault{
		prepare: nothing,
		begin: func(t *testing.T, s *deliverySite) {
			t.Helper()
			t.Cleanup(func() { _ = mark(t, s, "-i") })
			if err := mark(t, s, "+i"); err != nil {
				t.Skipf("files cannot be made read-only for root: %v", err)
			}
		},
		end: func(t *testing.T, s *deliverySite) {
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
		begin: func(t *testing.T, s *deliverySite) {
			t.Helper()
			if err := os.Rename(s.store(), s.store()+".moved"); err != nil {
				t.Fatal(err)
			}
			if replaced {
				if err := os.WriteFile(s.store(), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
		},
		end: func(t *testing.T, s *deliverySite) {
			t.Helper()
			if err := os.Rename(s.store()+".moved", s.store()); err != nil {
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
		begin: func(t *testing.T, s *deliverySite) {
			t.Helper()
			var err error
			if conn, err = s.stored(t).Conn(context.Background()); err != nil {
				t.Fatal(err)
			}
			run(t, "BEGIN EXCLUSIVE")
		},
		end: func(t *testing.T, _ *deliverySite) {
			t.Helper()
			run(t, "ROLLBACK")
		},
	}
}

// postgresGone is a database server that is down temporarily.
func postgresGone() storeFault {
	w := new(way)
	return storeFault{
		prepare: func(t *testing.T, s *deliverySite) {
			t.Helper()
			dsn, err := url.Parse(testPostgres(t))
			if err != nil {
				t.Fatal("TIMGUARD_TEST_POSTGRES is not a URL")
			}
			w.address, w.target = guardtest.FreePort(t), dsn.Host
			w.open(t)
			t.Cleanup(w.close)
			s.options = "store postgres " + postgresDSN(t, w.address)
		},
		begin: func(*testing.T, *deliverySite) { w.close() },
		end:   func(t *testing.T, _ *deliverySite) { t.Helper(); w.open(t) },
	}
}

// way is a TCP proxy to a server that can be interrupted.
type way struct {
	address, target string

	mu       sync.Mutex
	listener net.Listener
	conns    []net.Conn
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
					_, _ = io.Copy(pair[0], pair[1])
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
