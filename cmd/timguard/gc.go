// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package main

import "os"

// reserveSize is how much is allocated at least between two garbage collections.
const reserveSize = 16 << 20

// reserve is memory that is never touched, so that it needs no RAM. The garbage collector
// counts it as live, and therefore begins later. Callbacks need a heap of a few MB, which
// Go would collect many times a second; a large heap is collected as always. Unlike a higher
// GOGC, it does not multiply the memory of many slow clients.
var reserve []byte //nolint:unused // only the garbage collector looks at it

// collectLater delays garbage collections, unless GOGC says when they are due. Caddy's limit
// of the memory stays in force.
func collectLater() {
	if os.Getenv("GOGC") == "" {
		reserve = make([]byte, reserveSize)
	}
}
