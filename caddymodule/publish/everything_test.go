// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package publish_test

import (
	"flag"
	"os"
	"runtime"
	"strconv"
	"testing"

	_ "github.com/caddyserver/caddy/v2/modules/standard" // sites have more than guards

	_ "github.com/timguard/timguard" // with the brokers and the stores
	"github.com/timguard/timguard/caddymodule/internal/guardtest"
)

// TestMain runs more tests in parallel than there are processors, because most of the time
// they wait for brokers. It stops the RabbitMQ that tests share.
func TestMain(m *testing.M) {
	flag.Parse()
	const parallel = "test.parallel"
	if flag.Lookup(parallel).Value.String() == strconv.Itoa(runtime.GOMAXPROCS(0)) {
		_ = flag.Set(parallel, strconv.Itoa(4*runtime.GOMAXPROCS(0)))
	}
	status := m.Run()
	if sharedRabbit.node != nil {
		sharedRabbit.node.stop()
	}
	os.Exit(status)
}

// TestCaddyProcess is not a test: it runs timguard in a process that a test started.
func TestCaddyProcess(*testing.T) { guardtest.RunCaddy() }
