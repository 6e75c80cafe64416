// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"bytes"
	"compress/gzip"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/timguard/timguard/caddymodule/callback"
	"github.com/timguard/timguard/caddymodule/internal/guardtest"
)

func TestEndToEndForwardsByteForByte(t *testing.T) {
	b := newBackend(t)
	guarded(b).start(t)
	compact := []byte(`{ "MsgSeqList":[{"MsgSeq":4294967295,"New":1.50}],"Type":"\u0050ublic","GroupId":"a\"<%> b",` +
		`"CallbackCommand":"Group.CallbackAfterRecallMsg","Operator_Account":"é","EventTime":1670574414123}` + "\r\n")
	for _, p := range protocols(t) {
		for name, q := range map[string]request{
			"documented sample":         {body: recallBody(t)},
			"documented sample chunked": {body: recallBody(t), chunked: true},
			"odd bytes":                 {body: compact},
			"odd bytes chunked":         {body: compact, chunked: true},
			"identity":                  {body: compact, header: http.Header{"Content-Encoding": {"identity"}}},
			"any content type":          {body: compact, header: http.Header{"Content-Type": {"text/plain"}}},
		} {
			t.Run(p.name+"/"+name, func(t *testing.T) {
				q.path, q.query = "/callback", goodQuery()
				p.send(t, q).wantOK(t)
				wantSame(t, b.takeOne(t), q)
			})
		}
	}
}

// wantSame fails the test unless the backend received what was sent, with its length.
func wantSame(t *testing.T, got received, sent request) {
	t.Helper()
	if want := sent.path + "?" + sent.query; got.URI != want {
		t.Errorf("URI   %s\nwant  %s", got.URI, want)
	}
	if !bytes.Equal(got.Body, sent.body) {
		t.Errorf("body  %q\nwant  %q", got.Body, sent.body)
	}
	if got.ContentLength != int64(len(sent.body)) || len(got.TransferEncoding) > 0 {
		t.Errorf("Content-Length %d and Transfer-Encoding %v, want %d and none", got.ContentLength, got.TransferEncoding, len(sent.body))
	}
	for name, values := range sent.header {
		if name != "Expect" && got.Header.Get(name) != values[0] {
			t.Errorf("%s %q, want %q", name, got.Header.Get(name), values[0])
		}
	}
}

