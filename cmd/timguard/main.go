// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

// Command timguard is Caddy with its standard modules and timguard's.
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard" // Caddy's standard modules

	_ "github.com/timguard/timguard/caddymodule" // tim_callback
)

func main() {
	caddycmd.Main()
}
