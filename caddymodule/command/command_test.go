// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package command

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/timguard/timguard/caddymodule/callback"
	"github.com/timguard/timguard/caddymodule/delivery"
	"github.com/timguard/timguard/caddymodule/internal/guardtest"
)

func TestCaddyProcess(*testing.T) { guardtest.RunCaddy() }

// recallBody returns Tencent's sample of the recall, without its comments.
func recallBody(t *testing.T) []byte {
	t.Helper()
	body, err := os.ReadFile(filepath.Join("..", "callback", "testdata", "recall.json"))
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// run runs a command with arguments and standard input, and returns its combined output.
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

// Payloads may come by a pipe that has no end, as those of tail do.
func TestCheckOfLinesDoesNotWaitForTheEnd(t *testing.T) {
	t.Parallel()
	in, lines := io.Pipe()
	out := new(guardtest.SyncBuffer)
	cmd := checkCommand()
	cmd.SetArgs([]string{"--lines", "-"})
	cmd.SetIn(in)
	cmd.SetOut(out)
	done := make(chan error)
	go func() { done <- cmd.ExecuteContext(t.Context()) }()
	for i, line := range []string{"{}{\n", "\n", "{\"CallbackCommand\":1}"} {
		if _, err := io.WriteString(lines, line); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			guardtest.Eventually(t, 10*time.Second, "the first line is checked", func() bool { return strings.Contains(out.String(), "-:1: refused") })
		}
	}
	if err := lines.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err == nil || !strings.Contains(out.String(), "-:3: refused") {
		t.Errorf("%v, output %s", err, out)
	}
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
		"array":         {"[]", nil, "at the top level, line 1, column 1", true},
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
	if output, err := run(t, checkCommand(), "", filepath.Join("..", "callback", "testdata", "recall.json")); err != nil || !strings.HasPrefix(output, "ok: ") {
		t.Errorf("output %q, error %v", output, err)
	}
	if _, err := run(t, checkCommand(), "", "no-such-file.json"); err == nil {
		t.Error("no error of a file that is not there")
	}
	if _, err := run(t, checkCommand(), ""); err == nil {
		t.Error("no error without a file")
	}
}

func TestCheckExplainsEveryFaultOfEveryPayload(t *testing.T) {
	t.Parallel()
	good := string(callback.Sample(callback.RecallCommand))
	bad := strings.NewReplacer(`"GroupId":"1213456"`, `"groupid":"1213456"`, `"MsgSeq":130`, `"MsgSeq":0`).Replace(good)
	dir := t.TempDir()
	write := func(name, text string) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	one, two := write("one.json", good), write("two.json", bad)
	lines := write("lines.log", good+"\n\n"+bad+"\n"+good+"\n")
	none := write("none.json", `{"GroupId":"1"}`)
	slips := write("slips.jsonl", good+"\n"+`{"a":1, "CallbackCommand": "Group.CallbackAfterRecalMsg"}`+"\n{}\n"+good+"\n")
	broken := write("broken.jsonl", "{\n"+good+"\n")
	for name, tt := range map[string]struct {
		args  []string
		want  []string // what each line begins with
		error string
	}{
		"every fault": {[]string{two}, []string{
			"refused as payload: the name looks like GroupId", "  at /groupid, line 1, ", "refused as payload: out of range", "  at /MsgSeqList/0/MsgSeq, line 1, ", "refused as payload: the field is missing", "  at /GroupId, line 1, ",
		}, "this payload"},
		"several files": {[]string{one, two, one}, []string{
			one + ": ok: ", two + ": refused", "  at ", two + ": refused", "  at ", two + ": refused", "  at ", one + ": ok: ",
		}, "1 of 3 payloads"},
		"a payload on each line": {[]string{lines}, []string{
			lines + ":1: ok: ", lines + ":3: refused", "  at /groupid, line 3, ", lines + ":3: refused", "  at /MsgSeqList/0/MsgSeq, line 3, ", lines + ":3: refused", "  at /GroupId, line 3, ", lines + ":4: ok: ",
		}, "1 of 3 payloads"},
		"lines, of which the first is broken": {[]string{broken}, []string{broken + ":1: refused as json", "  at the top level, line 1", broken + ":2: ok: "}, "1 of 2 payloads"},
		"no command in a file": {[]string{one, none, one}, []string{
			one + ": ok: ", none + ": refused as command: the payload has no CallbackCommand: give that of the query with --command", "  at the top level, line 1, column 1", one + ": ok: ",
		}, "1 of 3 payloads"},
		"slips in lines": {[]string{slips}, []string{
			slips + ":1: ok: ", slips + ":2: refused as command: Group.CallbackAfterRecalMsg is not a known command: did you mean Group.CallbackAfterRecallMsg?", "  at /CallbackCommand, line 2, column 28",
			slips + ":3: refused as command: ", "  at the top level, line 3, column 1", slips + ":4: ok: ",
		}, "2 of 4 payloads"},
		"good ones": {[]string{one, one}, []string{one + ": ok: ", one + ": ok: "}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			output, err := run(t, checkCommand(), "", tt.args...)
			if (err == nil) != (tt.error == "") || err != nil && !strings.Contains(err.Error(), tt.error) {
				t.Errorf("error %v, want one with %q", err, tt.error)
			}
			got := strings.Split(strings.TrimSpace(output), "\n")
			if err != nil {
				got = got[:len(got)-1] // cobra prints the error
			}
			matches := len(got) == len(tt.want)
			for i := range min(len(got), len(tt.want)) {
				matches = matches && strings.HasPrefix(got[i], tt.want[i])
			}
			if !matches {
				t.Errorf("output\n%s\nwant lines that begin with\n%s", output, strings.Join(tt.want, "\n"))
			}
		})
	}
}

