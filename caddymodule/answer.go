// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"net/http"
	"strconv"
)

// answer writes the guard's own answer.
func (c *call) answer(w http.ResponseWriter, status int, answer []byte) {
	header := w.Header()
	header.Set("Content-Type", "application/json")
	header.Set("Content-Length", strconv.Itoa(len(answer)))
	if c.closes {
		header.Set("Connection", "close")
	}
	w.WriteHeader(status)
	_, _ = w.Write(answer) //nolint:gosec // JSON; a caller that has gone needs no answer
}
