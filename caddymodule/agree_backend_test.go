// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/timguard/timguard/caddymodule/callback"
	"github.com/timguard/timguard/caddymodule/internal/guardtest"
)

// reading is what a backend read from a request, in every way that its language offers.
type reading struct {
	Parameters map[string]map[string]any `json:"parameters"`
	Payloads   map[string]map[string]any `json:"payloads"`
	Inputs     map[string]map[string]any `json:"inputs"`   // parameters and payload in one, as frameworks merge them
	Requests   map[string]string         `json:"requests"` // method and path
	Trailers   map[string]string         `json:"trailers"`
}

// TestEndToEndBackendsReadWhatTheGuardJudged posts valid payloads to endpoints in four
// languages behind the guard, with Content-Types by which some would be read as a form
// or as another payload.
func TestEndToEndBackendsReadWhatTheGuardJudged(t *testing.T) {
	const inside = `&SdkAppid=666&CallbackCommand=Evil&GroupId=evil&Operator_Account=evil&Sign=evil&[SdkAppid]=666&`
	backends := map[string]string{
		"Go": goBackend(t), "Node": startBackend(t, "node", "testdata/agree/backend.js"),
		"Python": startBackend(t, "python3", "-I", "testdata/agree/backend.py"), "PHP": phpBackend(t),
	}
	p := protocols(t)[0]
	for language, address := range backends {
		if address == "" {
			continue
		}
		site{body: guardtest.Guard("on after forward") + "\nreverse_proxy " + address}.start(t)
		for _, command := range []string{callback.RecallCommand, "Future.CallbackAfterAnything"} {
			for _, kind := range append(genuineContentTypes, hostileContentTypes...) {
				t.Run(fmt.Sprintf("%s, %s, %q", language, command, kind), func(t *testing.T) {
					body := fmt.Sprintf(`{"CallbackCommand":%q,"Operator_Account":"admin","Type":"Public","GroupId":"@TGS#+AC0","MsgSeqList":[{"MsgSeq":130}],"x":%q,"+AHg-":1}`, command, inside)
					q := guardtest.Query(guardtest.App, command, guardtest.Signed(guardtest.Token, time.Now()))
					header := hostileHeader()
					if kind != "" {
						header.Set("Content-Type", kind)
					}
					wantReading(t, p.send(t, request{query: q, body: []byte(body), header: header}), body, command)
					wantReading(t, p.send(t, request{
						query: q, body: []byte(body), header: header, chunked: true,
						trailer: http.Header{"Tim-Delivery-Consumer": {"evil"}, "Content-Type": {"text/html"}},
					}), body, command)
				})
			}
		}
	}
}

// hostileHeader returns headers by which some backend would read another method, route,
// app or delivery.
func hostileHeader() http.Header {
	return http.Header{
		"Cookie":        {"SdkAppid=666; CallbackCommand=Evil; Sign=evil"},
		"X-Http-Method": {"DELETE"}, "X-Http-Method-Override": {"DELETE"}, "X-Method-Override": {"DELETE"}, "X_http_method_override": {"DELETE"},
		"X-Original-Url": {"/evil"}, "X-Rewrite-Url": {"/evil"}, "X_original_url": {"/evil"}, "Te": {"trailers"},
		"Tim-Delivery-Attempt": {"7"}, "Tim_delivery_attempt": {"7"},
	}
}

// genuineContentTypes are those that Tencent may send. They are passed on.
var genuineContentTypes = []string{
	"", "application/json", "application/json; charset=utf-8", "application/json;charset=UTF-8", `application/json; charset="utf-8"`,
	"text/plain", "text/plain; charset=utf-8", "Application/JSON",
}

// hostileContentTypes make some backend read the body as something else.
var hostileContentTypes = []string{
	"application/x-www-form-urlencoded", "application/x-www-form-urlencoded; charset=utf-8", "APPLICATION/X-WWW-FORM-URLENCODED",
	"multipart/form-data; boundary=x", "multipart/form-data", "application/json; charset=utf-7", "application/json; charset=utf-16",
	"text/plain; charset=utf-7", "application/json; charset=iso-8859-1", "application/json, application/x-www-form-urlencoded",
	"application/json; charset=utf-8; charset=utf-7", "application/json;boundary=x", "text/html", "text/json", "application/vnd.tencent+json", "application/json; charset=\"utf-8", "application/json; charset=utf8;", "application/xml", "application/octet-stream", "x", "/",
}

