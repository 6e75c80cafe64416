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
	for name, restore := range map[string]func(t *testing.T, s *deliverySite, dump string){
		"sqlite": func(t *testing.T, s *deliverySite, dump string) {
			t.Helper()
			db := s.stored(t)
			defer db.Close()
			if _, err := db.Exec(dump); err != nil {
				t.Fatal(err)
			}
		},
		"postgres": func(t *testing.T, s *deliverySite, dump string) {
			t.Helper()
			dsn, schema := postgresSchema(t, "")
			s.options = "store postgres " + dsn
			// The dump is of a schema named before.
			execPostgres(t, "DROP SCHEMA "+schema+"; CREATE SCHEMA before; "+dump+" ALTER SCHEMA before RENAME TO "+schema)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dump, err := os.ReadFile(filepath.Join("testdata", "before", name+".sql"))
			if err != nil {
				t.Fatal(err)
			}
			b := newUnsteady(t, accepts)
			s := newDeliverySite(t, delivering(b, "name front"))
			restore(t, s, string(dump))
			s.start(t)
			a := b.one(t, event("upgrade"))
			if err := a.isDelivery("/callback", guardtest.Token); err != nil {
				t.Error(err)
			}
			if n := a.Header.Get("Tim-Delivery-Attempt"); n != "2" {
				t.Errorf("it is attempt %s, want 2", n)
			}
			s.wantState(t, outbox.Delivered, 1)
		})
	}
}
