// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"bytes"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/timguard/timguard/caddymodule/callback"
	"github.com/timguard/timguard/caddymodule/internal/guardtest"
)

// Whatever the caller sends, the backend gets the bytes of the body with their length, and
// no header or trailer by which it would read something else.
func TestEndToEndForwardsNoOverridingHeaders(t *testing.T) {
	b := newBackend(t)
	trailer := http.Header{"Tim-Delivery-Consumer": {"evil"}, "X-Any": {"1"}}
	kept := http.Header{"X-Forwarded-Proto": {"https"}, "X-Request-Id": {"7"}, "Content-Type": {"application/json"}}
	for name, s := range map[string]site{
		"forward":          guarded(b, "on after forward"),
		"forward or allow": guarded(b, "on before forward {\n fallback allow\n}", "on after forward"),
		"report":           guarded(b, "mode report", "on before after forward"),
	} {
		s.servers = "trusted_proxies static private_ranges"
		s.start(t)
		for _, p := range protocols(t) {
			for _, command := range []string{callback.RecallCommand, beforeSend} {
				if name == "forward" && command == beforeSend {
					continue
				}
				for _, chunked := range []bool{false, true} {
					q := request{
						query: guardtest.Query(guardtest.App, command, guardtest.Signed(guardtest.Token, time.Now())),
						body:  callback.Sample(command), chunked: chunked, header: hostileHeader(),
					}
					maps.Copy(q.header, kept)
					if chunked {
						q.trailer = trailer.Clone()
					}
					if p.name == "h2c" {
						delete(q.header, "Te")
					}
					p.send(t, q).wantOK(t)
					got := b.takeOne(t)
					if !bytes.Equal(got.Body, q.body) || got.ContentLength != int64(len(q.body)) || len(got.TransferEncoding) > 0 || len(got.Trailer) > 0 {
						t.Errorf("%s, %s, %s, chunked %t: %d bytes of %d, transfer encoding %v, trailer %v",
							name, p.name, command, chunked, len(got.Body), got.ContentLength, got.TransferEncoding, got.Trailer)
					}
					for forbidden := range hostileHeader() {
						if values, there := got.Header[forbidden]; there {
							t.Errorf("%s, %s: the backend received %s: %v", name, p.name, forbidden, values)
						}
					}
					for header, values := range kept {
						if !slices.Equal(got.Header[header], values) {
							t.Errorf("%s, %s: %s is %v, want %v", name, p.name, header, got.Header[header], values)
						}
					}
				}
			}
		}
	}
}

// Caddy's transport for PHP-FPM calls a body without a Content-Type a form, out of which PHP
// would take parameters.
func TestEndToEndForwardsNoFormToFastCGI(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "index.php"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	b := guardtest.NewFastCGI(t, guardtest.Accepts)
	site{body: "root * " + dir + "\n" + guardtest.Guard("on after forward") + "\nphp_fastcgi " + b.Address()}.start(t)
	p := protocols(t)[0]
	for _, kind := range []string{"", "application/json", "application/x-www-form-urlencoded"} {
		id := "fastcgi-" + kind
		q := request{query: goodQuery(), body: guardtest.Event(id), header: http.Header{}}
		if kind != "" {
			q.header.Set("Content-Type", kind)
		}
		p.send(t, q).wantOK(t)
		if got := b.One(t, q.body).Header.Get("Content-Type"); got != "application/json" {
			t.Errorf("%q became %q", kind, got)
		}
	}
}

