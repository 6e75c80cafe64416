// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package command

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/timguard/timguard/caddymodule/callback"
	"github.com/timguard/timguard/caddymodule/internal/guardtest"
)

// loaded is an endpoint that answers by a function of the number of the request, and
// records the number of requests, and the maximum of concurrent ones.
type loaded struct {
	url             string
	calls, at, most atomic.Int64
}

func newLoaded(t *testing.T, answer func(n int64, w http.ResponseWriter)) *loaded {
	t.Helper()
	l := new(loaded)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		at := l.at.Add(1)
		defer l.at.Add(-1)
		for at > l.most.Load() {
			l.most.Store(max(at, l.most.Load()))
		}
		answer(l.calls.Add(1), w)
	}))
	t.Cleanup(server.Close)
	l.url = server.URL
	return l
}

func ok(_ int64, w http.ResponseWriter) {
	time.Sleep(2 * time.Millisecond)
	_, _ = io.WriteString(w, guardtest.OKJSON)
}

func TestSendManySendsTheGivenNumber(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ count, concurrency int }{{2, 1}, {7, 50}, {300, 8}} {
		t.Run(fmt.Sprintf("%d, %d at a time", tt.count, tt.concurrency), func(t *testing.T) {
			t.Parallel()
			l := newLoaded(t, ok)
			output, err := run(t, sendCommand(), "", l.url, "--token", guardtest.Token, "--json",
				"--count", fmt.Sprint(tt.count), "--concurrency", fmt.Sprint(tt.concurrency))
			if err != nil {
				t.Fatal(err, output)
			}
			var got loadResult
			if err := json.Unmarshal([]byte(output), &got); err != nil {
				t.Fatalf("%v: %s", err, output)
			}
			if got.Sent != tt.count || got.OK != tt.count || len(got.Statuses) != 1 || got.Statuses["200"] != tt.count || l.calls.Load() != int64(tt.count) {
				t.Errorf("result %+v of %d calls, want %d, all 200", got, l.calls.Load(), tt.count)
			}
			if m := got.Millis; m.P50 < 1 || m.P50 > m.P90 || m.P90 > m.P99 || m.P99 > m.Max || got.Seconds <= 0 || got.PerSecond <= 0 {
				t.Errorf("result %+v, want times in order", got)
			}
			if most := l.most.Load(); most > int64(tt.concurrency) {
				t.Errorf("%d calls at a time, want at most %d", most, tt.concurrency)
			}
		})
	}
}

func TestSendManyKeepsToTheRate(t *testing.T) {
	t.Parallel()
	l := newLoaded(t, ok)
	start := time.Now()
	if output, err := run(t, sendCommand(), "", l.url, "--count", "21", "--concurrency", "10", "--rate", "50"); err != nil {
		t.Fatal(err, output)
	}
	if took := time.Since(start); took < 390*time.Millisecond {
		t.Errorf("21 calls at 50 a second took %s, want at least 400ms", took)
	}
}

func TestSendManyPrintsASummary(t *testing.T) {
	t.Parallel()
	output, err := run(t, sendCommand(), "", newLoaded(t, ok).url, "--count", "20", "--concurrency", "4")
	if err != nil {
		t.Fatal(err)
	}
	want := regexp.MustCompile(`^20 sent, 20 OK, in \d+\.\d s: \d+ per second\n +20 × 200\nlatency: p50 \d+\.\d ms, p90 \d+\.\d ms, p99 \d+\.\d ms, max \d+\.\d ms\n$`)
	if !want.MatchString(output) {
		t.Errorf("output %q, want %s", output, want)
	}
}