func TestEndToEndRefuses(t *testing.T) {
	sample := recallBody(t)
	now := time.Now()
	good := goodQuery()
	with := func(app, command, auth string) request {
		return request{query: guardtest.Query(app, command, auth), body: sample}
	}
	payload := func(body string) request { return request{query: good, body: []byte(body)} }
	large := bytes.Repeat([]byte(" "), 2000)
	extended := strings.Replace(guardtest.Signed(guardtest.Token, now), "&", "%80%00%00%00%00%00%00%b81&", 1)

	tests := []struct {
		name    string
		request request
		status  int
		reason  callback.Reason
		header  string // one that the answer must have, and
		value   string // its value
	}{
		{"GET", request{method: "GET", query: good}, 405, "method", "Allow", "POST"},
		{"PUT", request{method: "PUT", query: good, body: sample}, 405, "method", "Allow", "POST"},
		{"app twice", request{query: good + "&SdkAppid=" + guardtest.App, body: sample}, 400, "query", "", ""},
		{"app in another case", request{query: good + "&sdkappid=" + guardtest.App, body: sample}, 400, "query", "", ""},
		{"app in brackets", request{query: good + "&SdkAppid[]=" + guardtest.App, body: sample}, 400, "query", "", ""},
		{"app twice, escaped", request{query: good + "&SdkAppi%64=" + guardtest.App, body: sample}, 400, "query", "", ""},
		{"bad escape", request{query: good + "&x=%zz", body: sample}, 400, "query", "", ""},
		{"semicolon", request{query: good + ";SdkAppid=1", body: sample}, 400, "query", "", ""},
		{"another app", with("1400000001", callback.RecallCommand, guardtest.Signed(guardtest.Token, now)), 403, "app", "", ""},
		{"no app", request{query: strings.Replace(good, "SdkAppid", "Other", 1), body: sample}, 403, "app", "", ""},
		{"no query", request{body: sample}, 403, "app", "", ""},
		{"no command", request{query: strings.Replace(good, "CallbackCommand", "Other", 1), body: sample}, 403, "command", "", ""},
		{"another command", with(guardtest.App, "Group.CallbackAfterGroupDestroyed", guardtest.Signed(guardtest.Token, now)), 403, "command", "", ""},
		{"unsigned", with(guardtest.App, callback.RecallCommand, ""), 401, "unsigned", "", ""},
		{"no RequestTime", request{query: strings.Replace(good, "RequestTime", "Other", 1), body: sample}, 401, "unsigned", "", ""},
		{"no Sign", request{query: strings.Replace(good, "Sign", "Other", 1), body: sample}, 401, "unsigned", "", ""},
		{"too old", with(guardtest.App, callback.RecallCommand, guardtest.Signed(guardtest.Token, now.Add(-2*time.Minute))), 401, "stale", "", ""},
		{"too new", with(guardtest.App, callback.RecallCommand, guardtest.Signed(guardtest.Token, now.Add(2*time.Minute))), 401, "stale", "", ""},
		{"RequestTime of 11 digits", with(guardtest.App, callback.RecallCommand, guardtest.Signed(guardtest.Token, time.Unix(now.Unix()*10, 0))), 401, "stale", "", ""},
		{"RequestTime with a fraction", with(guardtest.App, callback.RecallCommand, strings.Replace(guardtest.Signed(guardtest.Token, now), "&", ".0&", 1)), 401, "stale", "", ""},
		{"length extension", with(guardtest.App, callback.RecallCommand, extended), 400, "query", "", ""},
		{"forged", with(guardtest.App, callback.RecallCommand, guardtest.Signed("guess", now)), 401, "sign", "", ""},
		{"gzip", request{query: good, body: gzipped(t, sample), header: http.Header{"Content-Encoding": {"gzip"}}}, 415, "encoding", "Accept-Encoding", "identity"},
		{"oversized", request{query: good, body: large}, 413, "too_large", "", ""},
		{"oversized chunked", request{query: good, body: large, chunked: true}, 413, "too_large", "", ""},
		{"not JSON", payload(`CallbackCommand=x`), 400, "json", "", ""},
		{"comment", payload(strings.Replace(string(sample), `,`, `, // command`, 1)), 400, "json", "", ""},
		{"array", payload(`[]`), 400, "json", "", ""},
		{"two objects", payload(string(sample) + "{}"), 400, "json", "", ""},
		{"duplicate name", payload(strings.Replace(string(sample), `{`, `{"GroupId":"1",`, 1)), 400, "json", "", ""},
		{"look-alike name", payload(strings.Replace(string(sample), `{`, `{"groupid":"1",`, 1)), 400, "payload", "", ""},
		{"no GroupId", payload(strings.Replace(string(sample), `GroupId`, `Other`, 1)), 400, "payload", "", ""},
		{"MsgSeq too large", payload(strings.Replace(string(sample), `130`, `4294967296`, 1)), 400, "payload", "", ""},
		{"MsgSeq as string", payload(strings.Replace(string(sample), `130`, `"130"`, 1)), 400, "payload", "", ""},
		{"MsgSeq with fraction", payload(strings.Replace(string(sample), `130`, `1.0`, 1)), 400, "payload", "", ""},
		{"another command in the body", payload(strings.Replace(string(sample), `RecallMsg`, `SendMsg`, 1)), 400, "mismatch", "", ""},
	}
	b := newBackend(t)
	guarded(b, "max_body 1KiB").start(t)
	for _, p := range protocols(t) {
		for _, tt := range tests {
			t.Run(p.name+"/"+tt.name, func(t *testing.T) {
				got := p.send(t, tt.request)
				got.wantRefused(t, tt.status, tt.reason)
				if tt.header != "" && got.header.Get(tt.header) != tt.value {
					t.Errorf("%s %q, want %q", tt.header, got.header.Get(tt.header), tt.value)
				}
				b.takeNone(t)
			})
		}
	}
}

