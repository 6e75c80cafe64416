// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/fcgi"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/timguard/timguard/caddymodule/callback"
	"github.com/timguard/timguard/caddymodule/internal/guardtest"
)

// parity is a way of a callback through a site to a backend.
type parity struct {
	site       string // around the guard, which is %s; empty if there is only the guard
	guard      string // more subdirectives
	block      string // of the backend, whose address is [backend]; empty for reverse_proxy
	backend    func(testing.TB, func(*guardtest.Backend) http.HandlerFunc) *guardtest.Backend
	servers    string // options of the servers
	path       string // /callback if empty
	header     http.Header
	send       func(*http.Request) // changes the request
	https, h2c bool                // of the caller
	want       map[string]string   // what the backend must see, besides that both are equal
}

// shown are request headers by which a proxy shows placeholders to the backend.
const shown = `
	header_up X-Uri {uri}
	header_up X-Orig-Uri {http.request.orig_uri}
	header_up X-Orig-Path {http.request.orig_uri.path}
	header_up X-Client {client_ip}
	header_up X-Remote {remote_host}
	header_up X-Scheme {scheme}
	header_up X-Host {host}
	header_up X-Proto {http.request.proto}
	header_up X-Length {http.request.header.Content-Length}
	header_up X-Tim "{http.tim_callback.sdk_app_id} {http.tim_callback.command} {http.tim_callback.class} {http.tim_callback.group_id} {http.tim_callback.operator}"
	header_up X-Tim-More "{http.tim_callback.conversation} {http.tim_callback.event_time} {http.tim_callback.event_id} {http.tim_callback.msg_seqs} {http.tim_callback.opt_platform} {http.tim_callback.client_ip}"
`

const showing = "reverse_proxy [backend] {" + shown + "}"

