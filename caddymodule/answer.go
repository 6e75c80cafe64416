// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"net/http"
	"strconv"
)

// answer writes an answer of the guard itself.
func (c *call) answer(w http.ResponseWriter, status int, answer []byte) {
	header := w.Header()
	header.Set("Content-Type", "application/json")
	header.Set("Content-Length", strconv.Itoa(len(answer)))
	if c.closes {
		header.Set("Connection", "close")
	}
	w.WriteHeader(status)
	_, _ = w.Write(answer) //nolint:gosec // JSON; an error means that the caller is gone
}
