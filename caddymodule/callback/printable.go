// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

import (
	"fmt"
	"strings"
	"unicode"
)

// Printable escapes characters that could mislead the reader of a terminal or log,
// such as control characters (including C1) and bidirectional overrides. Use it for
// text that an unauthenticated caller may have chosen.
func Printable(text string) string {
	if !strings.ContainsFunc(text, isHidden) {
		return text
	}
	var b strings.Builder
	for _, r := range text {
		if isHidden(r) {
			fmt.Fprintf(&b, `\u%04x`, r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

func isHidden(r rune) bool { return !unicode.IsGraphic(r) }