// What the backend sees is the same by forward and by delivery, apart from the headers of
// deliveries, and a new Sign.
func TestEndToEndDeliveryShowsTheBackendWhatForwardShowsIt(t *testing.T) {
	t.Parallel()
	php := t.TempDir()
	if err := os.WriteFile(filepath.Join(php, "index.php"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	fastCGI := "php_fastcgi [backend] {\nroot " + php + "\n" + shown + "}"
	inRoot := "root * " + php + "\n" + fastCGI
	bare := "php_fastcgi [backend] {" + shown + "}" // in the root of the site
	for name, p := range map[string]parity{
		"reverse_proxy": {block: showing, want: map[string]string{"uri": "/callback?" + guardtest.Query(guardtest.App, callback.RecallCommand, "")}},
		"short form":    {},
		"handle_path": {
			site: "handle_path /im/* {\n%s\n}", block: showing, path: "/im/a%2Fb", want: map[string]string{"X-Orig-Path": "/im/a/b"},
		},
		"rewrite before the guard": {
			site: "route {\nrewrite /callback /hook?{query}&more=1\n%s\n}", block: showing, want: map[string]string{"X-Orig-Path": "/callback"},
		},
		"handle_path and rewrite before the guard": {
			site: "handle_path /im/* {\nroute {\nuri strip_suffix /x\nrewrite * /app{uri}\n%s\n}\n}", block: showing, path: "/im/callback/x",
			want: map[string]string{"X-Orig-Path": "/im/callback/x"},
		},
		"rewrite in the block": {block: "rewrite * /hook{uri}&more=1\n" + showing, want: map[string]string{"X-Orig-Path": "/callback"}},
		"uri and handle_path in the block": {
			block: "handle_path /im/* {\nuri replace /a /b\n" + showing + "\n}", path: "/im/a", want: map[string]string{"X-Orig-Path": "/im/a"},
		},
		"strip_auth": {guard: "strip_auth", block: showing},
		"strip_auth behind handle_path": {
			site: "handle_path /im/* {\n%s\n}", guard: "strip_auth", block: showing, path: "/im/callback", want: map[string]string{"X-Orig-Path": "/im/callback"},
		},
		"headers before the guard": {site: "route {\nrequest_header X-Site {host}\nrequest_header -User-Agent\n%s\n}", block: showing, want: map[string]string{"X-Site": "127.0.0.1"}},
		"headers in the block": {
			block: "request_header X-Block {http.tim_callback.command}\n" + showing, want: map[string]string{"X-Block": callback.RecallCommand},
		},
		"headers of the caller": {
			block: showing, header: http.Header{"X-Many": {"a", "b"}, "X-Empty": {""}, "Accept": {"*/*"}, "Content-Type": {"application/x-www-form-urlencoded"}},
		},
		"another guard before it": {
			site: "route {\ntim_callback {\napp " + guardtest.App + " " + guardtest.Token + "\non after forward\nname first\n}\n%s\n}", block: showing,
		},
		"a proxy of the caller": {
			block: showing, servers: "trusted_proxies static 127.0.0.0/8",
			header: http.Header{"X-Forwarded-For": {"203.0.113.9, 127.0.0.2"}, "X-Forwarded-Proto": {"https"}, "X-Forwarded-Host": {"tim.example"}},
			want:   map[string]string{"X-Client": "203.0.113.9"},
		},
		"a proxy that is not trusted": {
			block: showing, header: http.Header{"X-Forwarded-For": {"203.0.113.9"}, "X-Forwarded-Proto": {"https"}},
			want: map[string]string{"X-Client": "127.0.0.1", "X-Forwarded-For": "127.0.0.1"},
		},
		"another header of the client's address": {
			block: showing, servers: "trusted_proxies static 127.0.0.0/8\nclient_ip_headers X-Real-Ip", header: http.Header{"X-Real-Ip": {"203.0.113.10"}},
			want: map[string]string{"X-Client": "203.0.113.10"},
		},
		"a chunked body": {
			block: showing, send: func(r *http.Request) { r.Body, r.ContentLength = io.NopCloser(r.Body), -1 },
		},
		"a host with a port": {block: showing, send: func(r *http.Request) { r.Host = "TIM.example:8443" }},
		"odd bytes in the URI": {
			block: showing, path: "/a%20b/é;x", send: func(r *http.Request) { r.URL.RawQuery = "x=%FF%20&y=a+b&&z&" + r.URL.RawQuery },
		},
		"https":       {https: true, block: showing, want: map[string]string{"X-Scheme": "https", "X-Forwarded-Proto": "https"}},
		"HTTP/2":      {h2c: true, servers: "protocols h1 h2c", block: showing, want: map[string]string{"X-Proto": "HTTP/2.0"}},
		"h2c":         {block: "reverse_proxy h2c://[backend] {" + shown + "}", want: map[string]string{"proto": "HTTP/2.0"}},
		"unix socket": {block: showing, backend: onUnixSocket},
		"with retries": {
			block: "reverse_proxy 127.0.0.1:1 [backend] {\nlb_policy first\nlb_retries 1\nfail_duration 1m\nrequest_buffers 4k\n" + shown + "}",
		},
		"php_fastcgi": {
			block: inRoot, backend: guardtest.NewFastCGI,
			want: map[string]string{"SCRIPT_FILENAME": php + "/index.php", "path": "/callback"},
		},
		"php_fastcgi in handle_path": {
			site: "handle_path /im/* {\n%s\n}", block: inRoot, backend: guardtest.NewFastCGI, path: "/im/callback", want: map[string]string{"path": "/im/callback"},
		},
		"php_fastcgi behind a rewrite": {
			site: "route {\nrewrite /callback /hook?{query}&more=1\n%s\n}", block: inRoot, backend: guardtest.NewFastCGI, want: map[string]string{"path": "/callback"},
		},
		"php_fastcgi with a rewrite in the block": {
			block: "rewrite * /index.php/hook?{query}\n" + inRoot, backend: guardtest.NewFastCGI,
			want: map[string]string{"SCRIPT_FILENAME": php + "/index.php", "path": "/callback"},
		},
		"php_fastcgi in the root of the site": {
			site: "root * " + php + "\n%s", block: bare, backend: guardtest.NewFastCGI,
			want: map[string]string{"SCRIPT_FILENAME": php + "/index.php", "DOCUMENT_ROOT": php, "path": "/callback"},
		},
		"php_fastcgi in a root of some paths": {
			site: "root /other /nowhere\nroot /im/* " + php + "\nhandle_path /im/* {\n%s\n}", block: bare, backend: guardtest.NewFastCGI, path: "/im/callback",
			want: map[string]string{"DOCUMENT_ROOT": php, "path": "/im/callback"},
		},
		"php_fastcgi in a root with a placeholder": {
			site: "root * " + filepath.Dir(php) + "/{query.dir}\n%s", block: bare, backend: guardtest.NewFastCGI,
			send: func(r *http.Request) { r.URL.RawQuery = "dir=" + filepath.Base(php) + "&" + r.URL.RawQuery },
			want: map[string]string{"DOCUMENT_ROOT": php},
		},
		"a root in the block instead of that of the site": {
			site: "root * /nowhere\n%s", block: "root * " + php + "\n" + bare, backend: guardtest.NewFastCGI,
			want: map[string]string{"DOCUMENT_ROOT": php},
		},
		"the root as a placeholder": {
			site: "root * " + php + "\n%s", block: "reverse_proxy [backend] {\nheader_up X-Root {http.vars.root}\n}", want: map[string]string{"X-Root": php},
		},
		"php_fastcgi, strip_auth": {guard: "strip_auth", block: inRoot, backend: guardtest.NewFastCGI},
		"php_fastcgi, https":      {https: true, block: inRoot, backend: guardtest.NewFastCGI},
		"php_fastcgi, a proxy of the caller": {
			block: inRoot, backend: guardtest.NewFastCGI, servers: "trusted_proxies static 127.0.0.0/8", header: http.Header{"X-Forwarded-For": {"203.0.113.9"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p.test(t)
		})
	}
}

// A site with several listeners is several servers, with options of their own. Those of the
// one that has received the callback apply.
func TestEndToEndDeliveryShowsTheClientOfTheServerThatReceivedIt(t *testing.T) {
	t.Parallel()
	b := guardtest.NewBackend(t, guardtest.Accepts)
	s := guardtest.NewSite(t, guardtest.Delivering(b))
	trusting, other := s.Listen, guardtest.FreePort(t)
	s.Listen = trusting + ", http://" + other
	_, port, _ := net.SplitHostPort(trusting)
	s.Global += "\nservers :" + port + " {\ntrusted_proxies static 127.0.0.0/8\n}"
	s.Start(t)
	for i := range 4 { // which of the servers is first is random
		for listen, want := range map[string]string{trusting: "203.0.113.9, 127.0.0.1", other: "127.0.0.1"} {
			id := fmt.Sprint(listen, i)
			p := guardtest.NewPoster(t, listen)
			p.Header = http.Header{"X-Forwarded-For": {"203.0.113.9"}}
			p.WantOK(t, id)
			if got := b.One(t, guardtest.Event(id)).Header.Get("X-Forwarded-For"); got != want {
				t.Errorf("X-Forwarded-For is %q, want %q", got, want)
			}
		}
		s.Directives = fmt.Sprintf("header X-Generation %d\n%s", i, guardtest.Delivering(b))
		s.Reload(t)
	}
}

func onUnixSocket(tb testing.TB, do func(*guardtest.Backend) http.HandlerFunc) *guardtest.Backend {
	tb.Helper()
	dir, err := os.MkdirTemp("", "") //nolint:usetesting // the path of a socket must be short
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = os.RemoveAll(dir) })
	listener, err := net.Listen("unix", filepath.Join(dir, "b"))
	if err != nil {
		tb.Fatal(err)
	}
	return guardtest.NewBackendOn(tb, listener, do)
}

// test sends a callback each way, and compares what arrives.
func (p parity) test(t *testing.T) {
	t.Helper()
	if p.backend == nil {
		p.backend = guardtest.NewBackend
	}
	if p.site == "" {
		p.site = "%s"
	}
	if p.block == "" {
		p.block = "reverse_proxy [backend]"
	}
	scheme := "http"
	if p.https {
		scheme, p.site = "https", "tls "+certificate(t)+"\n"+p.site
	}
	b := p.backend(t, guardtest.Accepts)
	address := b.Address()
	if b.Listener.Addr().Network() == "unix" {
		address = "unix/" + address
	}
	s := guardtest.NewSite(t, "respond 404")
	s.Global += "\nservers {\n" + p.servers + "\n}"
	listen := make(map[string]string)
	for action, rule := range map[string]string{
		"forward": "on after forward", "deliver": "on after deliver", "fallback": "on after forward {\nfallback deliver\n}",
	} {
		listen[action] = guardtest.FreePort(t)
		guard := guardtest.Guard("name "+action, rule, p.guard, "backend {\n"+strings.ReplaceAll(p.block, "[backend]", address)+"\n}")
		_, port, _ := net.SplitHostPort(listen[action])
		s.After += scheme + "://:" + port + " {\nbind 127.0.0.1\n" + fmt.Sprintf(p.site, guard) + "\n}\n"
	}
	s.Start(t).WantLog(t, "the store is open", nil) // until then, what is to be stored is forwarded
	seen := make(map[string]map[string]string)
	for i, action := range []string{"forward", "deliver", "fallback"} {
		p.post(t, scheme+"://"+listen[action])
		guardtest.Eventually(t, 20*time.Second, "the callback arrives by "+action, func() bool { return b.Total() == i+1 })
		a := b.All()[i]
		if a.AtOnce() == (action == "deliver") {
			t.Fatalf("it did not come by %s: %v", action, a.Header)
		}
		seen[action] = p.seen(t, a)
	}
	for _, action := range []string{"deliver", "fallback"} {
		names := slices.Concat(slices.Collect(maps.Keys(seen["forward"])), slices.Collect(maps.Keys(seen[action])))
		slices.Sort(names)
		for _, name := range slices.Compact(names) {
			if f, d := seen["forward"][name], seen[action][name]; f != d {
				t.Errorf("%s is %q by %s, and %q by forward", name, d, action, f)
			}
		}
	}
	for name, want := range p.want {
		if got := seen["deliver"][name]; got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

// certificate returns the paths of a certificate and its key.
func certificate(t *testing.T) string {
	t.Helper()
	server := httptest.NewTLSServer(nil)
	defer server.Close()
	pair := server.TLS.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	paths := make([]string, 0, 2)
	for name, der := range map[string][]byte{"CERTIFICATE": pair.Certificate[0], "PRIVATE KEY": key} {
		path := filepath.Join(dir, name[:3])
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: name, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	slices.Sort(paths)
	return strings.Join(paths, " ")
}

func (p parity) post(t *testing.T, base string) {
	t.Helper()
	path := p.path
	if path == "" {
		path = "/callback"
	}
	query := guardtest.Query(guardtest.App, callback.RecallCommand, guardtest.Signed(guardtest.Token, time.Now().Add(-30*time.Second)))
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base+path+"?"+query, bytes.NewReader(guardtest.Event("parity")))
	if err != nil {
		t.Fatal(err)
	}
	r.Host = "127.0.0.1" // not the port, which differs
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept-Encoding", "identity") // which deliveries always have
	maps.Copy(r.Header, p.header)
	if p.send != nil {
		p.send(r)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true} //nolint:gosec // of the test itself
	if p.h2c {
		transport.Protocols = new(http.Protocols)
		transport.Protocols.SetUnencryptedHTTP2(true)
	}
	resp, err := (&http.Client{Transport: transport}).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if answer, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusOK || string(answer) != guardtest.OKJSON {
		t.Fatalf("answer %d %s, %v; want OK", resp.StatusCode, answer, err)
	}
}

// ofAuth matches a parameter of a query that is new in each delivery.
var ofAuth = regexp.MustCompile(`(^|[?&])(Sign|RequestTime)=[^&]*`)

// seen returns what is to be the same, by name.
func (p parity) seen(t *testing.T, a guardtest.Received) map[string]string {
	t.Helper()
	withoutAuth := func(text string) string { return strings.Replace(ofAuth.ReplaceAllString(text, ""), "?&", "?", 1) }
	ip, _, _ := net.SplitHostPort(a.RemoteAddr)
	a.RequestURI = a.URL.RequestURI() // which package fcgi does not set
	seen := map[string]string{
		"method": a.Method, "uri": withoutAuth(a.RequestURI), "path": a.URL.Path, "proto": a.Proto, "host": a.Host, "body": string(a.Body), "length": fmt.Sprint(a.ContentLength),
		"encoding": strings.Join(a.TransferEncoding, ","),
	}
	environment := fcgi.ProcessEnv(a.Request)
	if len(environment) > 0 {
		seen["REMOTE_ADDR"], seen["tls"] = ip, fmt.Sprint(a.TLS != nil)
	}
	for name, value := range environment {
		// A delivery has no connection of a caller.
		if !slices.Contains([]string{"SERVER_ADDR", "SSL_CIPHER", "SSL_PROTOCOL"}, name) {
			seen[name] = withoutAuth(value)
		}
	}
	for name, values := range a.Header {
		if name != "Tim-Delivery-Attempt" && name != "Tim-Event-Id" {
			seen[name] = withoutAuth(strings.Join(values, " | "))
		}
	}
	p.wantAuth(t, a)
	return seen
}

// wantAuth fails the test unless the request has the Sign that it should: a new one if it is
// a delivery, none with strip_auth.
func (p parity) wantAuth(t *testing.T, a guardtest.Received) {
	t.Helper()
	_, query, _ := strings.Cut(a.RequestURI, "?")
	values, err := url.ParseQuery(query)
	if err != nil && values == nil {
		t.Fatal(err)
	}
	if p.guard == "strip_auth" {
		if strings.Contains(a.RequestURI, "Sign=") || strings.Contains(a.RequestURI, "RequestTime=") {
			t.Errorf("URI %s, want it without Sign and RequestTime", a.RequestURI)
		}
		return
	}
	requestTime := values.Get("RequestTime")
	if values.Get("Sign") != callback.Sign(guardtest.Token, requestTime) || len(values["Sign"]) != 1 {
		t.Errorf("the Sign of %s is wrong", a.RequestURI)
	}
	var seconds int64
	_, _ = fmt.Sscan(requestTime, &seconds)
	if age := a.At.Unix() - seconds; a.AtOnce() != (age > 20) {
		t.Errorf("RequestTime of %s is %ds old", a.RequestURI, age)
	}
}
