// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/timguard/timguard/caddymodule/callback"
	"github.com/timguard/timguard/caddymodule/internal/guardtest"
	"github.com/timguard/timguard/caddymodule/outbox"
)

// zipped returns the text as gzip.
func zipped(text string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = io.WriteString(w, text)
	_ = w.Close()
	return b.String()
}

// inUTF16 returns the text in UTF-16 with a byte order mark.
func inUTF16(text string) string {
	b := []byte{0xff, 0xfe}
	for _, u := range utf16.Encode([]rune(text)) {
		b = append(b, byte(u), byte(u>>8))
	}
	return string(b)
}

// What a backend answers is judged by the accept of its block. What came, and the accept
// that would take it, is in the error that operators see.
func TestEndToEndDeliveryIsAcceptedByTheAnswerThatTheBlockAccepts(t *testing.T) {
	t.Parallel()
	const (
		page = "<!DOCTYPE html><title>系统维护中</title>"
		fail = guardtest.FailJSON
	)
	type answer struct {
		accept string
		status int
		header string // Content-Type or Content-Encoding, as in a request
		body   string
		failed string // the error; empty if it is accepted
	}
	answers := []answer{
		{"", 200, "", guardtest.OKJSON, ""},
		{"", 204, "", "", ""},
		{"", 200, "", "", ""},
		{"", 200, "", " \r\n", ""},
		{"", 201, "Content-Type: text/html; charset=UTF-8", "ok", ""},
		{"", 200, "", "success\n", ""},
		{"", 200, "", `{"code":500,"msg":"kept"}`, ""},
		{"", 200, "", "\ufeff" + guardtest.OKJSON, ""},
		{"", 200, "", "[]", ""},
		{"", 200, "Content-Encoding: gzip", zipped(guardtest.OKJSON), ""},
		{"", 200, "", zipped("ok"), ""},
		{"accept sound", 200, "", "ok", ""},
		{"", 200, "Content-Type: text/html", page, "the answer is an HTML page; accept 2xx would take it"},
		{"", 200, "", page, "the answer is an HTML page; accept 2xx would take it"},
		{"", 200, "", `{"ActionStatus":"FA`, "the answer is JSON that is cut off; accept 2xx would take it"},
		{"", 200, "", `{"ActionStatus":"OK","ActionStatus":"FAIL"}`, "the answer says FAIL"},
		{"", 200, "", `{"a":1,"a":2}`, "the answer is JSON that has a name twice; accept 2xx would take it"},
		{"", 200, "", guardtest.OKJSON + "x", "the answer is JSON with text behind it; accept 2xx would take it"},
		{"", 200, "Content-Type: application/json; charset=utf-16", inUTF16(fail), "the answer is in another charset than UTF-8; accept 2xx would take it"},
		{"", 200, "Content-Type: application/json", inUTF16(fail), "the answer is not text in UTF-8; accept 2xx would take it"},
		{"", 200, "", fail, "the answer says FAIL"},
		{"", 200, "", "\ufeff" + fail, "the answer says FAIL"},
		{"", 200, "", strconv.Quote(fail), "the answer says FAIL"},
		{"", 200, "Content-Encoding: gzip", zipped(fail), "the answer says FAIL"},
		{"", 200, "", zipped(fail), "the answer says FAIL"},
		{"", 200, "Content-Encoding: gzip", zipped(fail)[:20], "the answer is gzip that cannot be unpacked; accept 2xx would take it"},
		{"", 200, "Content-Encoding: br", "\x0b\x02\x80", "the answer is compressed, but not by gzip; accept 2xx would take it"},
		{"", 200, "", "under maintenance, come back later", "the answer is text that is not JSON; accept 2xx would take it"},
		{"", 200, "", "error", "the answer is text that is not JSON; accept 2xx would take it"},
		{"", 200, "", "false", "the answer is false; accept 2xx would take it"},
		{"", 503, "", guardtest.OKJSON, "the answer has the status 503"},
		{"", 200, "", `{"a":"` + strings.Repeat("a", 1<<20) + `"}`, "the answer is longer than 1048576 bytes; accept 2xx would take it"},
		{"accept 2xx", 200, "", `{"a":"` + strings.Repeat("a", 1<<20) + `"}`, ""},
		{"accept answer", 200, "", guardtest.OKJSON, ""},
		{"accept answer", 202, "", "{}", ""},
		{"accept answer", 200, "", "", "the answer is empty; accept sound would take it"},
		{"accept answer", 200, "", "ok", "the answer is a plain word; accept sound would take it"},
		{"accept answer", 200, "", "[]", "the answer is JSON, but no object; accept sound would take it"},
		{"accept answer", 200, "", fail, "the answer says FAIL"},
		{"accept answer", 200, "", page, "the answer is an HTML page; accept 2xx would take it"},
		{"accept 2xx", 200, "Content-Type: text/html", page, ""},
		{"accept 2xx", 299, "", fail, ""},
		{"accept 2xx", 204, "", "", ""},
		{"accept 2xx", 200, "", `{"ActionStatus":"FA`, ""},
		{"accept 2xx", 302, "", "", "the answer has the status 302"},
		{"accept /code 0 200", 200, "", `{"code":0}`, ""},
		{"accept /code 0 200", 200, "", `{"code":"200","ActionStatus":"FAIL"}`, ""},
		{"accept /code 0 200", 200, "", `{"code":500}`, "/code is 500; accept /code 500 would take it"},
		{"accept /code 0 200", 200, "", `{"data":{"code":0}}`, "the answer is JSON without a value at /code; accept sound would take it"},
		{"accept /code 0 200", 200, "", "ok", "the answer is not JSON; accept sound would take it"},
		{"accept /code 0 200", 500, "", `{"code":0}`, "the answer has the status 500"},
		{"accept /data/a~1b/0 true", 200, "", `{"data":{"a/b":[true]}}`, ""},
		{"accept /data/a~1b/0 true", 200, "", `{"data":{"a/b":[false]}}`, "/data/a~1b/0 is false; accept /data/a~1b/0 false would take it"},
	}
	b := guardtest.NewBackend(t, func(b *guardtest.Backend) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			n, _ := strconv.Atoi(r.URL.Path[1:])
			if name, value, found := strings.Cut(answers[n].header, ": "); found {
				w.Header().Set(name, value)
			}
			guardtest.AcceptsWith(answers[n].status, answers[n].body)(b)(w, r)
		}
	})
	directives := ""
	for n, tt := range answers {
		directives += fmt.Sprintf("handle /%d {\n%s\n}\n", n, guardtest.Guard(fmt.Sprint("name g", n), "on after deliver",
			"backend {\n"+tt.accept+"\nmax_attempts 1\nworkers 1\nreverse_proxy "+b.Address()+"\n}"))
	}
	s := guardtest.NewSite(t, directives)
	s.Start(t)
	p := guardtest.NewPoster(t, s.Listen)
	failed := 0
	for n, tt := range answers {
		if _, answer, err := p.Post(fmt.Sprint("/", n), callback.RecallCommand, guardtest.Event(fmt.Sprint(n))); err != nil || answer != guardtest.OKJSON {
			t.Fatal(answer, err)
		}
		if tt.failed != "" {
			failed++
		}
	}
	s.WantState(t, outbox.Dead, failed)
	s.WantState(t, outbox.Delivered, len(answers)-failed)
	shown := make(map[string]bool)
	for _, item := range s.Items(t) {
		n, _ := strconv.Atoi(item.Callback.Guard[1:])
		tt, got := answers[n], ""
		if len(item.Failures) > 0 {
			got = item.Failures[0].Error
		}
		if got != tt.failed || (item.State == outbox.Delivered) != (tt.failed == "") {
			t.Errorf("%s, %d %s %.60q: %s, %q; want %q", tt.accept, tt.status, tt.header, tt.body, item.State, got, tt.failed)
		}
		if form, _, _ := strings.Cut(tt.failed, ";"); tt.failed != "" && !shown[form] {
			shown[form] = true
			if output := s.CLI(t, false, "show", strconv.FormatInt(item.ID, 10)); !strings.Contains(output, ": "+tt.failed+"\n") {
				t.Errorf("show prints\n%s\nwithout %q", output, tt.failed)
			}
		}
	}
}