func TestSamplePrintsAValidPayload(t *testing.T) {
	t.Parallel()
	for _, c := range callback.Commands() {
		output, err := run(t, sampleCommand(), "", c.Name)
		if err != nil || output != string(callback.Sample(c.Name))+"\n" {
			t.Errorf("%s: %q, %v", c.Name, output, err)
		}
		if result, err := run(t, checkCommand(), output, "--command", c.Name, "-"); err != nil {
			t.Errorf("%s: %s, %v", c.Name, result, err)
		}
	}
	for name, want := range map[string]string{"Group.CallbackAfterRecalMsg": "did you mean Group.CallbackAfterRecallMsg?", "Future.CallbackAfterAnything": "not a known command"} {
		if _, err := run(t, sampleCommand(), "", name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want one with %q", name, err, want)
		}
	}
}

func TestSendRejectsUnknownCommandsWithoutABody(t *testing.T) {
	t.Parallel()
	url, _ := endpoint(t, 200, guardtest.OKJSON)
	if _, err := run(t, sendCommand(), "", url, "--command", "Group.CallbackAfterRecalMsg"); err == nil || !strings.Contains(err.Error(), "did you mean") {
		t.Errorf("error %v of a slip", err)
	}
	if _, err := run(t, sendCommand(), `{"CallbackCommand":"Future.X"}`, url, "--command", "Future.X", "--body", "-"); err != nil {
		t.Errorf("a new command with a body of its own: %v", err)
	}
}

func TestSendSetsTheAgeOfRequestTime(t *testing.T) {
	t.Parallel()
	for age, want := range map[string]time.Duration{"90s": 90 * time.Second, "-10m": -10 * time.Minute} {
		url, last := endpoint(t, 200, guardtest.OKJSON)
		if _, err := run(t, sendCommand(), "", url, "--token", guardtest.Token, "--age", age); err != nil {
			t.Fatal(err)
		}
		seconds, _ := strconv.ParseInt(last().RequestTime, 10, 64)
		if off := time.Since(time.Unix(seconds, 0)) - want; off < -2*time.Second || off > 5*time.Second {
			t.Errorf("--age %s: RequestTime is %s off", age, off)
		}
		if q := last(); q.Sign != callback.Sign(guardtest.Token, q.RequestTime) {
			t.Errorf("--age %s: the Sign is not of its RequestTime", age)
		}
	}
}

func TestSendVerifiesCertificatesUnlessInsecure(t *testing.T) {
	t.Parallel()
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, guardtest.OKJSON) }))
	t.Cleanup(server.Close)
	if _, err := run(t, sendCommand(), "", server.URL); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("error %v, want one about the certificate", err)
	}
	for _, count := range []string{"1", "3"} {
		if output, err := run(t, sendCommand(), "", server.URL, "--insecure", "--count", count); err != nil {
			t.Errorf("%v: %s", err, output)
		}
	}
}

func TestHelpShowsTheNameOfTheBinary(t *testing.T) {
	t.Parallel()
	for name, args := range map[string][]string{"help": {"send", "--help"}, "usage": {"send"}} {
		root := &cobra.Command{Use: "caddy"}
		parent := &cobra.Command{Use: "tim-callback"}
		parent.AddCommand(sendCommand())
		showBinaryName(parent)
		root.AddCommand(parent)
		if name == "usage" {
			parent.Commands()[0].SilenceUsage = false
		}
		output, _ := run(t, root, "", append([]string{"tim-callback"}, args...)...)
		if want := filepath.Base(os.Args[0]) + " tim-callback send URL"; !strings.Contains(output, want) {
			t.Errorf("%s: %s\nwant %q in it", name, output, want)
		}
	}
}

