// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

// Package name checks the names of guards and consumers, which stored callbacks refer to.
package name

import (
	"fmt"
	"regexp"
)

var format = regexp.MustCompile(`^[a-z0-9]+(?:[_-]?[a-z0-9]+)*$`)

// Check returns an error if the name is not valid. Valid names have up to 64 lower-case
// letters and digits, and single hyphens or underscores between them.
func Check(name string) error {
	if len(name) > 64 || !format.MatchString(name) {
		return fmt.Errorf("name %q: want up to 64 lower-case letters and digits, in words joined by single - or _", name)
	}
	return nil
}
