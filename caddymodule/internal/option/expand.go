// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package option

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/caddyserver/caddy/v2"
)

// Expand replaces the placeholders in a setting that may be a secret, when the configuration
// is loaded. Each must have a value. The error names the placeholder, but does not contain
// other text in braces, which may be a part of a password.
func Expand(text string) (string, error) {
	value, err := caddy.NewReplacer().ReplaceOrErr(text, true, true)
	if err == nil {
		return value, nil
	}
	if key := placeholderIn.FindString(err.Error()); isNameable(key) || key == text {
		return "", fmt.Errorf("%w; it must have a value in the environment or files of the running server: "+
			"a reload cannot add environment variables", err)
	}
	return "", errors.New(`contains a placeholder without a value; write \{ for a literal brace`)
}

var placeholderIn = regexp.MustCompile(`\{[^{}]*\}`)

func isNameable(placeholder string) bool {
	return strings.HasPrefix(placeholder, "{env.") || strings.HasPrefix(placeholder, "{file.")
}