func TestExamplesAreOfTheirCommands(t *testing.T) {
	t.Parallel()
	parent := &cobra.Command{Use: "tim-callback"}
	parent.AddCommand(subcommands()...)
	addExamples(parent, "")
	shown := 0
	for _, c := range append(parent.Commands(), deliveriesIn(parent).Commands()...) {
		if c.HasSubCommands() {
			continue
		}
		path := strings.TrimPrefix(c.CommandPath(), "tim-callback ")
		if len(examples[path]) == 0 {
			t.Errorf("%s has no example", path)
		}
		for _, arguments := range examples[path] {
			if want := filepath.Base(os.Args[0]) + " tim-callback " + path; !strings.Contains(c.Example, want) {
				t.Errorf("%s: example %q, want %q in it", path, c.Example, want)
			}
			arguments, _, _ = strings.Cut(strings.ReplaceAll(arguments, "'", ""), ">")
			if err := c.ParseFlags(strings.Fields(arguments)); err != nil {
				t.Errorf("%s %s: %v", path, arguments, err)
			}
			if err := c.ValidateArgs(c.Flags().Args()); err != nil {
				t.Errorf("%s %s: %v", path, arguments, err)
			}
			shown++
		}
	}
	for _, e := range examples {
		shown -= len(e)
	}
	if shown != 0 {
		t.Errorf("%d examples are of no command", -shown)
	}
}

func deliveriesIn(parent *cobra.Command) *cobra.Command {
	c, _, _ := parent.Find([]string{"deliveries"})
	return c
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
	if len(got.Faults) != 1 || got.Faults[0].Detail == "" {
		t.Fatalf("faults %+v, want one", got.Faults)
	}
	want := checkResult{
		File: "-", Command: callback.RecallCommand, Class: callback.After, Known: true, Faults: []checkFault{{
			Reason: callback.ReasonPayload, Path: "/MsgSeqList/0/MsgSeq", Detail: got.Faults[0].Detail, Line: 8, Column: 23,
		}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("result %+v\nwant   %+v", got, want)
	}
}

// endpoint is a callback endpoint that checks payloads like the guard and gives the
// answer.
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
	url, last := endpoint(t, 200, guardtest.OKJSON)
	output, err := run(t, sendCommand(), "", url+"/callback?own=1", "--app", "42", "--token", guardtest.Token)
	if err != nil || !strings.Contains(output, guardtest.OKJSON) {
		t.Errorf("output %q, error %v", output, err)
	}
	q := last()
	if q.SdkAppID != "42" || q.CallbackCommand != callback.RecallCommand || q.Sign != callback.Sign(guardtest.Token, q.RequestTime) {
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
		"status":     {403, guardtest.OKJSON},
		"not JSON":   {200, "OK"},
		"no content": {204, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url, _ := endpoint(t, tt.status, tt.answer)
			if output, err := run(t, sendCommand(), "", url, "--token", guardtest.Token); err == nil {
				t.Errorf("no error; output %q", output)
			}
		})
	}
}

func TestSendSaysWhatIsProbablyWrong(t *testing.T) {
	t.Parallel()
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/callback":
		case "/down":
			w.WriteHeader(http.StatusBadGateway)
		case "/php":
			w.Header().Set("Via", "1.1 Caddy")
			w.WriteHeader(http.StatusNotFound)
		case "/old":
			_, _ = w.Write([]byte(`{"code":0}`))
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(plain.Close)
	secure := httptest.NewTLSServer(plain.Config.Handler)
	t.Cleanup(secure.Close)
	for target, want := range map[string]string{
		plain.URL + "/callback": "is there a backend after the guard?",
		plain.URL + "/other":    "nothing is there: the site guards another path, or the backend behind it has no such path",
		plain.URL + "/php":      "the backend behind the guard has no such path; if a proxy stands before the site, the site may guard another one",
		plain.URL + "/down":     "the backend does not answer",
		plain.URL + "/old":      "not in Tencent's form",
		strings.Replace(plain.URL, "http:", "https:", 1) + "/callback":  "write http:// in place of https://",
		strings.Replace(secure.URL, "https:", "http:", 1) + "/callback": "write https:// in place of http://",
	} {
		if _, err := run(t, sendCommand(), "", target); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", target, err, want)
		}
	}
}

