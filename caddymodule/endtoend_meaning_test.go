// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/timguard/timguard/caddymodule/callback"
	"github.com/timguard/timguard/caddymodule/internal/guardtest"
)

// genuinePayloads returns samples of the command with all fields, and with only the
// required ones.
func genuinePayloads(t *testing.T, c callback.Command) map[string][]byte {
	t.Helper()
	var payload map[string]any
	dec := json.NewDecoder(bytes.NewReader(callback.Sample(c.Name)))
	dec.UseNumber()
	if err := dec.Decode(&payload); err != nil {
		t.Fatal(err)
	}
	if len(c.Fields) > 0 {
		keepRequired(c.Fields, payload)
	}
	least, err := json.Marshal(payload)
	if err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{"all fields": callback.Sample(c.Name), "required fields": least}
}

func keepRequired(fields []callback.Field, object map[string]any) {
	for _, f := range fields {
		if !f.Required {
			delete(object, f.Name)
			continue
		}
		elements, _ := object[f.Name].([]any)
		for _, element := range elements {
			if inner, ok := element.(map[string]any); ok && len(f.Fields) > 0 {
				keepRequired(f.Fields, inner)
			}
		}
	}
}

func TestEndToEndForwardsEveryGenuinePayload(t *testing.T) {
	b := newBackend(t)
	guarded(b, "on * forward").start(t)
	p := protocols(t)[0]
	sent := 0
	for _, c := range callback.Commands() {
		for what, body := range genuinePayloads(t, c) {
			sent++
			for _, kind := range []string{"", "application/json", "application/json; charset=utf-8", "text/plain"} {
				header := http.Header{}
				if kind != "" {
					header.Set("Content-Type", kind)
				}
				p.send(t, request{query: guardtest.Query(guardtest.App, c.Name, guardtest.Signed(guardtest.Token, time.Now())), body: body, header: header}).wantOK(t)
				if string(body) == "{}" { // like the console's check, which is never forwarded
					b.takeNone(t)
					continue
				}
				got := b.takeOne(t)
				if !bytes.Equal(got.Body, body) || got.Header.Get("Content-Type") != cmp.Or(kind, "application/json") {
					t.Errorf("%s, %s: %q became %q %s", c.Name, what, kind, got.Header.Get("Content-Type"), got.Body)
				}
			}
		}
	}
	if want := 2 * len(callback.Commands()); sent != want || want < 174 {
		t.Errorf("%d payloads were sent, want %d", sent, want)
	}
}

func TestEndToEndRemovesUpgrade(t *testing.T) {
	b := newBackend(t)
	guarded(b).start(t)
	p := protocols(t)[0]
	for name, header := range map[string]http.Header{
		"an upgrade":             {"Connection": {"Upgrade"}, "Upgrade": {"websocket"}},
		"an upgrade among other": {"Connection": {"keep-alive, UPGRADE"}, "Upgrade": {"h2c"}},
		"without its Connection": {"Upgrade": {"websocket"}},
		"without its Upgrade":    {"Connection": {"upgrade"}},
	} {
		t.Run(name, func(t *testing.T) {
			p.send(t, request{query: goodQuery(), body: recallBody(t), header: header}).wantOK(t)
			if got := b.takeOne(t); got.Header.Get("Upgrade") != "" || strings.Contains(strings.ToLower(got.Header.Get("Connection")), "upgrade") {
				t.Errorf("the backend received %v", got.Header)
			}
		})
	}
}

