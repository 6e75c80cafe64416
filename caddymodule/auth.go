// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// stripAuth removes Sign and RequestTime from the query of what is forwarded,
// also from the original URL, which php_fastcgi hands on.
func stripAuth(r *http.Request) {
	r.URL.RawQuery = withoutAuth(r.URL.RawQuery)
	r.RequestURI = r.URL.RequestURI()
	if original, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request); ok {
		original.URL.RawQuery = withoutAuth(original.URL.RawQuery)
		original.RequestURI = original.URL.RequestURI()
		// In place, because Caddy's placeholders look at this request.
		*r = *r.WithContext(context.WithValue(r.Context(), caddyhttp.OriginalRequestCtxKey, original))
	}
}

// withoutAuth returns the raw query without the parameters Sign and RequestTime.
// The others keep their bytes and their order.
func withoutAuth(raw string) string {
	var kept []string
	for pair := range strings.SplitSeq(raw, "&") {
		name, _, _ := strings.Cut(pair, "=")
		if decoded, err := url.QueryUnescape(name); err == nil && (decoded == "Sign" || decoded == "RequestTime") {
			continue
		}
		kept = append(kept, pair)
	}
	return strings.Join(kept, "&")
}