func gzipped(t *testing.T, data []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func TestEndToEndAcceptsSignsOfEveryToken(t *testing.T) {
	b := newBackend(t)
	site{body: "tim_callback {\n app " + guardtest.App + " " + guardtest.Token + " " + guardtest.NewToken + "\n app 1400000001 unsigned\n}\nreverse_proxy " + b.address()}.start(t)
	now := time.Now()
	p := protocols(t)[0]
	for name, tt := range map[string]struct {
		app, auth string
		reason    callback.Reason // empty if it is good
	}{
		"first token":                {guardtest.App, guardtest.Signed(guardtest.Token, now), ""},
		"second token":               {guardtest.App, guardtest.Signed(guardtest.NewToken, now), ""},
		"upper-case hex":             {guardtest.App, strings.Replace(guardtest.Signed(guardtest.NewToken, now), callback.Sign(guardtest.NewToken, requestTimeOf(now)), strings.ToUpper(callback.Sign(guardtest.NewToken, requestTimeOf(now))), 1), ""},
		"neither token":              {guardtest.App, guardtest.Signed("third", now), callback.ReasonSign},
		"unsigned":                   {guardtest.App, "", callback.ReasonUnsigned},
		"app without token":          {"1400000001", "", ""},
		"app without token, signed":  {"1400000001", guardtest.Signed("anything", now), ""},
		"half a minute off, past":    {guardtest.App, guardtest.Signed(guardtest.Token, now.Add(-30*time.Second)), ""},
		"half a minute off, future":  {guardtest.App, guardtest.Signed(guardtest.Token, now.Add(30*time.Second)), ""},
		"a minute and a half, past":  {guardtest.App, guardtest.Signed(guardtest.Token, now.Add(-90*time.Second)), callback.ReasonStale},
		"a minute and a half, ahead": {guardtest.App, guardtest.Signed(guardtest.Token, now.Add(90*time.Second)), callback.ReasonStale},
	} {
		t.Run(name, func(t *testing.T) {
			for range 2 { // a repeated Sign within a second is not a replay
				got := p.send(t, request{query: guardtest.Query(tt.app, callback.RecallCommand, tt.auth), body: recallBody(t)})
				if tt.reason != "" {
					got.wantRefused(t, http.StatusUnauthorized, tt.reason)
					b.takeNone(t)
					continue
				}
				got.wantOK(t)
				b.takeOne(t)
			}
		})
	}
}

func requestTimeOf(at time.Time) string {
	return strings.TrimPrefix(strings.Split(guardtest.Signed("", at), "&")[0], "RequestTime=")
}

func TestEndToEndReportModeForwardsEverything(t *testing.T) {
	b := newBackend(t)
	file := guarded(b, "mode report", "max_body 1KiB", "on Group.CallbackAfterRecallMsg ack").start(t)
	large := bytes.Repeat([]byte("0123456789abcdef"), 16<<10)
	good := goodQuery()
	for _, p := range protocols(t) {
		for name, tt := range map[string]struct {
			request request
			reason  callback.Reason // empty if it is good
		}{
			"good, and the rule says ack": {request{query: good, body: recallBody(t)}, ""},
			"good, chunked":               {request{query: good, body: recallBody(t), chunked: true}, ""},
			"GET":                         {request{method: "GET", query: good}, callback.ReasonMethod},
			"bad query":                   {request{query: good + "&Sign=1", body: recallBody(t)}, callback.ReasonQuery},
			"another app":                 {request{query: guardtest.Query("1", callback.RecallCommand, ""), body: recallBody(t)}, callback.ReasonApp},
			"forged":                      {request{query: guardtest.Query(guardtest.App, callback.RecallCommand, guardtest.Signed("x", time.Now())), body: recallBody(t)}, callback.ReasonSign},
			"forged, chunked": {
				request{query: guardtest.Query(guardtest.App, callback.RecallCommand, guardtest.Signed("x", time.Now())), body: recallBody(t), chunked: true}, callback.ReasonSign,
			},
			"another command":        {request{query: strings.Replace(good, "Recall", "Other", 1), body: recallBody(t)}, callback.ReasonCommand},
			"oversized":              {request{query: good, body: large}, callback.ReasonTooLarge},
			"oversized, chunked":     {request{query: good, body: large, chunked: true}, callback.ReasonTooLarge},
			"gzip":                   {request{query: good, body: gzipped(t, large), header: http.Header{"Content-Encoding": {"gzip"}}}, callback.ReasonEncoding},
			"not JSON":               {request{query: good, body: []byte("no")}, callback.ReasonJSON},
			"GET with a body":        {request{method: "GET", query: good, body: []byte("x")}, callback.ReasonMethod},
			"PUT, large and chunked": {request{method: "PUT", query: good, body: large, chunked: true}, callback.ReasonMethod},
		} {
			t.Run(p.name+"/"+name, func(t *testing.T) {
				tt.request.path = "/" + strings.ReplaceAll(name, " ", "_") + "/" + p.name
				p.send(t, tt.request).wantOK(t)
				wantForwarded(t, b.takeOne(t), tt.request)
				wantReported(t, file, tt.request.path, tt.reason)
			})
		}
	}
}

// wantForwarded fails the test unless the backend received what was sent.
func wantForwarded(t *testing.T, got received, sent request) {
	t.Helper()
	if want := sent.path + "?" + sent.query; got.URI != want {
		t.Errorf("URI   %s\nwant  %s", got.URI, want)
	}
	if !bytes.Equal(got.Body, sent.body) {
		t.Errorf("body of %d bytes, want the %d that were sent", len(got.Body), len(sent.body))
	}
	if want := sent.header.Get("Content-Encoding"); got.Header.Get("Content-Encoding") != want {
		t.Errorf("Content-Encoding %q, want %q", got.Header.Get("Content-Encoding"), want)
	}
}

// wantReported fails the test unless the handler has logged that the callback would be
// refused for the reason. If the reason is empty, there must be no new line.
func wantReported(t *testing.T, file, path string, reason callback.Reason) {
	t.Helper()
	if reason == "" {
		return
	}
	_ = path
	logLines(t, file, func(line map[string]any) bool {
		return line["msg"] == "callback would be refused" && line["reason"] == string(reason)
	})
}

func TestEndToEndAnswersTheConsoleCheck(t *testing.T) {
	b := newBackend(t)
	now := time.Now()
	auth := guardtest.Signed(guardtest.Token, now)
	good := goodQuery()
	checks := map[string]request{
		"braces":                      {query: good, body: []byte("{}")},
		"braces and space":            {query: good, body: []byte(" {\r\n}\n")},
		"nothing":                     {query: good},
		"nothing, chunked":            {query: good, chunked: true},
		"only Sign and RequestTime":   {query: auth, body: []byte("{}")},
		"no SdkAppid":                 {query: strings.Replace(good, "SdkAppid", "Other", 1)},
		"another app":                 {query: guardtest.Query("1400000001", callback.RecallCommand, auth), body: []byte("{}")},
		"a command that is refused":   {query: guardtest.Query(guardtest.App, "C2C.CallbackAfterSendMsg", auth), body: []byte("{}")},
		"no command":                  {query: "SdkAppid=" + guardtest.App + "&" + auth, body: []byte("{}")},
		"a command that is forwarded": {query: guardtest.Query(guardtest.App, "Unknown.Forwarded", auth), body: []byte("{}")},
	}
	t.Run("on", func(t *testing.T) {
		guarded(b, "on Group.CallbackAfterRecallMsg Unknown.Forwarded forward").start(t)
		for _, p := range protocols(t) {
			for name, q := range checks {
				t.Run(p.name+"/"+name, func(t *testing.T) {
					p.send(t, q).wantOK(t)
					b.takeNone(t)
				})
			}
		}
		p := protocols(t)[0]
		for name, tt := range map[string]struct {
			request request
			status  int
			reason  callback.Reason
		}{
			"unsigned":     {request{query: guardtest.Query(guardtest.App, callback.RecallCommand, ""), body: []byte("{}")}, 401, callback.ReasonUnsigned},
			"forged":       {request{query: guardtest.Query(guardtest.App, callback.RecallCommand, guardtest.Signed("x", now)), body: []byte("{}")}, 401, callback.ReasonSign},
			"stale":        {request{query: guardtest.Query(guardtest.App, callback.RecallCommand, guardtest.Signed(guardtest.Token, now.Add(-time.Hour)))}, 401, callback.ReasonStale},
			"no auth":      {request{body: []byte("{}")}, 403, callback.ReasonApp},
			"GET":          {request{method: "GET", query: good}, 405, callback.ReasonMethod},
			"not blank":    {request{query: auth, body: []byte(`{"a":1}`)}, 403, callback.ReasonApp},
			"only spaces?": {request{query: auth, body: []byte(strings.Repeat(" ", 100))}, 403, callback.ReasonApp},
			"empty array":  {request{query: good, body: []byte(`[]`)}, 400, callback.ReasonJSON},
		} {
			t.Run("not "+name, func(t *testing.T) {
				p.send(t, tt.request).wantRefused(t, tt.status, tt.reason)
				b.takeNone(t)
			})
		}
	})
	t.Run("report mode", func(t *testing.T) {
		guarded(b, "mode report").start(t)
		p := protocols(t)[0]
		p.send(t, checks["braces"]).wantOK(t)
		b.takeNone(t)
	})
	t.Run("off", func(t *testing.T) {
		guarded(b, "console_check off", "on Group.CallbackAfterRecallMsg Unknown.Forwarded forward").start(t)
		p := protocols(t)[0]
		p.send(t, checks["braces"]).wantRefused(t, 400, callback.ReasonPayload)
		p.send(t, checks["nothing"]).wantRefused(t, 400, callback.ReasonJSON)
		p.send(t, checks["no SdkAppid"]).wantRefused(t, 403, callback.ReasonApp)
		p.send(t, checks["a command that is refused"]).wantRefused(t, 403, callback.ReasonCommand)
		b.takeNone(t)
		p.send(t, checks["a command that is forwarded"]).wantOK(t)
		wantForwarded(t, b.takeOne(t), request{path: "/", query: checks["a command that is forwarded"].query, body: []byte("{}")})
	})
}

func TestEndToEndAcknowledgesAndRejectsByRule(t *testing.T) {
	b := newBackend(t)
	guarded(b, "on X.Forward Y.* forward", "on X.Reject reject", "on X.* ack", "on Group.CallbackAfterRecallMsg ack").start(t)
	auth := guardtest.Signed(guardtest.Token, time.Now())
	p := protocols(t)[1]
	for command, forwarded := range map[string]bool{"X.Forward": true, "Y.Anything": true, "X.Other": false, callback.RecallCommand: false} {
		t.Run(command, func(t *testing.T) {
			body := []byte(strings.Replace(string(recallBody(t)), callback.RecallCommand, command, 1))
			p.send(t, request{query: guardtest.Query(guardtest.App, command, auth), body: body}).wantOK(t)
			if got := len(b.take()) == 1; got != forwarded {
				t.Errorf("forwarded: %t, want %t", got, forwarded)
			}
		})
	}
	for _, command := range []string{"X.Reject", "Z.Other", "x.forward", "Y"} {
		t.Run(command, func(t *testing.T) {
			p.send(t, request{query: guardtest.Query(guardtest.App, command, auth), body: recallBody(t)}).wantRefused(t, 403, callback.ReasonCommand)
			b.takeNone(t)
		})
	}
}
