// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"bytes"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/caddytest"

	"github.com/timguard/timguard/caddymodule/callback"
	"github.com/timguard/timguard/caddymodule/internal/guardtest"
)

func TestEndToEndStripsAuthFromTheQuery(t *testing.T) {
	b := newBackend(t)
	guarded(b, "strip_auth").start(t)
	requestTime, sign, _ := strings.Cut(guardtest.Signed(guardtest.Token, time.Now()), "&")
	rest := "CallbackCommand=" + callback.RecallCommand + "&&Region=%41%2fb+c&SdkAppid=" + guardtest.App + "&empty=&x"
	for _, p := range protocols(t) {
		for name, q := range map[string]string{
			"at the end":       rest + "&" + requestTime + "&" + sign,
			"at the beginning": sign + "&" + requestTime + "&" + rest,
			"escaped":          rest + "&%52equestTime=" + strings.TrimPrefix(requestTime, "RequestTime=") + "&" + sign,
		} {
			t.Run(p.name+"/"+name, func(t *testing.T) {
				p.send(t, request{path: "/callback", query: q, body: recallBody(t)}).wantOK(t)
				got := b.takeOne(t)
				wantSame(t, got, request{path: "/callback", query: rest, body: recallBody(t)})
				for header, values := range got.Header {
					if strings.Contains(strings.Join(values, " "), sign) {
						t.Errorf("the header %s holds the Sign", header)
					}
				}
			})
		}
	}
}

func TestEndToEndInvokesErrorRoutes(t *testing.T) {
	b := newBackend(t)
	s := guarded(b, "rejections handle_errors", "max_body 1KiB")
	s.body += `
handle_errors {
	header X-Reason {http.tim_callback.reason}
	header X-Path {http.tim_callback.path}
	respond "{err.status_code}|{err.message}|{http.tim_callback.action}"
}`
	s.start(t)
	tests := map[string]struct {
		request        request
		status         int
		reason, path   string
		header, values string
	}{
		"GET":       {request{method: "GET", query: goodQuery()}, 405, "method", "", "Allow", "POST"},
		"app":       {request{query: guardtest.Query("1", callback.RecallCommand, "")}, 403, "app", "SdkAppid", "", ""},
		"sign":      {request{query: guardtest.Query(guardtest.App, callback.RecallCommand, guardtest.Signed("x", time.Now())), body: recallBody(t)}, 401, "sign", "Sign", "", ""},
		"gzip":      {request{query: goodQuery(), body: recallBody(t), header: http.Header{"Content-Encoding": {"gzip"}}}, 415, "encoding", "", "Accept-Encoding", "identity"},
		"too large": {request{query: goodQuery(), body: bytes.Repeat([]byte("x"), 2000)}, 413, "too_large", "", "", ""},
		"payload":   {request{query: goodQuery(), body: bytes.Replace(recallBody(t), []byte("130"), []byte("0"), 1)}, 400, "payload", "/MsgSeqList/0/MsgSeq", "", ""},
	}
	for _, p := range protocols(t) {
		for name, tt := range tests {
			t.Run(p.name+"/"+name, func(t *testing.T) {
				got := p.send(t, tt.request)
				if got.status != tt.status {
					t.Errorf("status %d, want %d", got.status, tt.status)
				}
				status, rest, _ := strings.Cut(string(got.body), "|")
				if status != strconv.Itoa(tt.status) {
					t.Errorf("{err.status_code} is %s, want %d", status, tt.status)
				}
				if !strings.HasPrefix(rest, tt.reason+": ") || !strings.HasSuffix(rest, "|reject") {
					t.Errorf("{err.message}|{http.tim_callback.action} is %q, want %q and more", rest, tt.reason+": ")
				}
				for header, want := range map[string]string{"X-Reason": tt.reason, "X-Path": tt.path, tt.header: tt.values} {
					if header != "" && got.header.Get(header) != want {
						t.Errorf("%s %q, want %q", header, got.header.Get(header), want)
					}
				}
				b.takeNone(t)
			})
		}
	}
	protocols(t)[0].send(t, request{query: goodQuery(), body: recallBody(t)}).wantOK(t)
	b.takeOne(t)
}

