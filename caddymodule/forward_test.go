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

func TestWithoutAuthKeepsTheRestByteForByte(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		"":                                 "",
		"a=1":                              "a=1",
		"Sign=x":                           "",
		"Sign":                             "",
		"Sign=x&RequestTime=1":             "",
		"a=1&Sign=x&b=2&RequestTime=1&c=3": "a=1&b=2&c=3",
		"RequestTime=1&a=%41+%2f&&b&=c&":   "a=%41+%2f&&b&=c&",
		"%53ign=x&a=1&Request%54ime=1":     "a=1",
		"sign=x&Signature=y&requesttime=1": "sign=x&Signature=y&requesttime=1",
		"%zz=1&Sign=x":                     "%zz=1",
		"a=Sign=x":                         "a=Sign=x",
		"Sign=a=b&c":                       "c",
	} {
		if got := WithoutAuth(raw); got != want {
			t.Errorf("WithoutAuth(%q) is %q, want %q", raw, got, want)
		}
	}
}

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
