// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package outbox_test

import (
	"testing"

	"github.com/timguard/timguard/caddymodule/outbox"
)

// River jobs of another program in the same tables are no callbacks, however many there are.
func TestJobsOfOthersAreNotSelected(t *testing.T) {
	t.Parallel()
	o := mustOpen(t, configFor(t, "postgres"))
	mustPut(t, o, recall("a"))
	const others = "INSERT INTO river_job (args, kind, max_attempts, queue, state) SELECT '{}', 'other', 1, 'default', 'available' FROM generate_series(1, 1100)"
	if err := o.Exec(t.Context(), others); err != nil {
		t.Fatal(err)
	}
	f := outbox.Filter{Guard: "default", State: outbox.Pending}
	if n, err := o.CountAll(t.Context(), f); n != 1 || err != nil {
		t.Errorf("%d are counted, error %v", n, err)
	}
	if all, err := o.List(t.Context(), f); len(all) != 1 || err != nil {
		t.Errorf("%d are listed, error %v", len(all), err)
	}
	if n, err := o.RetryAll(t.Context(), f, twenty); n != 1 || err != nil {
		t.Errorf("%d are retried, error %v", n, err)
	}
}
