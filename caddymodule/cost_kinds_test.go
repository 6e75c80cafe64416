// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/timguard/timguard/caddymodule/callback"
)

// costKind is one thing to measure: what a site does with a request.
type costKind struct {
	name     string
	handlers string   // of the site, as JSON
	against  []string // the kinds to compare with

	before bool // asks for a verdict: it gets the before-callback
	stores bool // goes on after its answer
}

const (
	costToken = "xxxxyyyy"
	costProxy = `{"handler":"reverse_proxy","upstreams":[{"dial":"%s"}]}`
	costReply = `{"handler":"static_response","status_code":200,"headers":{"Content-Type":["application/json"]},"body":"{\"ActionStatus\":\"OK\",\"ErrorInfo\":\"\",\"ErrorCode\":0}"}`
)

// costGuard is a guard with one rule, given as the JSON of what it does with which
// commands. Its name tells it from others that deliver.
func costGuard(name, token, rule string) string {
	return fmt.Sprintf(`{"handler":"tim_callback","name":%q,"apps":[{"sdk_app_id":"1400000000","tokens":[%q]}],"rules":[{%s}]}`, name, token, rule)
}

// costKinds are the sites that people run. All guards check the Sign. One that is
// buffered has a proxy with request_buffers.
func costKinds(backend string) []costKind {
	proxy := fmt.Sprintf(costProxy, backend)
	buffered := strings.Replace(proxy, `"upstreams"`, `"request_buffers":1048576,"upstreams"`, 1)
	const (
		forward = `"commands":["after"],"action":"forward"`
		allow   = `"commands":["before"],"action":"forward","fallback":{"verdict":"allow"}`
		deliver = forward + `,"fallback":{"verdict":"deliver"}`
		store   = `"commands":["after"],"action":"deliver"`
		ack     = `"commands":["after"],"action":"ack"`
	)
	guard := func(name, rule string) string { return costGuard(name, costToken, rule) }
	return []costKind{
		{name: "proxy", handlers: proxy},
		{name: "proxy, buffered", handlers: buffered, against: []string{"proxy"}},
		{name: "forward", handlers: guard("a", forward) + "," + proxy, against: []string{"proxy"}},
		{name: "forward, buffered", handlers: guard("b", forward) + "," + buffered, against: []string{"proxy", "proxy, buffered"}},
		{name: "fallback allow", handlers: guard("c", allow) + "," + proxy, against: []string{"proxy", "forward"}, before: true},
		{name: "fallback allow, buffered", handlers: guard("d", allow) + "," + buffered, against: []string{"proxy", "forward, buffered"}, before: true},
		{name: "fallback deliver", handlers: guard("e", deliver) + "," + proxy, against: []string{"proxy", "forward"}},
		{name: "fallback deliver, buffered", handlers: guard("f", deliver) + "," + buffered, against: []string{"proxy", "forward, buffered"}},
		{name: "deliver", handlers: guard("g", store) + "," + proxy, against: []string{"proxy"}, stores: true},
		{name: "respond", handlers: costReply},
		{name: "ack", handlers: guard("h", ack), against: []string{"respond"}},
	}
}

// costCallback is a callback with an EventTime of costTime.
type costCallback struct {
	command string
	body    []byte
}

// costPayload is what is sent in a run: an after-callback, and one like it that
// asks for a verdict.
type costPayload struct {
	name          string
	after, before costCallback
}

func (p costPayload) of(k costKind) costCallback {
	if k.before {
		return p.before
	}
	return p.after
}

func costPayloads(tb testing.TB) []costPayload {
	tb.Helper()
	message, err := os.ReadFile(filepath.Join("callback", "testdata", "message.json"))
	if err != nil {
		tb.Fatal(err)
	}
	const after, before = "Group.CallbackAfterSendMsg", "Group.CallbackBeforeSendMsg"
	short := []byte(`{"CallbackCommand":"Group.CallbackBeforeSendMsg","GroupId":"1213456","Type":"Community","From_Account":"jared","Operator_Account":"admin","Random":28047,"MsgBody":[{"MsgType":"TIMTextElem","MsgContent":{"Text":"x"}}],"EventTime":1670574414123}`)
	long := func(command string) costCallback { return costCallback{command, longMessage(command, 64<<10)} }
	payloads := []costPayload{
		{"recall, 230 B", costCallback{callback.RecallCommand, recallMessage}, costCallback{before, short}},
		{"message, 926 B", costCallback{after, message}, costCallback{before, []byte(strings.Replace(string(message), after, before, 1))}},
		{"long message, 64 kB", long("C2C.CallbackAfterSendMsg"), long("C2C.CallbackBeforeSendMsg")},
	}
	for _, p := range payloads {
		for _, c := range []costCallback{p.after, p.before} {
			if _, err := callback.Inspect(c.body, c.command); err != nil {
				tb.Fatal(err) // a verdict would be measured
			}
		}
	}
	return payloads
}

// costBody is a real payload of about that many bytes.
func costBody(size int) (command string, body []byte) {
	if size < 1000 {
		return callback.RecallCommand, recallMessage
	}
	command = "C2C.CallbackAfterSendMsg"
	return command, longMessage(command, size)
}

// costTime is the EventTime of the payloads.
const costTime = "1670574414123"

var recallMessage = []byte(`{"CallbackCommand":"Group.CallbackAfterRecallMsg","Operator_Account":"admin","Type":"Community","GroupId":"1213456","MsgSeqList":[{"MsgSeq":130}],"TopicId":"@TGS#_@TGS#cQVLVHIM62CJ@TOPIC#_TestTopic","EventTime":"1670574414123"}`)

// longMessage is the command's sample with a text of about that many bytes.
func longMessage(command string, size int) []byte {
	text := strings.Repeat("The quick brown fox jumps over the lazy dog. ", size/45)
	return []byte(strings.Replace(string(callback.Sample(command)), "red packet", text, 1))
}
