// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

// Package timguard registers all timguard modules with Caddy. It allows building with
// xcaddy by the path of the Go module:
//
//	xcaddy build --with github.com/timguard/timguard
//
// The modules are in the packages that it imports. A Caddy with only the package
// caddymodule has the guard, but does not store callbacks.
package timguard

import (
	_ "github.com/timguard/timguard/caddymodule"                   // the guard
	_ "github.com/timguard/timguard/caddymodule/command"           // tim-callback
	_ "github.com/timguard/timguard/caddymodule/console"           // the console
	_ "github.com/timguard/timguard/caddymodule/delivery"          // deliveries
	_ "github.com/timguard/timguard/caddymodule/delivery/postgres" // optional store
	_ "github.com/timguard/timguard/caddymodule/delivery/sqlite"   // default store
	_ "github.com/timguard/timguard/caddymodule/publish"           // brokers
	_ "github.com/timguard/timguard/caddymodule/publish/amqp"      // RabbitMQ
	_ "github.com/timguard/timguard/caddymodule/publish/kafka"     // Kafka
)

// Version is the version of timguard, without the v of the tag.
const Version = "0.1.0"
