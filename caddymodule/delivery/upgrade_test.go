// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/timguard/timguard/caddymodule/internal/guardtest"
	"github.com/timguard/timguard/caddymodule/outbox"
)

// The database is of the previous version, with a callback that awaits its second
// attempt.
func TestEndToEndDeliveryFromADatabaseOfThePreviousVersion(t *testing.T) {
	t.Parallel()
	for name, restore := range map[string]func(t *testing.T, s *guardtest.Site, dump string){
		"sqlite": func(t *testing.T, s *guardtest.Site, dump string) {
			t.Helper()
			db := s.OpenStore(t)
			defer db.Close()
			if _, err := db.Exec(dump); err != nil {
				t.Fatal(err)
			}
		},
		"postgres": func(t *testing.T, s *guardtest.Site, dump string) {
			t.Helper()
			dsn, schema := guardtest.PostgresSchema(t, "")
			s.Options = "store postgres " + dsn
			// The dump is of a schema named before.
			guardtest.ExecPostgres(t, "DROP SCHEMA "+schema+"; CREATE SCHEMA before; "+dump+" ALTER SCHEMA before RENAME TO "+schema)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dump, err := os.ReadFile(filepath.Join("testdata", "before", name+".sql"))
			if err != nil {
				t.Fatal(err)
			}
			b := guardtest.NewBackend(t, guardtest.Accepts)
			s := guardtest.NewSite(t, guardtest.Delivering(b, "name front"))
			restore(t, s, string(dump))
			s.Start(t)
			a := b.One(t, guardtest.Event("upgrade"))
			if err := a.IsDelivery("/callback", guardtest.Token); err != nil {
				t.Error(err)
			}
			if n := a.Header.Get("Tim-Delivery-Attempt"); n != "2" {
				t.Errorf("it is attempt %s, want 2", n)
			}
			s.WantState(t, outbox.Delivered, 1)
		})
	}
}
