// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

// Package guardtest provides helpers for the tests of the guard and of deliveries.
package guardtest

import (
	"flag"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/timguard/timguard/caddymodule/callback"
)

const (
	// App is the SDKAppID of the app under test.
	App = "1400000000"

	// Token signs the callbacks of App.
	Token = "first-token-K7vQ2"

	// NewToken signs the callbacks of App after rotation.
	NewToken = "second-token-W3xZ9"

	// OKJSON is the OK answer in Tencent's format.
	OKJSON = `{"ActionStatus":"OK","ErrorInfo":"","ErrorCode":0}`
)

// Query returns a raw query in Tencent's order, which is alphabetical, with an additional
// parameter of the customer in the middle.
func Query(app, command, auth string) string {
	q := "CallbackCommand=" + command + "&ClientIP=203.0.113.7&OptPlatform=RESTAPI&Region=a%2Fb+c"
	if auth != "" {
		q += "&" + auth
	}
	return q + "&SdkAppid=" + app + "&contenttype=json"
}

// Signed returns RequestTime and Sign as raw query parameters.
func Signed(token string, at time.Time) string {
	requestTime := strconv.FormatInt(at.Unix(), 10)
	return "RequestTime=" + requestTime + "&Sign=" + callback.Sign(token, requestTime)
}

// Guard returns a tim_callback directive for App.
func Guard(subdirectives ...string) string {
	return "tim_callback {\n app " + App + " " + Token + "\n" + strings.Join(subdirectives, "\n") + "\n}"
}

// assigned holds the ports that FreePort has returned.
var assigned sync.Map

// FreePort returns a local address with a free port that it has not returned before.
// Tests run in parallel, and need some time before they listen. The port is below those
// that systems give to outgoing connections, which would take it in the meantime.
func FreePort(tb testing.TB) string {
	tb.Helper()
	for {
		port := 10000 + rand.IntN(20000) //nolint:gosec // a port need not be unguessable
		if _, again := assigned.LoadOrStore(port, true); again {
			continue
		}
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		if listener, err := net.Listen("tcp", ":"+strconv.Itoa(port)); err == nil { // as Caddy does
			_ = listener.Close()
			return address
		}
	}
}

// Itself returns the path of the test binary. It does not use os.Args, because caddytest
// overwrites it.
func Itself() string {
	path, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return path
}

// RunMoreInParallel makes more tests run in parallel than there are processors, unless
// -parallel says how many, because most of the time they wait for processes. TestMain calls it.
func RunMoreInParallel() {
	flag.Parse()
	const parallel = "test.parallel"
	if flag.Lookup(parallel).Value.String() == strconv.Itoa(runtime.GOMAXPROCS(0)) {
		_ = flag.Set(parallel, strconv.Itoa(4*runtime.GOMAXPROCS(0)))
	}
}