func TestEndToEndRefusesLookAlikesOfCommands(t *testing.T) {
	const withdraw = "C2C.CallbackAfterMsgWithDraw"
	b := newBackend(t)
	guarded(b, "on "+withdraw+" reject", "on after forward").start(t)
	p := protocols(t)[0]
	for _, command := range []string{withdraw, withdraw + "%20", "%20" + withdraw, "c2c.callbackaftermsgwithdraw", withdraw + "%C2%A0", "C2C_CallbackAfterMsgWithDraw"} {
		for _, body := range []string{string(callback.Sample(withdraw)), `{}`} {
			got := p.send(t, request{query: guardtest.Query(guardtest.App, command, guardtest.Signed(guardtest.Token, time.Now())), body: []byte(body)})
			if got.status == http.StatusOK { // the console's check: {} is never forwarded
				got.wantOK(t)
			} else {
				got.wantRefused(t, http.StatusForbidden, callback.ReasonCommand)
			}
			b.takeNone(t)
		}
	}
}

// Each of several guards checks its own apps, and sets its own placeholders.
func TestEndToEndSeveralGuardsInOneRoute(t *testing.T) {
	const shown = `{http.tim_callback.sdk_app_id}/{http.tim_callback.reason}/{http.tim_callback.group_id}`
	b := newBackend(t)
	other := func(token string) string {
		return "tim_callback {\n name other\n app " + guardtest.App + " " + token + "\n}"
	}
	p := protocols(t)[0]
	for name, tt := range map[string]struct {
		body    string
		status  int
		reached bool
		after   string // header X-First: what was shown behind the first guard
		last    string // header X-Last: what was shown behind the last one
	}{
		"both let it in": {
			"route {\n" + guardtest.Guard("mode report") + "\nheader X-First " + shown + "\n" + other(guardtest.Token) + "\nheader X-Last " + shown + "\nreverse_proxy " + b.address() + "\n}",
			http.StatusOK, true, guardtest.App + "//1213456", guardtest.App + "//1213456",
		},
		"the second has another token": {
			"route {\n" + guardtest.Guard() + "\nheader X-First " + shown + "\n" + other("another") + "\nreverse_proxy " + b.address() + "\n}",
			http.StatusUnauthorized, false, guardtest.App + "//1213456", "",
		},
		"the first would refuse it": {
			"route {\ntim_callback {\n app " + guardtest.App + " another\n mode report\n}\nheader X-First " + shown + "\n" + other(guardtest.Token) + "\nheader X-Last " + shown + "\nreverse_proxy " + b.address() + "\n}",
			http.StatusOK, true, guardtest.App + "/sign/", guardtest.App + "//1213456",
		},
		"the second in the error routes": {
			"tim_callback {\n app " + guardtest.App + " another\n rejections handle_errors\n}\nhandle_errors {\nroute {\nheader X-First " + shown + "\n" + other(guardtest.Token) + "\nheader X-Last " + shown + "\nreverse_proxy " + b.address() + "\n}\n}",
			http.StatusOK, true, guardtest.App + "/sign/", guardtest.App + "//1213456",
		},
		"the second refuses in the error routes": {
			"tim_callback {\n app " + guardtest.App + " another\n rejections handle_errors\n}\nhandle_errors {\nroute {\n" + other("a third") + "\nreverse_proxy " + b.address() + "\n}\n}",
			http.StatusUnauthorized, false, "", "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			site{body: tt.body}.start(t)
			got := p.send(t, request{query: goodQuery(), body: recallBody(t)})
			if got.status != tt.status || len(b.take()) == 1 != tt.reached {
				t.Errorf("status %d, want %d, and the backend reached: %t", got.status, tt.status, tt.reached)
			}
			if first, last := got.header.Get("X-First"), got.header.Get("X-Last"); first != tt.after || last != tt.last {
				t.Errorf("shown: %q, then %q; want %q, then %q", first, last, tt.after, tt.last)
			}
		})
	}
}

