// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"errors"
	"fmt"
	"net/http"

	"go.uber.org/zap"
)

// Recover calls serve, and returns a panic of a handler in it, for which the HTTP
// server would close the connection, as an error.
func Recover(logger *zap.Logger, serve func() error) (err error) {
	defer func() {
		switch v := recover(); v {
		case nil:
		case http.ErrAbortHandler:
			err = errors.New("the answer was cut off")
		default: // the value may contain payload
			logger.Error("handler panicked", zap.String("type", fmt.Sprintf("%T", v)), zap.Stack("stack"))
			err = errors.New("a handler panicked")
		}
	}()
	return serve()
}
