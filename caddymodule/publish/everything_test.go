// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package publish_test

import (
	"os"
	"testing"

	_ "github.com/caddyserver/caddy/v2/modules/standard" // sites have more than guards

	_ "github.com/timguard/timguard" // with the brokers and the stores
	"github.com/timguard/timguard/caddymodule/internal/guardtest"
)

// TestMain stops the RabbitMQ that tests share.
func TestMain(m *testing.M) {
	guardtest.RunMoreInParallel()
	status := m.Run()
	if sharedRabbit.node != nil {
		sharedRabbit.node.stop()
	}
	os.Exit(status)
}

// TestCaddyProcess is not a test: it runs timguard in a process that a test started.
func TestCaddyProcess(*testing.T) { guardtest.RunCaddy() }
