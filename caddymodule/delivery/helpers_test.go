// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"net/url"
	"strings"
	"testing"

	"github.com/timguard/timguard/caddymodule/internal/guardtest"
)

// eachStore runs the test once for each store, given the option that chooses it.
func eachStore(t *testing.T, test func(t *testing.T, option string)) {
	t.Helper()
	for name, option := range map[string]func(testing.TB) string{
		"sqlite":   func(testing.TB) string { return "" },
		"postgres": storeInPostgres,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, option(t))
		})
	}
}

func storeInPostgres(tb testing.TB) string {
	tb.Helper()
	return "store postgres " + guardtest.PostgresDSN(tb, "")
}

// rows returns how many rows the SQLite store has, and how many it has ever had.
func rows(t *testing.T, s *guardtest.Site) (now, ever int) {
	t.Helper()
	db := s.OpenStore(t)
	defer db.Close()
	err := db.QueryRow("SELECT (SELECT count(*) FROM river_job), (SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'river_job')").Scan(&now, &ever)
	if err != nil {
		t.Fatal(err)
	}
	return now, ever
}

// inStore executes a statement in the site's store.
func inStore(t *testing.T, s *guardtest.Site, sqlite, postgres string) {
	t.Helper()
	if _, dsn, found := strings.Cut(s.Options, "store postgres "); found {
		dsn, _, _ = strings.Cut(dsn, "\n")
		u, err := url.Parse(dsn)
		if err != nil {
			t.Fatal("the DSN is not a URL")
		}
		guardtest.ExecPostgres(t, "SET search_path TO "+u.Query().Get("search_path")+"; "+postgres)
		return
	}
	db := s.OpenStore(t)
	defer db.Close()
	if _, err := db.Exec(sqlite); err != nil {
		t.Fatal(err)
	}
}
