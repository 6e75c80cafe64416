// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package name

import (
	"strings"
	"testing"
)

func TestNamesAreWordsOfLowerCaseLettersAndDigits(t *testing.T) {
	t.Parallel()
	for name, valid := range map[string]bool{
		"a": true, "default": true, "front-1": true, "a_b": true, "0": true, strings.Repeat("a", 64): true,
		"": false, "A": false, "a--b": false, "a-_b": false, "-a": false, "a-": false, "a b": false, "a|b": false, "é": false, "a\n": false,
		strings.Repeat("a", 65): false,
	} {
		if err := Check(name); (err == nil) != valid {
			t.Errorf("%q: %v, want it valid: %t", name, err, valid)
		}
	}
}