// Errors must not contain the token or the Sign.
func TestSendManyFailsUnlessEveryAnswerIsOK(t *testing.T) {
	t.Parallel()
	hangUp := func(_ int64, w http.ResponseWriter) {
		if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
			_ = conn.Close()
		}
	}
	nobody := httptest.NewServer(http.NotFoundHandler())
	nobody.Close()
	for name, tt := range map[string]struct {
		answer func(n int64, w http.ResponseWriter)
		args   []string
		want   []string // in the output or the error
	}{
		"one is not OK": {func(n int64, w http.ResponseWriter) {
			if n == 3 {
				w.WriteHeader(http.StatusForbidden)
			}
			ok(n, w)
		}, nil, []string{"1 of 10 callbacks was not answered OK", "9 × 200", "1 × 403"}},
		"FAIL": {func(_ int64, w http.ResponseWriter) {
			_, _ = w.Write(callback.Fail("x").JSON())
		}, nil, []string{"10 of 10 callbacks were not answered OK", "10 × 200", "0 OK"}},
		"hangs up":       {hangUp, nil, []string{"10 of 10 callbacks were not answered OK", "× EOF"}},
		"too late":       {func(n int64, w http.ResponseWriter) { time.Sleep(50 * time.Millisecond); ok(n, w) }, []string{"--timeout", "5ms"}, []string{"10 of 10 callbacks were not answered OK"}},
		"no worker":      {ok, []string{"--concurrency", "0"}, []string{"--concurrency"}},
		"negative rate":  {ok, []string{"--rate", "-1"}, []string{"--rate"}},
		"JSON":           {hangUp, []string{"--json"}, []string{`"sent":10`, `"ok":0`, `"EOF":`}},
		"nobody listens": {nil, nil, []string{"10 of 10 callbacks were not answered OK", "refused"}},
		"not a URL":      {nil, nil, []string{"want a URL such as"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := nobody.URL
			if tt.answer != nil {
				url = newLoaded(t, tt.answer).url
			} else if name != "nobody listens" {
				url = "example.com"
			}
			output, err := run(t, sendCommand(), "", append([]string{url, "--token", guardtest.Token, "--count", "10", "--concurrency", "2"}, tt.args...)...)
			if err == nil {
				t.Fatalf("no error; output %s", output)
			}
			text := output + err.Error()
			for _, want := range tt.want {
				if !strings.Contains(text, want) {
					t.Errorf("output %q, want %q in it", text, want)
				}
			}
			for _, secret := range []string{guardtest.Token, "Sign=", "RequestTime"} {
				if strings.Contains(text, secret) {
					t.Errorf("output %q, which holds %s", text, secret)
				}
			}
		})
	}
}

func TestSendCanSendEveryCommand(t *testing.T) {
	t.Parallel()
	s := guardtest.NewSite(t, strings.ReplaceAll(guardtest.Guard("on * forward"), guardtest.App, "1400000009")+"\nrespond `"+guardtest.OKJSON+"`")
	s.App = false
	s.Start(t)
	for _, c := range callback.Commands() {
		if output, err := run(t, sendCommand(), "", "http://"+s.Listen, "--app", "1400000009", "--token", guardtest.Token, "--command", c.Name); err != nil {
			t.Errorf("%s: %v: %s", c.Name, err, output)
		}
	}
}

func TestCommandsListsTheWholeTable(t *testing.T) {
	t.Parallel()
	output, err := run(t, commandsCommand(), "", []string{}...) // nil would use the arguments of the process
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(output), "\n")
	if len(lines) != 1+len(callback.Commands()) {
		t.Errorf("%d lines, want a head and %d", len(lines), len(callback.Commands()))
	}
	for i, c := range callback.Commands() {
		columns := strings.Fields(lines[1+i])
		if !slices.Equal(columns[:3], []string{c.Name, string(c.Class), c.Family}) {
			t.Errorf("line %q, want %s, %s, %s", lines[1+i], c.Name, c.Class, c.Family)
		}
	}
}

func TestCommandsPrintsJSON(t *testing.T) {
	t.Parallel()
	output, err := run(t, commandsCommand(), "", "--json")
	if err != nil {
		t.Fatal(err)
	}
	type field struct {
		Name     string  `json:"name"`
		Type     string  `json:"type"`
		Required bool    `json:"required"`
		Fields   []field `json:"fields"`
	}
	var got []struct {
		Name   string               `json:"name"`
		Class  string               `json:"class"`
		Family string               `json:"family"`
		Fields []field              `json:"fields"`
		Codes  []callback.CodeRange `json:"codes"`

		Silence  callback.Silence `json:"silence"`
		Answered bool             `json:"answered"`
		Source   []callback.Page  `json:"source"`
	}
	if err := json.Unmarshal([]byte(output), &got); err != nil {
		t.Fatal(err)
	}
	all := callback.Commands()
	if len(got) != len(all) {
		t.Fatalf("%d commands, want %d", len(got), len(all))
	}
	for i, c := range all {
		g := got[i]
		if g.Name != c.Name || g.Class != string(c.Class) || g.Family != c.Family || len(g.Fields) != len(c.Fields) || !slices.Equal(g.Codes, c.Codes) ||
			g.Silence != c.Silence || g.Answered != c.Answered || !slices.Equal(g.Source, c.Source) {
			t.Errorf("got %+v, want %+v", g, c)
			continue
		}
		for j, f := range c.Fields {
			if h := g.Fields[j]; h.Name != f.Name || h.Type != f.Type.String() || h.Required != f.Required || len(h.Fields) != len(f.Fields) {
				t.Errorf("%s: got %+v, want %+v", c.Name, h, f)
			}
		}
	}
}
