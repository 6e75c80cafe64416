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
		unmarshal: func(r *Rule, d *caddyfile.Dispenser) error { return positiveDuration(d, &r.Deadline) },
	})
	registerOption("fallback", option{
		given:     func(r *Rule) bool { return r.Fallback != nil },
		unmarshal: (*Rule).unmarshalFallback,
	})
}

// forward passes the callback on to the next handler, also if it cannot be stored
// for the rule's consumers. In report mode no option of the rule counts.
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

// prepare restores the request's body, and removes what is not for the backend, or
// would make it read the callback otherwise. A callback that is forwarded although it
// is rejected keeps what it came with.
func (h *Handler) prepare(r *http.Request, c *call) {
	c.body.restore(r)
	delete(r.Header, attemptHeader) // only a delivery has these
	delete(r.Header, consumerHeader)
	if c.rejection == nil {
		sayJSON(r.Header)
	}
	if h.StripAuth {
		stripAuth(r)
	}
}

// sayJSON makes the headers say what the guard has found the body to be: JSON in
// UTF-8, whole. A form's type makes PHP, Express and Go read protocol fields out of
// a string inside the JSON, and another charset makes Node and Python read another
// payload. Upgrade asks for another protocol after the answer.
func sayJSON(header http.Header) {
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

// isTextInUTF8 reports whether backends read a body with the Content-Type as nothing
// but the JSON text that it is, in UTF-8.
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

// stripAuth removes Sign and RequestTime from the query, also from that of the
// original request, which php_fastcgi passes on.
func stripAuth(r *http.Request) {
	r.URL.RawQuery = WithoutAuth(r.URL.RawQuery)
	r.RequestURI = r.URL.RequestURI()
	if original, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request); ok {
		original.URL.RawQuery = WithoutAuth(original.URL.RawQuery)
		original.RequestURI = original.URL.RequestURI()
		// In place, because Caddy's placeholders look at this request.
		*r = *r.WithContext(context.WithValue(r.Context(), caddyhttp.OriginalRequestCtxKey, original))
	}
}

// WithoutAuth returns the raw query without the parameters Sign and RequestTime.
// The others keep their bytes and their order.
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
