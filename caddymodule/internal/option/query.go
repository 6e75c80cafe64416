// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package option

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// Query parses a query whose parameters are what, each given once, and have one of the names.
func Query(what, rawQuery string, names ...string) (url.Values, error) {
	query, err := url.ParseQuery(rawQuery)
	if err != nil {
		return nil, fmt.Errorf("query: %w", err)
	}
	for name, values := range query {
		if !slices.Contains(names, name) {
			last := len(names) - 1
			return nil, fmt.Errorf("unknown %s %q: want %s or %s", what, name, strings.Join(names[:last], ", "), names[last])
		}
		if len(values) > 1 {
			return nil, fmt.Errorf("the %s %s is given twice: want it once", what, name)
		}
	}
	return query, nil
}