// What a customer has in the URL of the console passes.
func TestEndToEndForwardsTheCustomersOwnParameters(t *testing.T) {
	b := newBackend(t)
	guarded(b).start(t)
	p := protocols(t)[0]
	for _, own := range []string{
		"m=Api&a=cb&type=im&s=/x", "s=/index/callback&c=Im", "r=site/callback", "method=callback", "_url=/x&controller=a&action=b",
		"x[]=1&x[]=2", "a.b=c", "key=%E5%9B%9E%E8%B0%83", "debug", "RequestId=1&RequestID=2", "token=abc&_=1700000000",
	} {
		q := request{query: own + "&" + goodQuery(), body: recallBody(t)}
		p.send(t, q).wantOK(t)
		if got := b.takeOne(t); got.URI != "/?"+q.query {
			t.Errorf("%s became %s", q.query, got.URI)
		}
	}
	for _, hostile := range []string{"_method=DELETE", "_METHOD=PUT", ".method=PUT", "%5Fmethod=PUT", "_method[]=PUT", "+_method=PUT", "_method%00=PUT", "[method=PUT"} {
		p.send(t, request{query: hostile + "&" + goodQuery(), body: recallBody(t)}).wantRefused(t, http.StatusBadRequest, callback.ReasonQuery)
		b.takeNone(t)
	}
}

// The command and the app that a backend may read in a body are those of the query,
// whichever command the query has.
func TestEndToEndRefusesAnotherCommandOrAppInTheBody(t *testing.T) {
	const rejected = "Group.CallbackAfterSendMsg"
	b := newBackend(t)
	guarded(b, "on "+rejected+" reject", "on before after forward").start(t)
	p := protocols(t)[0]
	commands := []string{"Future.CallbackAfterAnything"}
	for _, c := range callback.Commands() {
		commands = append(commands, c.Name)
	}
	for _, command := range commands {
		if command == rejected {
			continue
		}
		sample := bytes.TrimSuffix(callback.Sample(command), []byte("}"))
		with := func(members string) []byte { return append(bytes.Clone(sample), ","+members+"}"...) }
		for members, reason := range map[string]callback.Reason{
			`"callbackcommand":"` + rejected + `"`: callback.ReasonPayload,
			`"SdkAppid":"1400000001"`:              callback.ReasonPayload,
			`"sdkappid":` + guardtest.App:          callback.ReasonPayload,
			`"Sign":"x"`:                           callback.ReasonPayload,
			`"SIGN":"x"`:                           callback.ReasonPayload,
			`"RequestTime":1`:                      callback.ReasonPayload,
			`"requesttime":1`:                      callback.ReasonPayload,
			`"_method":"DELETE"`:                   callback.ReasonPayload,
			`"@type":"x"`:                          callback.ReasonPayload,
			`"x":[{"$ref":"$.y"}]`:                 callback.ReasonPayload,
			`"x":{"constructor":1}`:                callback.ReasonPayload,
		} {
			body := with(members)
			if !bytes.Contains(sample, []byte(`"CallbackCommand":"`+command+`"`)) || bytes.HasPrefix(sample, []byte(`{"Events"`)) {
				for _, foreign := range []string{`"CallbackCommand":"` + rejected + `"`} {
					p.send(t, request{query: commandQuery(command), body: with(foreign)}).wantRefused(t, http.StatusBadRequest, callback.ReasonMismatch)
				}
				p.send(t, request{query: commandQuery(command), body: with(`"CallbackCommand":1`)}).wantRefused(t, http.StatusBadRequest, callback.ReasonPayload)
			}
			p.send(t, request{query: commandQuery(command), body: body}).wantRefused(t, http.StatusBadRequest, reason)
			b.takeNone(t)
		}
	}
}

func commandQuery(command string) string {
	return guardtest.Query(guardtest.App, command, guardtest.Signed(guardtest.Token, time.Now()))
}

// Only the result of a moderation has an app in its body.
func TestEndToEndComparesTheAppOfAModerationResult(t *testing.T) {
	const command = "ContentCallback.ResultNotify"
	b := newBackend(t)
	guarded(b, "on after forward").start(t)
	p := protocols(t)[0]
	p.send(t, request{query: commandQuery(command), body: []byte(`{"SdkAppId":` + guardtest.App + `}`)}).wantOK(t)
	b.takeOne(t)
	p.send(t, request{query: commandQuery(command), body: []byte(`{"SdkAppId":1400000001}`)}).wantRefused(t, http.StatusBadRequest, callback.ReasonMismatch)
	p.send(t, request{query: commandQuery(command), body: []byte(`{"sdkappid":` + guardtest.App + `}`)}).wantRefused(t, http.StatusBadRequest, callback.ReasonPayload)
	b.takeNone(t)
}
