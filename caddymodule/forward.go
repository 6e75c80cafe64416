// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

const actionForward = "forward"

func init() {
	registerAction(actionForward, action{
		options:  []string{"copy", "deadline", "fallback"},
		check:    Rule.checkFallback,
		forwards: true,
		serve:    (*Handler).forward,
	})
	registerOption("deadline", option{
		given:     func(r *Rule) bool { return r.Deadline != 0 },
		unmarshal: func(r *Rule, d *caddyfile.Dispenser) error { return UnmarshalDuration(d, &r.Deadline) },
	})
	registerOption("fallback", option{
		given:     func(r *Rule) bool { return r.Fallback != nil },
		unmarshal: (*Rule).unmarshalFallback,
	})
}

// forward passes the callback on to the next handler, even if storing it for the rule's
// consumers fails. In report mode, the options of the rule have no effect.
func (h *Handler) forward(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, c *call) error {
	if h.Mode == modeEnforce {
		_ = h.copy(r, c)
	}
	h.prepare(r, c)
	if h.Mode == modeEnforce && c.rule.Fallback != nil {
		return h.forwardOrFallback(w, r, next, c)
	}
	return next.ServeHTTP(w, r)
}

// prepare restores the request's body, and removes internal headers and those that would
// make the backend read the callback differently. Rejected callbacks, which are
// forwarded in report mode, keep their headers.
func (h *Handler) prepare(r *http.Request, c *call) {
	c.body.restore(r)
	delete(r.Header, attemptHeader) // reserved for deliveries
	delete(r.Header, consumerHeader)
	if c.rejection == nil {
		normalizeHeader(r.Header)
	}
	if h.StripAuth {
		stripAuth(r)
	}
}

// normalizeHeader makes the header describe what the guard has verified, a plain request
// with JSON in UTF-8. With the Content-Type of a form, PHP, Express and Go would parse
// protocol fields out of a string in the JSON, and with another charset, Node and Python
// would read another payload. Upgrade would allow the caller to switch protocols.
func normalizeHeader(header http.Header) {
	kinds, ok := header["Content-Type"]
	if ok && (len(kinds) != 1 || !isTextInUTF8(kinds[0])) {
		header.Set("Content-Type", "application/json")
	}
	_, upgrades := header["Upgrade"]
	if upgrades || slices.ContainsFunc(header["Connection"], namesUpgrade) {
		header.Del("Upgrade")
		header.Del("Connection")
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
	r.URL.RawQuery = WithoutAuth(r.URL.RawQuery)
	r.RequestURI = r.URL.RequestURI()
	if original, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request); ok {
		original.URL.RawQuery = WithoutAuth(original.URL.RawQuery)
		original.RequestURI = original.URL.RequestURI()
		// Modify the request in place, because Caddy's placeholders refer to it.
		*r = *r.WithContext(context.WithValue(r.Context(), caddyhttp.OriginalRequestCtxKey, original))
	}
}

// WithoutAuth returns the raw query without the parameters Sign and RequestTime. It does
// not modify or reorder the others.
func WithoutAuth(raw string) string {
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
