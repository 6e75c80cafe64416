// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package publish

import (
	"fmt"
	"regexp"

	"github.com/timguard/timguard/caddymodule/internal/option"
)

// auth matches placeholders that contain the Sign, which is valid for others to use.
var auth = regexp.MustCompile(`\{http\.request\.(orig_)?uri(_escaped)?(\.(prefixed_)?query(_escaped)?(\.(Sign|RequestTime))?)?(:[^}]*)?\}`)

// CheckText rejects a text of an option that would put the Sign into a message.
func CheckText(name, text string) error {
	if found := auth.FindString(text); found != "" {
		return fmt.Errorf("%s: %s contains the Sign, which must not be published; take {http.request.uri.path} or {http.request.uri.query.<name>}, or a placeholder of tim_callback",
			name, found)
	}
	return nil
}

// Setting returns the text of an option that is the same for all messages, with placeholders
// such as {env.NAME} replaced. Errors contain the names of placeholders, but no values.
func Setting(name, text string) (string, error) {
	got, err := option.Expand(text)
	if err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	return got, nil
}
