// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/timguard/timguard/caddymodule/callback"
)

// run runs a command with its arguments and standard input, and returns what it
// prints on either output.
func run(t *testing.T, cmd *cobra.Command, input string, args ...string) (output string, err error) {
	t.Helper()
	var out bytes.Buffer
	cmd.SetArgs(args)
	cmd.SetIn(strings.NewReader(input))
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	err = cmd.ExecuteContext(t.Context())
	return out.String(), err
}

func TestCheckExplainsTheFirstFault(t *testing.T) {
	t.Parallel()
	sample := string(recallBody(t))
	for name, tt := range map[string]struct {
		input string
		args  []string
		want  string // in the output or the error
		fails bool
	}{
		"good":          {sample, nil, "ok: Group.CallbackAfterRecallMsg (after)", false},
		"comment":       {strings.Replace(sample, ",\n", ", // x\n", 1), nil, "refused as json: a comment is not JSON", true},
		"position":      {strings.Replace(sample, "130", "4294967296", 1), nil, "at /MsgSeqList/0/MsgSeq, line 8, column 23", true},
		"missing":       {strings.Replace(sample, `"GroupId"`, `"Other"`, 1), nil, "at /GroupId", true},
		"empty":         {"", nil, "refused as json", true},
		"array":         {"[]", nil, "at the top, line 1, column 1", true},
		"no command":    {`{"a":1}`, nil, "--command", true},
		"mismatch":      {sample, []string{"--command", "C2C.CallbackAfterSendMsg"}, "refused as", true},
		"unknown":       {`{"CallbackCommand":"New.Command"}`, nil, "New.Command is not a known command", false},
		"given command": {sample, []string{"--command", callback.RecallCommand}, "ok: ", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			output, err := run(t, checkCommand(), tt.input, append(tt.args, "-")...)
			if (err != nil) != tt.fails {
				t.Errorf("error %v, want one: %t", err, tt.fails)
			}
			if !strings.Contains(output, tt.want) {
				t.Errorf("output %q, want %q in it", output, tt.want)
			}
		})
	}
}

func TestCheckReadsFiles(t *testing.T) {
	t.Parallel()
	if output, err := run(t, checkCommand(), "", filepath.Join("callback", "testdata", "recall.json")); err != nil || !strings.HasPrefix(output, "ok: ") {
		t.Errorf("output %q, error %v", output, err)
	}
	if _, err := run(t, checkCommand(), "", "no-such-file.json"); err == nil {
		t.Error("no error of a file that is not there")
	}
	if _, err := run(t, checkCommand(), ""); err == nil {
		t.Error("no error without a file")
	}
}

func TestCheckPrintsJSON(t *testing.T) {
	t.Parallel()
	body := strings.Replace(string(recallBody(t)), "130", "-1", 1)
	var out bytes.Buffer
	cmd := checkCommand()
	cmd.SetArgs([]string{"--json", "-"})
	cmd.SetIn(strings.NewReader(body))
	cmd.SetOut(&out)
	cmd.SetErr(io.Discard)
	if err := cmd.ExecuteContext(t.Context()); err == nil {
		t.Error("no error of a refused payload")
	}
	var got checkResult
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatalf("%v: %s", err, out.String())
	}
	want := checkResult{
		Command: callback.RecallCommand, Class: callback.After, Known: true, Reason: callback.ReasonPayload,
		Path: "/MsgSeqList/0/MsgSeq", Detail: got.Detail, Line: 8, Column: 23,
	}
	if got != want {
		t.Errorf("result %+v\nwant   %+v", got, want)
	}
}

// endpoint is a callback endpoint that checks like the guard and answers as told.
func endpoint(t *testing.T, status int, answer string) (url string, last func() callback.Query) {
	t.Helper()
	var query callback.Query
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		query, _ = callback.ParseQuery(r.URL.RawQuery)
		if _, err := callback.Inspect(body, query.CallbackCommand); err != nil {
			status, answer = http.StatusBadRequest, err.Error()
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, answer)
	}))
	t.Cleanup(server.Close)
	return server.URL, func() callback.Query { return query }
}

