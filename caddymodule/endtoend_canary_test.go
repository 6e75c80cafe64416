// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/timguard/timguard/caddymodule/callback"
	"github.com/timguard/timguard/caddymodule/internal/guardtest"
)

// queryFilter returns the log filter of Caddyfile.example.
func queryFilter(t *testing.T) string {
	t.Helper()
	_, rest, found := strings.Cut(string(exampleCaddyfile(t)), "format filter {")
	if !found {
		t.Fatal("Caddyfile.example has no log filter")
	}
	depth := 1
	for i, c := range rest {
		switch c {
		case '{':
			depth++
		case '}':
			depth--
		}
		if depth == 0 {
			return "format filter {" + rest[:i+1]
		}
	}
	t.Fatal("the log filter of Caddyfile.example does not end")
	return ""
}

const (
	envelopeMark = "envelope-canary-" // values that may stand in the access log of a good call
	payloadMark  = "payload-canary-"  // values that may stand nowhere
	refusedMark  = "refused-canary-"  // values of payloads that are refused
)

// canaries returns requests by name: good ones, and refused ones for every reason.
func canaries(t *testing.T, at time.Time) map[string]request {
	t.Helper()
	payload := func(envelope, inside string) []byte {
		return fmt.Appendf(nil, `{"CallbackCommand":"Group.CallbackAfterRecallMsg","Operator_Account":"%[1]sop","Type":"%[1]stype","GroupId":"%[1]sgroup",`+
			`"MsgSeqList":[{"MsgSeq":1,"MsgId":"%[2]smsg"}],"MsgBody":[{"MsgType":"TIMTextElem","MsgContent":{"Text":"%[2]stext"}}]}`, envelope, inside)
	}
	good := guardtest.Query(guardtest.App, callback.RecallCommand, guardtest.Signed(guardtest.Token, at))
	sample := payload(envelopeMark, payloadMark)
	refused := payload(refusedMark, refusedMark)
	edited := func(old, replacement string) request {
		return request{query: good, body: bytes.Replace(refused, []byte(old), []byte(replacement), 1)}
	}
	return map[string]request{
		"good":              {query: good, body: sample},
		"good chunked":      {query: good, body: sample, chunked: true},
		"good, new token":   {query: guardtest.Query(guardtest.App, callback.RecallCommand, guardtest.Signed(guardtest.NewToken, at)), body: sample},
		"method":            {method: "PUT", query: good, body: refused},
		"query":             {query: good + "&sign=x", body: refused},
		"query, twice":      {query: good + "&" + guardtest.Signed(guardtest.NewToken, at), body: refused},
		"app":               {query: strings.Replace(good, guardtest.App, "77", 1), body: refused},
		"command":           {query: strings.Replace(good, "Recall", "Other", 1), body: refused},
		"unsigned":          {query: guardtest.Query(guardtest.App, callback.RecallCommand, "Sign="+callback.Sign(guardtest.Token, strconv.FormatInt(at.Unix(), 10))), body: refused},
		"stale":             {query: guardtest.Query(guardtest.App, callback.RecallCommand, guardtest.Signed(guardtest.Token, at.Add(-time.Hour))), body: refused},
		"sign":              {query: guardtest.Query(guardtest.App, callback.RecallCommand, guardtest.Signed(guardtest.Token+"x", at)), body: refused},
		"sign is the token": {query: guardtest.Query(guardtest.App, callback.RecallCommand, "RequestTime="+strconv.FormatInt(at.Unix(), 10)+"&Sign="+guardtest.Token), body: refused},
		"encoding":          {query: good, body: refused, header: http.Header{"Content-Encoding": {"br"}}},
		"too large":         {query: good, body: bytes.Repeat(refused, 20)},
		"json":              edited(`"MsgSeqList"`, `MsgSeqList`),
		"json, cut":         {query: good, body: refused[:len(refused)-20]},
		"json, twice":       edited(`"Type"`, `"GroupId"`),
		"payload":           edited(`"MsgSeq":1`, `"MsgSeq":"`+refusedMark+`"`),
		"payload, range":    edited(`"MsgSeq":1`, `"MsgSeq":99999999977`),
		"payload, missing":  edited(`"GroupId"`, `"Other"`),
		"payload, fold":     edited(`"GroupId"`, `"groupId"`),
		"mismatch":          edited(`Group.CallbackAfterRecallMsg`, refusedMark+`command`),
		"console check":     {query: good, body: []byte("{}")},
	}
}

// Tokens, Sign, RequestTime and payloads must not be in any log line, including Caddy's
// own at DEBUG with trace on, or in any answer.
func TestEndToEndDoesNotLeakSecrets(t *testing.T) {
	b := newBackend(t)
	at := time.Now().Add(-30 * time.Second) // so that no time stamp of the log is the RequestTime
	var secrets []string
	for _, token := range []string{guardtest.Token, guardtest.NewToken, guardtest.Token + "x"} {
		for _, time := range []time.Time{at, at.Add(-time.Hour)} {
			requestTime := strconv.FormatInt(time.Unix(), 10)
			sign := callback.Sign(token, requestTime)
			secrets = append(secrets, token, requestTime, sign, strings.ToUpper(sign))
		}
	}
	secrets = append(secrets, payloadMark, refusedMark, "99999999977")

	for _, more := range []string{"", "mode report", "rejections handle_errors", "strip_auth", "on Group.CallbackAfterRecallMsg ack"} {
		t.Run(strings.ReplaceAll("with "+more, " ", "_"), func(t *testing.T) {
			s := guarded(b, "max_body 2KiB", more)
			s.body = "log\n" + strings.Replace(s.body, guardtest.Token, guardtest.Token+" "+guardtest.NewToken, 1) + "\nhandle_errors {\n respond \"{err.message} {http.tim_callback.path}\"\n}"
			s.servers, s.log = "trace", queryFilter(t)
			file := s.start(t)
			for name, q := range canaries(t, at) {
				for _, p := range protocols(t) {
					answer := p.send(t, q)
					wantWithout(t, "the answer to "+name+" by "+p.name, fmt.Sprint(answer.header, string(answer.body)), append(slices.Clone(secrets), envelopeMark))
				}
			}
			sendTruncated(t, guardtest.Query(guardtest.App, callback.RecallCommand, guardtest.Signed(guardtest.Token, at)))
			protocols(t)[0].send(t, request{path: "/last", query: "x=1"})
			logLines(t, file, func(line map[string]any) bool {
				r, _ := line["request"].(map[string]any)
				logger, _ := line["logger"].(string)
				return strings.HasPrefix(logger, "http.log.access") && r["uri"] == "/last?x=1"
			})
			log, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Contains(log, []byte(envelopeMark+"group")) || !bytes.Contains(log, []byte(`"tim_callback"`)) {
				t.Error("the log shows no callback, so that it cannot show that it hides anything")
			}
			for line := range strings.Lines(string(log)) {
				wantWithout(t, "a log line", line, secrets)
			}
		})
	}
}

// sendTruncated sends a request with a truncated body.
func sendTruncated(t *testing.T, query string) {
	t.Helper()
	c := dial(t)
	c.post(t, query, "Content-Length: 900\r\n", `{"GroupId":"`+refusedMark)
	if closer, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		_ = closer.CloseWrite()
	}
	_, _ = io.Copy(io.Discard, c.r)
}

func wantWithout(t *testing.T, what, text string, secrets []string) {
	t.Helper()
	for _, secret := range secrets {
		if strings.Contains(text, secret) {
			t.Errorf("%s holds %q: %s", what, secret, text)
		}
	}
}
