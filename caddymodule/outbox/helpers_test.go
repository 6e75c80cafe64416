// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package outbox_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/timguard/timguard/caddymodule/delivery/postgres"
	"github.com/timguard/timguard/caddymodule/delivery/sqlite"
	"github.com/timguard/timguard/caddymodule/outbox"
)

// config configures a store and its workers.
type config struct {
	driver      string // sqlite or postgres
	store       string // its path or DSN
	timeout     time.Duration
	maxAttempts int
	keep        time.Duration
	ordered     bool
	logger      *slog.Logger
}

// opened is an open store with its configuration.
type opened struct {
	*outbox.Outbox
	config config
}

// drivers are the stores that every contract test runs against.
var drivers = []string{"sqlite", "postgres"}

// eachDriver runs the test with every kind of store.
func eachDriver(t *testing.T, test func(t *testing.T, driver string)) {
	t.Parallel()
	for _, driver := range drivers {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			test(t, driver)
		})
	}
}

// configFor returns the configuration of an empty store, which is removed at the end of
// the test.
func configFor(t testing.TB, driver string) config {
	t.Helper()
	if driver == "postgres" {
		return config{driver: driver, store: schemaDSN(t)}
	}
	return config{driver: driver, store: filepath.Join(t.TempDir(), "outbox.db")}
}

var schemas atomic.Int64

// schemaDSN creates a schema in the PostgreSQL test database and returns its DSN.
func schemaDSN(t testing.TB) string {
	t.Helper()
	dsn := os.Getenv("TIMGUARD_TEST_POSTGRES")
	if dsn == "" {
		t.Skip("TIMGUARD_TEST_POSTGRES is not set")
	}
	schema := fmt.Sprintf("outbox_%d_%d", os.Getpid(), schemas.Add(1))
	admin(t, "CREATE SCHEMA "+schema)
	t.Cleanup(func() { admin(t, "DROP SCHEMA "+schema+" CASCADE") })
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal("TIMGUARD_TEST_POSTGRES is not a URL")
	}
	q := u.Query()
	q.Set("search_path", schema)
	q.Set("application_name", schema)
	u.RawQuery = q.Encode()
	return u.String()
}

// admin runs a statement on the PostgreSQL test database.
func admin(t testing.TB, sql string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, os.Getenv("TIMGUARD_TEST_POSTGRES"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, sql); err != nil {
		t.Fatal(err)
	}
}

// open opens the store.
func (c config) open() (*opened, error) {
	if c.logger == nil {
		c.logger = slog.New(slog.DiscardHandler)
	}
	open := sqlite.Open
	if c.driver == "postgres" {
		open = postgres.Open
	}
	first := make(chan error, 1) // of the first try
	o := outbox.Open(func() (store outbox.Store, err error) {
		store, err = open(c.store, c.logger)
		select {
		case first <- err:
		default:
		}
		return store, err
	}, c.logger)
	select {
	case err := <-first:
		return &opened{o, c}, err
	default: // Open has not waited for it
		return &opened{o, c}, nil
	}
}

// mustOpen opens the store, and closes it at the end of the test.
func mustOpen(t testing.TB, c config) *opened {
	t.Helper()
	o, err := c.open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.Close)
	select {
	case <-o.Ready():
	case <-time.After(30 * time.Second):
		t.Fatal("the store is not open within 30s")
	}
	return o
}

// recall returns a callback as a guard would store it.
func recall(key string) outbox.Callback {
	return outbox.Callback{
		Command: "Group.CallbackAfterRecallMsg", SdkAppID: "1400000000", GroupID: "@TGS#1", MsgSeqs: []uint32{7, 4294967295},
		Guard: "default", Key: key, Signed: true, Received: time.Now().UTC().Truncate(time.Second),
		Conversation: "@TGS#1", EventID: key, Target: "/x?SdkAppid=1400000000", MaxAttempts: 20,
		Method: "POST", Host: "im.example.com", URI: "/cb?SdkAppid=1400000000&x=%E4%BD%A0&a=b", Proto: "HTTP/1.1",
		TLS: true, RemoteAddr: "203.0.113.7:4711", Header: map[string][]string{"Content-Type": {"application/json"}, "X": {"1", "2"}},
		Body: `{"CallbackCommand":"Group.CallbackAfterRecallMsg", "GroupId":"@TGS#1","Operator_Account":"` + strings.Repeat("u", 40) + `","MsgSeqList":[{"MsgSeq":7}]}`,
	}
}

// put stores the callbacks and reports whether any is a duplicate.
func (o *opened) put(ctx context.Context, callbacks ...outbox.Callback) (duplicate bool, err error) {
	var all []*outbox.Callback
	for _, c := range callbacks {
		c.MaxAttempts, c.Ordered = o.maxAttempts(outbox.Queue{}), o.config.ordered
		all = append(all, &c)
	}
	duplicates, err := o.Put(ctx, all...)
	return duplicates > 0, err
}

func (o *opened) maxAttempts(outbox.Queue) int {
	if o.config.maxAttempts > 0 {
		return o.config.maxAttempts
	}
	return 20
}

// mustPut stores c, which must not fail.
func mustPut(t testing.TB, o *opened, c outbox.Callback) (duplicate bool) {
	t.Helper()
	duplicate, err := o.put(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	return duplicate
}

// work starts workers for the guards.
func (o *opened) work(deliver map[string]outbox.DeliverFunc, each int) (*outbox.Workers, error) {
	queues := make(map[outbox.Queue]outbox.DeliverFunc)
	for guard, d := range deliver {
		queues[outbox.Queue{Guard: guard}] = d
	}
	return o.workQueues(queues, each)
}

func (o *opened) workQueues(queues map[outbox.Queue]outbox.DeliverFunc, each int) (*outbox.Workers, error) {
	c := outbox.WorkConfig{Queues: make(map[outbox.Queue]outbox.QueueConfig), Keep: 24 * time.Hour, KeepDead: 720 * time.Hour}
	for name, deliver := range queues {
		q := outbox.QueueConfig{Deliver: deliver, Workers: each, Timeout: 30 * time.Second, Ordered: o.config.ordered}
		if o.config.timeout > 0 {
			q.Timeout = o.config.timeout
		}
		c.Queues[name] = q
	}
	if o.config.keep > 0 {
		c.Keep = o.config.keep
	}
	return o.Work(c)
}

// mustWork starts workers for the guard "default", and stops them at the end of the
// test.
func mustWork(t testing.TB, o *opened, deliver outbox.DeliverFunc) *outbox.Workers {
	t.Helper()
	w, err := o.work(map[string]outbox.DeliverFunc{"default": deliver}, 16)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// eventually waits until ok returns true.
func eventually(t testing.TB, within time.Duration, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(within); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("not within %v: %s", within, what)
}

// count returns the number of callbacks in a state.
func count(t testing.TB, o *opened, state outbox.State) (n int) {
	t.Helper()
	counts, err := o.Counts(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range counts {
		if c.State == state {
			n += c.N
		}
	}
	return n
}

// oldestAge returns the age of the oldest callback that awaits delivery.
func oldestAge(t testing.TB, o *opened) (oldest time.Duration) {
	t.Helper()
	counts, err := o.Counts(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range counts {
		if !c.Oldest.IsZero() {
			oldest = max(oldest, time.Since(c.Oldest))
		}
	}
	return oldest
}

func twenty(outbox.Queue) outbox.Options { return outbox.Options{MaxAttempts: 20} }
