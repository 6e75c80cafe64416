// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package outbox

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
)

// drivers are the stores that every contract test runs against.
var drivers = []string{"sqlite", "postgres"}

// eachDriver runs test against every store.
func eachDriver(t *testing.T, test func(t *testing.T, driver string)) {
	t.Parallel()
	for _, driver := range drivers {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			test(t, driver)
		})
	}
}

// configFor returns the configuration of an empty store that is removed at the
// end of the test.
func configFor(t testing.TB, driver string) Config {
	t.Helper()
	config := Config{Driver: driver, Logger: slog.New(slog.DiscardHandler)}
	if driver == "sqlite" {
		config.Path = filepath.Join(t.TempDir(), "outbox.db")
	} else {
		config.DSN = schemaDSN(t)
	}
	return config
}

var schemas atomic.Int64

// schemaDSN makes a schema in the PostgreSQL database for tests.
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

// admin runs one statement on the PostgreSQL database for tests.
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

// mustOpen opens config until the end of the test.
func mustOpen(t testing.TB, config Config) *Outbox {
	t.Helper()
	o, err := Open(context.Background(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.Close)
	return o
}

// recall returns a callback as a guard would store it.
func recall(key string) Callback {
	return Callback{
		Command: "Group.CallbackAfterRecallMsg", SDKAppID: "1400000000", GroupID: "@TGS#1", MsgSeqs: []uint32{7, 4294967295},
		Guard: "default", Key: key, Signed: true, Received: time.Now().UTC().Truncate(time.Second),
		Server: "srv0", Method: "POST", Host: "im.example.com", URI: "/cb?SdkAppid=1400000000&x=%E4%BD%A0&a=b", Proto: "HTTP/1.1",
		TLS: true, RemoteAddr: "203.0.113.7:4711", Header: map[string][]string{"Content-Type": {"application/json"}, "X": {"1", "2"}},
		Body: `{"CallbackCommand":"Group.CallbackAfterRecallMsg", "GroupId":"@TGS#1","Operator_Account":"` + strings.Repeat("u", 40) + `","MsgSeqList":[{"MsgSeq":7}]}`,
	}
}

// mustPut stores c.
func mustPut(t testing.TB, o *Outbox, c Callback) (duplicate bool) {
	t.Helper()
	duplicate, err := o.Put(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	return duplicate
}

// mustWork starts a worker set for the guard "default" until the end of the test.
func mustWork(t testing.TB, o *Outbox, deliver DeliverFunc) *Workers {
	t.Helper()
	w, err := o.Work(map[string]DeliverFunc{"default": deliver}, 16)
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
func count(t testing.TB, o *Outbox, state State) int {
	t.Helper()
	s, err := o.Stats(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return s.Count[state]
}