// The guard sees the original URL, wherever it is in the site.
func TestEndToEndWorksAnywhereInASite(t *testing.T) {
	b := newBackend(t)
	proxy := "reverse_proxy " + b.address()
	for name, tt := range map[string]struct{ body, path, uri string }{
		"handle_path":       {"handle_path /im/* {\n" + guardtest.Guard() + "\n" + proxy + "\n}", "/im/callback", "/callback"},
		"handle":            {"handle /im/* {\n" + guardtest.Guard() + "\n" + proxy + "\n}", "/im/callback", "/im/callback"},
		"route":             {"route {\n" + guardtest.Guard() + "\n" + proxy + "\n}", "/callback", "/callback"},
		"rewrite after it":  {guardtest.Guard() + "\nrewrite /callback /inner\n" + proxy, "/callback", "/inner"},
		"rewrite before it": {"rewrite /callback /inner\n" + guardtest.Guard() + "\n" + proxy, "/callback", "/inner"},
		"path matcher":      {strings.Replace(guardtest.Guard(), "tim_callback", "tim_callback /callback", 1) + "\n" + proxy, "/callback", "/callback"},
		"named matcher":     {"@im path /callback\n" + strings.Replace(guardtest.Guard(), "tim_callback", "tim_callback @im", 1) + "\n" + proxy, "/callback", "/callback"},
		"rewritten query":   {"uri query +Sign added\n" + guardtest.Guard() + "\n" + proxy, "/callback", ""},
	} {
		t.Run(name, func(t *testing.T) {
			site{body: tt.body}.start(t)
			p := protocols(t)[0]
			q := request{path: tt.path, query: goodQuery(), body: recallBody(t)}
			p.send(t, q).wantOK(t)
			got := b.takeOne(t)
			if q.path = tt.uri; q.path != "" {
				wantSame(t, got, q)
			}
			q.path, q.query = tt.path, guardtest.Query(guardtest.App, callback.RecallCommand, guardtest.Signed("x", time.Now()))
			p.send(t, q).wantRefused(t, http.StatusUnauthorized, callback.ReasonSign)
			b.takeNone(t)
		})
	}
}

func TestEndToEndIgnoresRequestsThatDoNotMatch(t *testing.T) {
	b := newBackend(t)
	site{body: strings.Replace(guardtest.Guard(), "tim_callback", "tim_callback /callback", 1) + "\nreverse_proxy " + b.address()}.start(t)
	p := protocols(t)[0]
	q := request{method: "GET", path: "/other", query: "x"}
	p.send(t, q).wantOK(t)
	wantForwarded(t, b.takeOne(t), q)
}

func TestEndToEndSetsPlaceholders(t *testing.T) {
	b := newBackend(t)
	var up strings.Builder
	for _, name := range valueNames {
		up.WriteString("header_up X-Tim-" + strings.ReplaceAll(name, "_", "-") + " \"<{http.tim_callback." + name + "}>\"\n")
	}
	site{body: "header >X-Group {http.tim_callback.group_id}\n" + guardtest.Guard() + "\nreverse_proxy " + b.address() + " {\n" + up.String() + "}"}.start(t)
	body := bytes.Replace(recallBody(t), []byte(`130`), []byte(`130},{"MsgSeq":4294967295`), 1)
	for _, p := range protocols(t) {
		t.Run(p.name, func(t *testing.T) {
			answer := p.send(t, request{query: goodQuery(), body: body})
			answer.wantOK(t)
			if got := answer.header.Get("X-Group"); got != "1213456" {
				t.Errorf("header after the guard: %q, want the GroupId", got)
			}
			got := b.takeOne(t).Header
			for name, want := range map[string]string{
				"sdk_app_id": guardtest.App, "command": callback.RecallCommand, "class": "after", "group_id": "1213456",
				"topic_id": "@TGS#_@TGS#cQVLVHIM62CJ@TOPIC#_TestTopic", "operator": "admin", "group_type": "Community",
				"event_time": "1670574414123", "msg_seqs": "130,4294967295", "opt_platform": "RESTAPI", "client_ip": "203.0.113.7",
				"action": "forward", "reason": "", "path": "",
			} {
				if v := got.Get("X-Tim-" + strings.ReplaceAll(name, "_", "-")); v != "<"+want+">" {
					t.Errorf("{http.tim_callback.%s} is %s, want <%s>", name, v, want)
				}
			}
		})
	}
}