// A URL that redirects is a mistake: what Tencent does with it is not known.
func TestSendDoesNotFollowRedirects(t *testing.T) {
	t.Parallel()
	url, _ := endpoint(t, 200, guardtest.OKJSON)
	moved := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", url+"/callback?"+r.URL.RawQuery)
		w.WriteHeader(http.StatusPermanentRedirect)
	}))
	t.Cleanup(moved.Close)
	output, err := run(t, sendCommand(), "", moved.URL, "--token", guardtest.Token)
	want := "it redirects to " + url + "/callback: give Tencent's console that URL"
	if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(output, "308 Permanent Redirect in ") {
		t.Errorf("output %q, error %v, want %q", output, err, want)
	}
	if strings.Contains(output, "Sign=") {
		t.Errorf("the output holds a secret: %s", output)
	}
	output, err = run(t, sendCommand(), "", moved.URL, "--token", guardtest.Token, "--count", "2")
	if err == nil || !strings.Contains(output, "2 × 308") {
		t.Errorf("output %q, error %v of two", output, err)
	}
	_, err = run(t, probeCommand(), "", moved.URL, "--token", guardtest.Token)
	if output, _ = run(t, probeCommand(), "", moved.URL, "--token", guardtest.Token); err == nil || !strings.Contains(output, want) {
		t.Errorf("probe: output %q, error %v, want %q", output, err, want)
	}
}

func TestSendSaysThatTheGuardDoesNotKnowTheApp(t *testing.T) {
	t.Parallel()
	url, _ := endpoint(t, 403, `{"ActionStatus":"FAIL","ErrorInfo":"app: unknown SdkAppid (SdkAppid)","ErrorCode":1}`)
	if _, err := run(t, sendCommand(), "", url, "--app", "42"); err == nil || !strings.Contains(err.Error(), "the guard does not know the app 42: name yours with --app") {
		t.Errorf("error %v", err)
	}
}

func TestSendPrintsJSON(t *testing.T) {
	t.Parallel()
	url, _ := endpoint(t, 200, guardtest.OKJSON)
	output, err := run(t, sendCommand(), "", url, "--token", guardtest.Token, "--json")
	var got struct {
		Status int             `json:"status"`
		Answer callback.Answer `json:"answer"`
	}
	if err != nil || json.Unmarshal([]byte(output), &got) != nil || got.Status != 200 || got.Answer.ActionStatus != "OK" {
		t.Errorf("output %q, error %v", output, err)
	}
}

// The Sign is as valuable as the token for a minute.
func TestSendDoesNotPrintTheTokenOrSign(t *testing.T) {
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
			output, err := run(t, sendCommand(), "", append(args, "--token", guardtest.Token)...)
			if err == nil && name != "help" {
				t.Error("no error")
			}
			text := output
			if err != nil {
				text += err.Error()
			}
			if strings.Contains(text, guardtest.Token) || strings.Contains(text, "Sign=") || strings.Contains(text, "RequestTime=") {
				t.Errorf("the output holds a secret: %s", text)
			}
		})
	}
}

func TestSendReplacesPlaceholdersInTheToken(t *testing.T) {
	t.Setenv("TIMGUARD_TEST_TOKEN", guardtest.Token)
	t.Setenv("TIM_CALLBACK_TOKEN", guardtest.NewToken)
	url, last := endpoint(t, 200, guardtest.OKJSON)
	if _, err := run(t, sendCommand(), "", url, "--token", "{env.TIMGUARD_TEST_TOKEN}"); err != nil {
		t.Fatal(err)
	}
	if q := last(); q.Sign != callback.Sign(guardtest.Token, q.RequestTime) {
		t.Error("the Sign is not made with the token that the placeholder names")
	}
	if output, err := run(t, sendCommand(), "", "--help"); err != nil || strings.Contains(output, guardtest.NewToken) {
		t.Errorf("the help shows the token of the environment, or fails with %v", err)
	}
	if _, err := run(t, sendCommand(), "", url); err != nil {
		t.Fatal(err)
	}
	if q := last(); q.Sign != callback.Sign(guardtest.NewToken, q.RequestTime) {
		t.Error("the Sign is not made with the token of the environment")
	}
	if _, err := run(t, sendCommand(), "", url, "--token", "{env.TIMGUARD_TEST_UNSET}"); err == nil {
		t.Error("no error of a token that is not there")
	}
}

func TestKeygenPrintsADifferentKeyEachTime(t *testing.T) {
	t.Parallel()
	known := make(map[string]bool)
	for range 10 {
		output, err := run(t, keygenCommand(), "")
		if err != nil {
			t.Fatal(err)
		}
		key, err := base64.StdEncoding.DecodeString(strings.TrimSuffix(output, "\n"))
		if err != nil || len(key) != delivery.KeySize || known[output] || strings.Count(output, "\n") != 1 {
			t.Errorf("it prints %q, %v", output, err)
		}
		known[output] = true
	}
	if _, err := run(t, keygenCommand(), "", "argument"); err == nil {
		t.Error("no error of an argument")
	}
}