// wantReading fails the test unless every way of reading found the payload that was
// sent, and no protocol parameters except those of the query.
func wantReading(t *testing.T, got response, body, command string) {
	t.Helper()
	var read reading
	if err := json.Unmarshal(got.body, &read); err != nil || got.status != http.StatusOK || len(read.Payloads) == 0 {
		t.Fatalf("answer %d %s, %v", got.status, got.body, err)
	}
	query := map[string]string{"SdkAppid": guardtest.App, "CallbackCommand": command, "Operator_Account": "", "GroupId": ""}
	for way, parameters := range read.Parameters {
		for name, want := range query {
			if value, there := parameters[name]; there && value != want {
				t.Errorf("%s reads %s as %v", way, name, value)
			}
		}
		if sign, there := parameters["Sign"]; there && sign == "evil" {
			t.Errorf("%s reads another Sign", way)
		}
	}
	for way, input := range read.Inputs {
		if input["SdkAppid"] != guardtest.App || input["CallbackCommand"] != command || input["Sign"] == "evil" {
			t.Errorf("%s reads %v", way, input)
		}
	}
	for way, request := range read.Requests {
		if request != "POST /" {
			t.Errorf("%s sees the request %s", way, request)
		}
	}
	if len(read.Trailers) > 0 {
		t.Errorf("trailers %v", read.Trailers)
	}
	var want map[string]any
	if err := json.Unmarshal([]byte(body), &want); err != nil {
		t.Fatal(err)
	}
	for way, payload := range read.Payloads {
		if fmt.Sprint(payload) != fmt.Sprint(want) {
			t.Errorf("%s reads the payload %v", way, payload)
		}
	}
}

// goBackend reads with FormValue and encoding/json.
func goBackend(t *testing.T) (address string) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(strings.NewReader(string(body)))
		read := reading{
			Parameters: map[string]map[string]any{"FormValue": {}},
			Payloads:   map[string]map[string]any{"encoding/json": {}},
		}
		for _, name := range []string{"SdkAppid", "CallbackCommand", "GroupId", "Operator_Account", "Sign"} {
			read.Parameters["FormValue"][name] = r.FormValue(name)
		}
		var payload map[string]any
		_ = json.Unmarshal(body, &payload)
		read.Payloads["encoding/json"] = payload
		_ = json.NewEncoder(w).Encode(read)
	}))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

// startBackend runs a backend that prints its port, and exits at the end of its input. It
// returns "" if the language is not installed and not required.
func startBackend(t *testing.T, command ...string) (address string) {
	t.Helper()
	if !installed(t, command[0]) {
		return ""
	}
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = in.Close(), cmd.Wait() })
	port, err := bufio.NewReader(out).ReadString('\n')
	if err != nil && os.Getenv(requireInterpreters) == "" {
		t.Logf("%v does not start: what it reads is not compared", command)
		return ""
	}
	if err != nil {
		t.Fatalf("%v does not start: %v", command, err)
	}
	return net.JoinHostPort("127.0.0.1", strings.TrimSpace(port))
}

// requireInterpreters fails tests if a language is not installed.
const requireInterpreters = "TIMGUARD_REQUIRE_INTERPRETERS"

func installed(t *testing.T, command string) bool {
	t.Helper()
	_, err := exec.LookPath(command)
	if err != nil && os.Getenv(requireInterpreters) != "" {
		t.Fatal(err)
	}
	return err == nil
}

// phpBackend runs PHP's built-in server, which populates $_POST and $_REQUEST.
func phpBackend(t *testing.T) (address string) {
	t.Helper()
	if !installed(t, "php") {
		return ""
	}
	address = guardtest.FreePort(t)
	cmd := exec.Command("php", "-n", "-S", address, "testdata/agree/backend.php")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if conn, err := net.Dial("tcp", address); err == nil {
			_ = conn.Close()
			return address
		}
	}
	t.Fatal("php -S does not listen")
	return ""
}
