// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package delivery_test

import (
	"os"
	"testing"

	_ "github.com/caddyserver/caddy/v2/modules/standard" // sites have more than guards

	_ "github.com/timguard/timguard" // with both stores
	"github.com/timguard/timguard/caddymodule/internal/guardtest"
)

func TestMain(m *testing.M) {
	guardtest.RunMoreInParallel()
	os.Exit(m.Run())
}

// TestCaddyProcess is not a test: it runs timguard in a process that a test started.
func TestCaddyProcess(*testing.T) { guardtest.RunCaddy() }