// A backend whose first answers are all refused for their form is warned of once. One that
// has accepted a callback, or asks for other attempts, is not.
func TestEndToEndDeliveryWarnsOfABackendWhoseAnswersAreRefused(t *testing.T) {
	t.Parallel()
	const page = "<html></html>"
	b := guardtest.NewBackend(t, func(*guardtest.Backend) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			answer := page
			switch {
			case r.URL.Path == "/fails":
				answer = guardtest.FailJSON
			case r.URL.Path == "/mixed" && bytes.Contains(body, []byte("mixed-0\"")):
				answer = guardtest.OKJSON
			case r.URL.Path == "/down":
				w.WriteHeader(http.StatusBadGateway)
			}
			_, _ = io.WriteString(w, answer)
		}
	})
	directives := ""
	names := []string{"html", "fails", "mixed", "down", "copies"}
	for _, name := range names {
		action, blocks := "deliver", "backend {\nmax_attempts 1\nworkers 1\nreverse_proxy "+b.Address()+"\n}"
		if name == "copies" {
			action, blocks = "ack {\ncopy archive\n}", "consumer archive {\nmax_attempts 1\nreverse_proxy "+b.Address()+"\n}"
		}
		directives += "handle /" + name + " {\n" + guardtest.Guard("name "+name, "on after "+action, blocks) + "\n}\n"
	}
	s := guardtest.NewSite(t, directives)
	guard := s.Start(t)
	p := guardtest.NewPoster(t, s.Listen)
	ended := 0
	post := func(from, to int) {
		t.Helper()
		for i := from; i < to; i++ {
			for _, name := range names {
				if _, answer, err := p.Post("/"+name, callback.RecallCommand, guardtest.Event(fmt.Sprintf("%s-%d", name, i))); err != nil || answer != guardtest.OKJSON {
					t.Fatal(answer, err)
				}
				ended++
			}
		}
		guardtest.Eventually(t, 20*time.Second, "all are ended", func() bool {
			states := s.Status(t).Deliveries
			return states[outbox.Delivered]+states[outbox.Dead] == ended
		})
	}
	const message = "all answers to deliveries were refused for their form; if they mean success, change accept of the backend or consumer"
	post(0, 19)
	if lines := guard.LogLines(t, message); len(lines) > 0 {
		t.Errorf("after 19 answers: %v", lines)
	}
	post(19, 45)
	lines := guard.LogLines(t, message)
	if len(lines) != 2 {
		t.Errorf("%d warnings, want one of each queue with another form: %v", len(lines), lines)
	}
	for name, consumer := range map[string]string{"html": "", "copies": "archive"} {
		guard.WantLog(t, message, map[string]any{
			"level": "warn", "logger": "tim_delivery", "guard": name, "consumer": consumer, "answers": 20.0,
			"error": "the answer is an HTML page; accept 2xx would take it",
		})
	}
}