func TestEndToEndAccessLogHasOnlyTheLastGuardsValues(t *testing.T) {
	b := newBackend(t)
	file := site{body: "log\nroute {\ntim_callback {\n app " + guardtest.App + " another\n mode report\n}\n" + guardtest.Guard("name other") + "\nreverse_proxy " + b.address() + "\n}"}.start(t)
	protocols(t)[0].send(t, request{query: goodQuery(), body: recallBody(t)}).wantOK(t)
	for _, line := range logLines(t, file, isAccess) {
		if !isAccess(line) {
			continue
		}
		if fields, _ := line["tim_callback"].(map[string]any); fields["action"] != "forward" || fields["reason"] != nil || fields["group_id"] != "1213456" {
			t.Errorf("the access log has %v", fields)
		}
	}
}

func isAccess(line map[string]any) bool { return line["msg"] == "handled request" }

// Text of an unauthenticated caller must not be able to hide or forge log lines.
func TestEndToEndEscapesTextInLogs(t *testing.T) {
	const odd = "Evil%C2%85%C2%9B31m%E2%80%AE%E2%81%A6%E2%80%8F%D8%9C"
	b := newBackend(t)
	s := guarded(b, "on after forward")
	s.body = "log\n" + s.body
	s.log = queryFilter(t)
	file := s.start(t)
	p := protocols(t)[0]
	p.send(t, request{query: guardtest.Query(guardtest.App, odd, guardtest.Signed("guess", time.Now())), body: recallBody(t)}).wantRefused(t, http.StatusUnauthorized, callback.ReasonSign)
	body := bytes.Replace(recallBody(t), []byte(`"TopicId"`), []byte("\"groupid\u0085\u202e\":1,\"TopicId\""), 1)
	p.send(t, request{query: goodQuery(), body: body}).wantRefused(t, http.StatusBadRequest, callback.ReasonPayload)
	seen := 0
	for _, line := range logLines(t, file, func(line map[string]any) bool { return isAccess(line) && line["status"] == 400.0 }) {
		for _, fields := range []map[string]any{line, asObject(line["tim_callback"])} {
			for name, value := range fields {
				text, ok := value.(string)
				if !ok {
					continue
				}
				if strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsGraphic(r) && r != '\n' && r != '\t' }) {
					t.Errorf("%s is %q", name, text)
				}
				if strings.Contains(text, `Evil\u0085\u009b31m\u202e\u2066\u200f\u061c`) || strings.Contains(text, `groupid\u0085\u202e`) {
					seen++
				}
			}
		}
	}
	if seen < 4 {
		t.Errorf("the odd text is in %d fields, want it in the guard's and the access log's of both", seen)
	}
}

func asObject(value any) map[string]any {
	object, _ := value.(map[string]any)
	return object
}

func TestMsgSeqsAreShownUpToAHundred(t *testing.T) {
	t.Parallel()
	seqs := make([]uint32, 5000)
	for i := range seqs {
		seqs[i] = 4294967295
	}
	c := &call{judgment: judgment{event: callback.Event{MsgSeqs: seqs[:100]}}}
	if got := c.value("msg_seqs"); strings.Count(got, "4294967295") != 100 || strings.HasSuffix(got, ")") {
		t.Errorf("100 are shown as %s", got)
	}
	c.event.MsgSeqs = seqs
	if got := c.value("msg_seqs"); strings.Count(got, "4294967295") != 100 || !strings.HasSuffix(got, ",… (5000)") {
		t.Errorf("5000 are shown as %s", got)
	}
}

func TestUnknownActionsAreErrors(t *testing.T) {
	t.Parallel()
	h := provisioned(t, &Handler{Apps: []App{{SdkAppID: guardtest.App, Tokens: []string{guardtest.Token}}}})
	h.known[callback.RecallCommand] = &Rule{Commands: []string{callback.RecallCommand}, Action: "approve"}
	w := httptest.NewRecorder()
	if err := h.ServeHTTP(w, newPost(t, goodQuery(), bytes.NewReader(recallBody(t))), nil); err == nil || !strings.Contains(fmt.Sprint(err), "approve") || w.Code != http.StatusOK || w.Body.Len() > 0 {
		t.Errorf("answer %d %s, error %v; want an error only", w.Code, w.Body, err)
	}
}