func TestEndToEndWritesLogs(t *testing.T) {
	b := newBackend(t)
	s := guarded(b, "name front")
	s.body = "log\n" + s.body
	file := s.start(t)
	p := protocols(t)[0]
	p.send(t, request{path: "/good", query: goodQuery(), body: recallBody(t)}).wantOK(t)
	p.send(t, request{path: "/forged", query: guardtest.Query(guardtest.App, callback.RecallCommand, guardtest.Signed("x", time.Now())), body: recallBody(t)})
	p.send(t, request{path: "/payload", query: goodQuery(), body: []byte(`{"CallbackCommand":1}`)})

	access := func(path string) map[string]any {
		var object map[string]any
		logLines(t, file, func(line map[string]any) bool {
			r, _ := line["request"].(map[string]any)
			uri, _ := r["uri"].(string)
			if logger, _ := line["logger"].(string); !strings.HasPrefix(logger, "http.log.access") || !strings.HasPrefix(uri, path+"?") {
				return false
			}
			object, _ = line["tim_callback"].(map[string]any)
			return true
		})
		return object
	}
	for path, want := range map[string]map[string]string{
		"/good": {
			"sdk_app_id": guardtest.App, "command": callback.RecallCommand, "class": "after", "group_id": "1213456", "operator": "admin",
			"msg_seqs": "130", "event_time": "1670574414123", "action": "forward", "client_ip": "203.0.113.7", "group_type": "Community",
		},
		"/forged":  {"sdk_app_id": guardtest.App, "action": "reject", "reason": "sign", "path": "Sign"},
		"/payload": {"action": "reject", "reason": "payload", "path": "/CallbackCommand"},
	} {
		object := access(path)
		for name, value := range want {
			if object[name] != value {
				t.Errorf("%s: tim_callback.%s is %v in the access log, want %s", path, name, object[name], value)
			}
		}
	}
	for reason, level := range map[string]string{"sign": "info", "payload": "warn"} {
		n := 0
		for _, line := range logLines(t, file, func(line map[string]any) bool { return line["reason"] == reason }) {
			if line["reason"] != reason {
				continue
			}
			n++
			if line["level"] != level || line["guard"] != "front" || line["sdk_app_id"] != guardtest.App || line["remote_ip"] == "" {
				t.Errorf("%s: the log says %v, want level %s, the guard, the app and the remote_ip", reason, line, level)
			}
		}
		if n != 1 {
			t.Errorf("%d lines for one refusal as %s, want one", n, reason)
		}
	}
}

func TestEndToEndWarnsOnceOfUnsignedApps(t *testing.T) {
	b := newBackend(t)
	file := site{body: "tim_callback {\n app 1 unsigned\n app 3 unsigned\n app 2 " + guardtest.Token + "\n on Group.CallbackAfterRecallMsg No.SuchCommand New.* forward\n}\nreverse_proxy " + b.address()}.start(t)
	warnings := make(map[string]int)
	for _, line := range logLines(t, file, func(line map[string]any) bool { return line["level"] == "warn" }) {
		if line["level"] != "warn" || line["logger"] != "http.handlers.tim_callback" {
			continue
		}
		if ids, ok := line["sdk_app_ids"].([]any); ok {
			warnings[fmt.Sprint("apps ", ids)]++
		}
		if commands, ok := line["allowed"].([]any); ok {
			warnings[fmt.Sprint(len(commands), " before-callbacks")]++
		}
		if command, ok := line["command"].(string); ok {
			warnings["command "+command]++
		}
	}
	want := map[string]int{"apps [1 3]": 1, "11 before-callbacks": 1, "command No.SuchCommand": 1, "command New.*": 1}
	if !maps.Equal(warnings, want) {
		t.Errorf("warnings %v, want %v", warnings, want)
	}
}

func TestEndToEndDoesNotLoadWithoutSecrets(t *testing.T) {
	t.Setenv("TIMGUARD_TEST_EMPTY", "")
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	logFile := filepath.Join(t.TempDir(), "log.json")
	for _, token := range []string{"{env.TIMGUARD_TEST_UNSET}", "{env.TIMGUARD_TEST_EMPTY}", "{file./nonexistent}", "{file." + empty + "}", "{no.such.placeholder}"} {
		t.Run(token, func(t *testing.T) {
			s := site{body: "tim_callback {\n app " + guardtest.App + " " + guardtest.Token + " " + token + "\n}"}
			http.DefaultClient.CloseIdleConnections()
			caddytest.AssertLoadError(t, s.caddyfile(logFile), "caddyfile", "token 2")
		})
	}
}

func TestEndToEndReadsSecretsFromTheEnvironmentAndFiles(t *testing.T) {
	t.Setenv("TIMGUARD_TEST_TOKEN", guardtest.Token)
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(guardtest.NewToken+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	b := newBackend(t)
	site{body: "tim_callback {\n app " + guardtest.App + " {env.TIMGUARD_TEST_TOKEN} {file." + file + "}\n}\nreverse_proxy " + b.address()}.start(t)
	for _, token := range []string{guardtest.Token, guardtest.NewToken} {
		protocols(t)[0].send(t, request{query: guardtest.Query(guardtest.App, callback.RecallCommand, guardtest.Signed(token, time.Now())), body: recallBody(t)}).wantOK(t)
		b.takeOne(t)
	}
}
