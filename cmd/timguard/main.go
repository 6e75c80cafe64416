// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

// Command timguard is Caddy with its standard modules and timguard's.
package main

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard" // Caddy's standard modules

	"github.com/timguard/timguard"
)

// version is timguard's. packaging/build sets that of the package.
var version = timguard.Version

func main() {
	collectLater()
	caddy.CustomBinaryName = strings.TrimSuffix(filepath.Base(os.Args[0]), ".exe")
	caddy.CustomVersion = "timguard v" + version + " on Caddy" // Caddy appends its version
	caddycmd.Main()
}
