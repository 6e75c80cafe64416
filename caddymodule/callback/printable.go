// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

import (
	"fmt"
	"strings"
	"unicode"
)

// Printable returns the text with escapes in place of what a terminal or a log
// viewer would not show as it is: controls, also those of Latin-1, and marks that
// change the direction of the text. Names and parameters may be a stranger's.
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
