// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"context"
	"net/http"
	"net/url"
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// php_fastcgi and {http.request.orig_uri} use the URL of the original request.
func TestStripAuthAlsoStripsTheOriginalRequest(t *testing.T) {
	t.Parallel()
	const raw = "a=1&Sign=x&RequestTime=1&b=%41"
	r := newPost(t, raw, nil)
	original := http.Request{Method: http.MethodPost, RequestURI: "/callback?" + raw, URL: &url.URL{Path: "/callback", RawQuery: raw}}
	r = r.WithContext(context.WithValue(r.Context(), caddyhttp.OriginalRequestCtxKey, original))
	stripAuth(r)

	stripped, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request)
	if !ok {
		t.Fatal("the original request is gone")
	}
	for what, got := range map[string]string{
		"RequestURI":   r.RequestURI,
		"URL":          r.URL.RequestURI(),
		"original URL": stripped.URL.RequestURI(),
	} {
		if got != "/callback?a=1&b=%41" {
			t.Errorf("%s is %s", what, got)
		}
	}
}