func TestSendPostsASignedSample(t *testing.T) {
	t.Parallel()
	url, last := endpoint(t, 200, okJSON)
	output, err := run(t, sendCommand(), "", url+"/callback?own=1", "--app", "42", "--token", testToken)
	if err != nil || !strings.Contains(output, okJSON) {
		t.Errorf("output %q, error %v", output, err)
	}
	q := last()
	if q.SdkAppID != "42" || q.CallbackCommand != callback.RecallCommand || q.Sign != callback.Sign(testToken, q.RequestTime) {
		t.Errorf("the endpoint received %+v", q)
	}
}

func TestSendFailsUnlessTheAnswerIsOK(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		status int
		answer string
	}{
		"FAIL":       {200, `{"ActionStatus":"FAIL","ErrorInfo":"","ErrorCode":1}`},
		"status":     {403, okJSON},
		"not JSON":   {200, "OK"},
		"no content": {204, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url, _ := endpoint(t, tt.status, tt.answer)
			if output, err := run(t, sendCommand(), "", url, "--token", testToken); err == nil {
				t.Errorf("no error; output %q", output)
			}
		})
	}
}

func TestSendPrintsJSON(t *testing.T) {
	t.Parallel()
	url, _ := endpoint(t, 200, okJSON)
	output, err := run(t, sendCommand(), "", url, "--token", testToken, "--json")
	var got struct {
		Status int             `json:"status"`
		Answer callback.Answer `json:"answer"`
	}
	if err != nil || json.Unmarshal([]byte(output), &got) != nil || got.Status != 200 || got.Answer.ActionStatus != "OK" {
		t.Errorf("output %q, error %v", output, err)
	}
}

// Neither the token nor the Sign, which is as good for a minute, is shown.
func TestSendKeepsTheTokenToItself(t *testing.T) {
	t.Parallel()
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	url, _ := endpoint(t, 403, `{"ActionStatus":"FAIL","ErrorInfo":"sign","ErrorCode":1}`)
	for name, args := range map[string][]string{
		"refused":         {url},
		"refused, JSON":   {url, "--json"},
		"nobody listens":  {closed.URL},
		"bad URL":         {"not a url"},
		"bad escape":      {"http://127.0.0.1:1/%zz"},
		"no such host":    {"http://no-such-host.invalid/"},
		"no such body":    {url, "--body", "no-such-file"},
		"too late":        {url, "--timeout", "1ns"},
		"unknown flag":    {url, "--no-such-flag"},
		"too many":        {url, "another"},
		"help":            {"--help"},
		"secret is unset": {url, "--command", "{env.TIMGUARD_TEST_UNSET}"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			output, err := run(t, sendCommand(), "", append(args, "--token", testToken)...)
			if err == nil && name != "help" {
				t.Error("no error")
			}
			text := output
			if err != nil {
				text += err.Error()
			}
			if strings.Contains(text, testToken) || strings.Contains(text, "Sign=") || strings.Contains(text, "RequestTime=") {
				t.Errorf("the output holds a secret: %s", text)
			}
		})
	}
}

func TestSendTakesTheTokenFromThePlaceOfASecret(t *testing.T) {
	t.Setenv("TIMGUARD_TEST_TOKEN", testToken)
	t.Setenv("TIM_CALLBACK_TOKEN", newToken)
	url, last := endpoint(t, 200, okJSON)
	if _, err := run(t, sendCommand(), "", url, "--token", "{env.TIMGUARD_TEST_TOKEN}"); err != nil {
		t.Fatal(err)
	}
	if q := last(); q.Sign != callback.Sign(testToken, q.RequestTime) {
		t.Error("the Sign is not made with the token that the placeholder names")
	}
	if output, err := run(t, sendCommand(), "", "--help"); err != nil || strings.Contains(output, newToken) {
		t.Errorf("the help shows the token of the environment, or fails with %v", err)
	}
	if _, err := run(t, sendCommand(), "", url); err != nil {
		t.Fatal(err)
	}
	if q := last(); q.Sign != callback.Sign(newToken, q.RequestTime) {
		t.Error("the Sign is not made with the token of the environment")
	}
	if _, err := run(t, sendCommand(), "", url, "--token", "{env.TIMGUARD_TEST_UNSET}"); err == nil {
		t.Error("no error of a token that is not there")
	}
}
