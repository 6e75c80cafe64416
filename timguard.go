// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

// Package timguard registers the tim_callback modules with Caddy. It exists so
// that xcaddy's --with can name the root of the module:
//
//	xcaddy build --with github.com/timguard/timguard
//
// The modules themselves live below: a Caddy with package caddymodule alone is a
// guard that stores nothing.
package timguard

import (
	_ "github.com/timguard/timguard/caddymodule"                   // the guard
	_ "github.com/timguard/timguard/caddymodule/delivery"          // deliveries
	_ "github.com/timguard/timguard/caddymodule/delivery/postgres" // a store
	_ "github.com/timguard/timguard/caddymodule/delivery/sqlite"   // the default store
)

// Version is timguard's, without the v of its tag.
const Version = "0.1.0"
