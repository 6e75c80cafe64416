// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/timguard/timguard/caddymodule/callback"
)

// prepare removes what would make the backend read the callback differently than the guard
// has. Rejected callbacks, which are forwarded in report mode, keep their headers, except for
// those that are reserved for deliveries. A trailer would make the upstream request chunked,
// which some backends cannot read.
func (h *Handler) prepare(r *http.Request, c *call) {
	deleteHeaders(r.Header, reservedHeaders)
	r.Trailer = nil
	if c.rejection == nil {
		normalize(r)
	}
	if h.StripAuth {
		stripAuth(r)
	}
}

// normalize makes the request be what the guard has verified: a plain POST of JSON in
// UTF-8. With the Content-Type of a form, PHP, Express and Go would parse protocol fields
// out of a string in the JSON; to php_fastcgi and Rack, none at all is that of a form. With
// another charset, Node and Python would read another payload. Upgrade would allow the
// caller to switch protocols.
func normalize(r *http.Request) {
	if kinds := r.Header["Content-Type"]; len(kinds) != 1 || !isTextInUTF8(kinds[0]) {
		r.Header.Set("Content-Type", "application/json")
	}
	if _, upgrades := r.Header["Upgrade"]; upgrades || slices.ContainsFunc(r.Header["Connection"], namesUpgrade) {
		delete(r.Header, "Upgrade")
		delete(r.Header, "Connection")
	}
	deleteHeaders(r.Header, overridingHeaders)
}

// overridingHeaders are headers by which backends would read something other than the URL
// and the body: PHP's $_REQUEST contains cookies, frameworks take method and route from the
// X- headers, and Te and Trailer announce trailers, which are removed.
var overridingHeaders = []string{
	"Cookie", "Te", "Trailer",
	"X-Http-Method", "X-Http-Method-Override", "X-Method-Override", "X-Original-Url", "X-Rewrite-Url",
}

// reservedHeaders are set by deliveries only.
var reservedHeaders = []string{"Tim-Delivery-Attempt", "Tim-Delivery-Consumer", "Tim-Event-Id"}

// deleteHeaders deletes the headers, also if they are written with underscores: CGI and
// WSGI do not distinguish these from hyphens.
func deleteHeaders(header http.Header, names []string) {
	for _, name := range names {
		delete(header, name)
	}
	for name := range header {
		if strings.Contains(name, "_") && slices.Contains(names, http.CanonicalHeaderKey(strings.ReplaceAll(name, "_", "-"))) {
			delete(header, name)
		}
	}
}

// isTextInUTF8 reports whether backends read a body with the Content-Type only as JSON or
// plain text in UTF-8.
func isTextInUTF8(contentType string) bool {
	media, charset, _ := strings.Cut(strings.ToLower(contentType), ";")
	switch strings.TrimSpace(media) {
	case "application/json", "text/plain":
	default:
		return false
	}
	switch strings.TrimSpace(charset) {
	case "", "charset=utf-8", `charset="utf-8"`:
		return true
	}
	return false
}

func namesUpgrade(connection string) bool {
	return strings.Contains(strings.ToLower(connection), "upgrade")
}

// stripAuth removes Sign and RequestTime from the query of the request, and of the
// original request, which php_fastcgi uses.
func stripAuth(r *http.Request) {
	r.URL.RawQuery = callback.WithoutAuth(r.URL.RawQuery)
	r.RequestURI = r.URL.RequestURI()
	if original, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request); ok {
		original.URL.RawQuery = callback.WithoutAuth(original.URL.RawQuery)
		original.RequestURI = original.URL.RequestURI()
		// Modify the request in place, because Caddy's placeholders refer to it.
		*r = *r.WithContext(context.WithValue(r.Context(), caddyhttp.OriginalRequestCtxKey, original))
	}
}
