// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptrace"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/timguard/timguard/caddymodule/callback"
	"github.com/timguard/timguard/caddymodule/internal/guardtest"
)

const (
	testDeadline = 300 * time.Millisecond
	// slack is what a busy machine may add to a deadline.
	slack = 600 * time.Millisecond
)

// wireBackend is a backend that receives a request and answers on the raw connection,
// which is closed afterwards.
func wireBackend(tb testing.TB, answer func(conn *net.TCPConn)) (address string) {
	tb.Helper()
	listener, err := new(net.ListenConfig).Listen(tb.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				req, err := http.ReadRequest(bufio.NewReader(conn))
				if err != nil {
					return
				}
				if _, err := io.Copy(io.Discard, req.Body); err == nil {
					answer(conn.(*net.TCPConn))
				}
			}()
		}
	}()
	return listener.Addr().String()
}

// untilClosed waits until the peer closes the connection.
func untilClosed(conn *net.TCPConn) { _, _ = io.Copy(io.Discard, conn) }

// writes is a backend that writes the text and closes the connection.
func writes(text string) func(*net.TCPConn) {
	return func(conn *net.TCPConn) { _, _ = io.WriteString(conn, text) }
}

// repeats is a backend that writes the beginning, and then the piece forever.
func repeats(begin, piece string, pause time.Duration) func(*net.TCPConn) {
	return func(conn *net.TCPConn) {
		_, err := io.WriteString(conn, begin)
		for err == nil {
			time.Sleep(pause)
			_, err = io.WriteString(conn, piece)
		}
	}
}

func wholeAnswer(status, header, body string) string {
	return fmt.Sprintf("HTTP/1.1 %s\r\n%sContent-Length: %d\r\nConnection: close\r\n\r\n%s", status, header, len(body), body)
}

const chunkedHead = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"

// badBackends are backends that do not give a valid answer.
var badBackends = map[string]func(*net.TCPConn){
	"hangs":                      untilClosed,
	"hangs after the head":       func(c *net.TCPConn) { writes("HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n")(c); untilClosed(c) },
	"hangs in the head":          func(c *net.TCPConn) { writes("HTTP/1.1 200 OK\r\nContent-")(c); untilClosed(c) },
	"hangs after early hints":    func(c *net.TCPConn) { writes("HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n")(c); untilClosed(c) },
	"hangs before the last byte": func(c *net.TCPConn) { writes(chunkedHead + "31\r\n" + guardtest.OKJSON[:48])(c); untilClosed(c) },
	"drips white space for ever": repeats(chunkedHead+"1\r\n{\r\n", "1\r\n \r\n", 10*time.Millisecond),
	"drips its head for ever":    repeats("HTTP/1.1 200 OK\r\n", "X-A: 1\r\n", 10*time.Millisecond),
	"drips after a whole object": repeats(chunkedHead+"2\r\n{}\r\n", "1\r\n \r\n", 10*time.Millisecond),
	"writes without end":         repeats(chunkedHead+"1\r\n{\r\n", "4000\r\n"+strings.Repeat(" ", 0x4000)+"\r\n", 0),
	"resets in the answer": func(c *net.TCPConn) {
		writes("HTTP/1.1 200 OK\r\nContent-Length: 49\r\n\r\n" + guardtest.OKJSON[:20])(c)
		_ = c.SetLinger(0)
	},
	"resets at once":          func(c *net.TCPConn) { _ = c.SetLinger(0) },
	"closes at once":          func(*net.TCPConn) {},
	"closes in the answer":    writes("HTTP/1.1 200 OK\r\nContent-Length: 49\r\n\r\n" + guardtest.OKJSON[:20]),
	"closes in a chunk":       writes(chunkedHead + "31\r\n" + guardtest.OKJSON[:20]),
	"breaks off after JSON":   writes("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + guardtest.OKJSON),
	"500":                     writes(wholeAnswer("500 Internal Server Error", "", guardtest.OKJSON)),
	"502":                     writes(wholeAnswer("502 Bad Gateway", "", "")),
	"403":                     writes(wholeAnswer("403 Forbidden", "", guardtest.OKJSON)),
	"redirect":                writes(wholeAnswer("302 Found", "Location: /login\r\n", guardtest.OKJSON)),
	"created":                 writes(wholeAnswer("201 Created", "", guardtest.OKJSON)),
	"no content":              writes("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"),
	"HTML":                    writes(wholeAnswer("200 OK", "Content-Type: text/html\r\n", "<!DOCTYPE html><title>Login</title>")),
	"HTML that says JSON":     writes(wholeAnswer("200 OK", "Content-Type: application/json\r\n", "<br />Warning: x")),
	"empty body":              writes(wholeAnswer("200 OK", "", "")),
	"JSON array":              writes(wholeAnswer("200 OK", "", "["+guardtest.OKJSON+"]")),
	"JSON null":               writes(wholeAnswer("200 OK", "", "null")),
	"JSON and something more": writes(wholeAnswer("200 OK", "", guardtest.OKJSON+"Warning: x")),
	"two objects":             writes(wholeAnswer("200 OK", "", guardtest.OKJSON+guardtest.OKJSON)),
	"a huge answer":           writes(wholeAnswer("200 OK", "", `{"x":"`+strings.Repeat("x", 2*callback.MaxAnswer)+`"}`)),
	"no HTTP":                 writes("hello\r\n\r\n"),
	"a bad chunk":             writes(chunkedHead + "zz\r\n"),
}

// Whatever the backend does, the verdict of the fallback is answered in time.
func TestEndToEndVerdictWhateverTheBackendDoes(t *testing.T) {
	t.Parallel()
	for name, answer := range badBackends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			proxy := "\nreverse_proxy " + wireBackend(t, answer)
			wantFallbacks(t, serve(t, fallbackRules(testDeadline)+proxy, nil))
		})
	}
	t.Run("nobody listens", func(t *testing.T) {
		t.Parallel()
		listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		_ = listener.Close()
		wantFallbacks(t, serve(t, fallbackRules(testDeadline)+"\nreverse_proxy "+listener.Addr().String(), nil))
	})
}

// The same for a handler in this process, which may do more than a backend can.
func TestEndToEndVerdictWhateverTheNextHandlerDoes(t *testing.T) {
	t.Parallel()
	for name, next := range map[string]func(http.ResponseWriter, *http.Request) error{
		"panics":              func(http.ResponseWriter, *http.Request) error { panic("x") },
		"panics with nothing": func(http.ResponseWriter, *http.Request) error { panic(errors.New("")) },
		"aborts":              func(http.ResponseWriter, *http.Request) error { panic(http.ErrAbortHandler) },
		"panics after its answer": func(w http.ResponseWriter, _ *http.Request) error {
			_, _ = io.WriteString(w, guardtest.OKJSON)
			panic("x")
		},
		"fails": func(http.ResponseWriter, *http.Request) error { return errors.New("x") },
		"fails after its answer": func(w http.ResponseWriter, _ *http.Request) error {
			_, _ = io.WriteString(w, guardtest.OKJSON)
			return errors.New("x")
		},
		"does nothing": func(http.ResponseWriter, *http.Request) error { return nil },
		"ignores that time is up": func(w http.ResponseWriter, _ *http.Request) error {
			time.Sleep(4 * testDeadline)
			return write(w, guardtest.OKJSON)
		},
		"answers when time is up": func(w http.ResponseWriter, r *http.Request) error {
			<-r.Context().Done()
			return write(w, guardtest.OKJSON)
		},
		"panics when time is up": func(_ http.ResponseWriter, r *http.Request) error { <-r.Context().Done(); panic("x") },
		"answers and does not stop": func(w http.ResponseWriter, r *http.Request) error {
			_ = write(w, guardtest.OKJSON)
			<-r.Context().Done()
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			wantFallbacks(t, serve(t, fallbackRules(testDeadline), next))
		})
	}
}

func write(w http.ResponseWriter, text string) error {
	_, err := io.WriteString(w, text)
	return err
}

// fallbackRules is a guard with every verdict of fallbacks.
func fallbackRules(deadline time.Duration) string {
	return guardtest.Guard(fmt.Sprintf(`on C2C.CallbackBefore* forward {
		deadline %[1]s
		fallback allow
	}
	on Group.CallbackBeforeSendMsg forward {
		deadline %[1]s
		fallback forbid 10123 "not \"now\""
	}
	on Group.CallbackBeforeCreateGroup forward {
		deadline %[1]s
		fallback forbid
	}
	on Sns.CallbackPrev* forward {
		deadline %[1]s
		fallback forbid 38001 no
	}`, deadline))
}

// wantFallbacks fails the test unless the server answers the verdict of the fallback
// within the deadline.
func wantFallbacks(t *testing.T, s *guardedServer) {
	t.Helper()
	friends := request{query: sampleOf(friendAdd).query, body: friendRequest("a\"b", "群")}
	var calls sync.WaitGroup
	for name, tt := range map[string]struct {
		request request
		want    string
	}{
		"allow":           {sampleOf("C2C.CallbackBeforeSendMsg"), guardtest.OKJSON},
		"forbid":          {sampleOf(beforeSend), `{"ActionStatus":"OK","ErrorInfo":"not \"now\"","ErrorCode":10123}`},
		"forbid, no code": {sampleOf("Group.CallbackBeforeCreateGroup"), plainForbid},
		"forbid friends": {friends, `{"ActionStatus":"OK","ErrorInfo":"","ErrorCode":0,"ResultItem":[` +
			`{"To_Account":"a\"b","ResultCode":38001,"ResultInfo":"no"},{"To_Account":"群","ResultCode":38001,"ResultInfo":"no"}]}`},
	} {
		calls.Go(func() {
			got, took, err := s.call(t.Context(), tt.request)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				return
			}
			got.wantAnswer(t, tt.want)
			if took > testDeadline+slack {
				t.Errorf("%s: took %s, want at most the deadline of %s", name, took, testDeadline)
			}
		})
	}
	calls.Wait()
}

// The answer of a healthy backend is passed on byte for byte.
func TestEndToEndVerdictOfTheBackendIsPassedOn(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{
		"OK":                 guardtest.OKJSON,
		"its own code":       `{"ActionStatus":"OK","ErrorInfo":"\u8bf7 <b>wait</b>","ErrorCode":120001}`,
		"discard":            `{"ActionStatus":"OK","ErrorInfo":"","ErrorCode":2}`,
		"another message":    `{"ActionStatus":"OK","ErrorInfo":"","ErrorCode":0,"MsgBody":[{"MsgType":"TIMTextElem","MsgContent":{"Text":"***"}}]}`,
		"odd but JSON":       "\r\n {\"ErrorCode\" : 0.0e0,\t\"ErrorCode\":1 ,\"X\":[null]} \n",
		"FAIL":               `{"ActionStatus":"FAIL","ErrorInfo":"x","ErrorCode":1}`,
		"nothing to say":     `{}`,
		"as long as allowed": `{"x":"` + strings.Repeat("x", callback.MaxAnswer-8) + `"}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for way, write := range map[string]func(w http.ResponseWriter){
				"with length": func(w http.ResponseWriter) {
					w.Header().Set("Content-Length", fmt.Sprint(len(body)))
					_, _ = io.WriteString(w, body)
				},
				"chunked": func(w http.ResponseWriter) {
					for piece := range slices.Chunk([]byte(body), max(1, len(body)/3)) {
						_, _ = w.Write(piece)
						_ = http.NewResponseController(w).Flush()
					}
				},
			} {
				header := http.Header{
					"Content-Type": {"application/json; charset=utf-8"}, "X-Own": {"1", "2"}, "Set-Cookie": {"a=b", "c=d"}, "Cache-Control": {"no-store"},
				}
				backend := func(w http.ResponseWriter, _ *http.Request) error {
					maps.Copy(w.Header(), header)
					write(w)
					return nil
				}
				for server, s := range map[string]*guardedServer{
					"handler": serve(t, fallbackRules(10*time.Second), backend),
					"proxy":   serve(t, fallbackRules(10*time.Second)+"\nreverse_proxy "+serve(t, "", backend).address, nil),
				} {
					got, _ := s.post(t, sampleOf(beforeSend))
					if got.status != http.StatusOK || string(got.body) != body {
						t.Errorf("%s, %s: answer %d of %d bytes %.200q, want the backend's", server, way, got.status, len(got.body), got.body)
					}
					for name, values := range header {
						if !slices.Equal(got.header[name], values) {
							t.Errorf("%s, %s: %s %q, want %q", server, way, name, got.header[name], values)
						}
					}
				}
			}
		})
	}
}

func TestEndToEndVerdictKeepsTheHeadersOfOtherDirectives(t *testing.T) {
	t.Parallel()
	s := serve(t, "header X-Site 1\n"+fallbackRules(testDeadline), func(http.ResponseWriter, *http.Request) error { return errors.New("x") })
	got, _ := s.post(t, sampleOf(beforeSend))
	if got.header.Get("X-Site") != "1" {
		t.Errorf("headers %v, want X-Site among them", got.header)
	}
}

// To Tencent, a 4xx response to a before-callback means "allowed", so a correctly signed
// one gets the verdict instead.
func TestEndToEndVerdictOfARefusedPayload(t *testing.T) {
	t.Parallel()
	rules := []string{
		"max_body 2KiB",
		"on C2C.CallbackBeforeSendMsg forward {\n fallback allow\n}",
		"on Group.CallbackBeforeSendMsg forward {\n fallback forbid 10123 no\n}",
		"on Group.CallbackBeforeCreateGroup forbid 10124 never",
		"on Group.CallbackBeforeApplyJoinGroup forward",
		"on OfficialAccount.CallbackBeforeSendMsg ack",
	}
	verdicts := map[string]string{
		"C2C.CallbackBeforeSendMsg":             guardtest.OKJSON,
		beforeSend:                              `{"ActionStatus":"OK","ErrorInfo":"no","ErrorCode":10123}`,
		"Group.CallbackBeforeCreateGroup":       `{"ActionStatus":"OK","ErrorInfo":"never","ErrorCode":10124}`,
		"Group.CallbackBeforeApplyJoinGroup":    "",
		"OfficialAccount.CallbackBeforeSendMsg": "",
	}
	var reached atomic.Int64
	next := func(w http.ResponseWriter, _ *http.Request) error { reached.Add(1); return write(w, guardtest.OKJSON) }
	verified := serve(t, guardtest.Guard(rules...), next)
	open := serve(t, strings.Replace(guardtest.Guard(rules...), guardtest.Token, "unsigned", 1), next)
	t.Cleanup(func() {
		if n := reached.Load(); n > 0 {
			t.Errorf("%d refused callbacks reached the next handler", n)
		}
	})
	for command, verdict := range verdicts {
		sample := callback.Sample(command)
		for name, tt := range map[string]struct {
			request request
			status  int
			reason  callback.Reason
		}{
			"payload":            {request{body: bytes.Replace(sample, []byte(`":"`), []byte(`":1,"X":"`), 1)}, 400, callback.ReasonPayload},
			"json":               {request{body: sample[:len(sample)-1]}, 400, callback.ReasonJSON},
			"mismatch":           {request{body: bytes.Replace(sample, []byte(command), []byte(callback.RecallCommand), 1)}, 400, callback.ReasonMismatch},
			"encoding":           {request{body: gzipped(t, sample), header: http.Header{"Content-Encoding": {"gzip"}}}, 415, callback.ReasonEncoding},
			"too large":          {request{body: bytes.Repeat([]byte(" "), 3000)}, 413, callback.ReasonTooLarge},
			"too large, chunked": {request{body: bytes.Repeat([]byte(" "), 3000), chunked: true}, 413, callback.ReasonTooLarge},
		} {
			t.Run(command+"/"+name, func(t *testing.T) {
				t.Parallel()
				tt.request.query = sampleOf(command).query
				got, _ := verified.post(t, tt.request)
				if verdict == "" {
					got.wantRefused(t, tt.status, tt.reason)
				} else {
					got.wantAnswer(t, verdict)
				}
				got, _ = open.post(t, tt.request)
				got.wantRefused(t, tt.status, tt.reason)
				tt.request.query = guardtest.Query(guardtest.App, command, guardtest.Signed("guess", time.Now()))
				got, _ = verified.post(t, tt.request)
				got.wantRefused(t, http.StatusUnauthorized, callback.ReasonSign)
			})
		}
	}
}

func TestEndToEndVerdictOnAnInvalidFriendRequestListsItsTargets(t *testing.T) {
	t.Parallel()
	s := serve(t, guardtest.Guard("on Sns.CallbackPrev* forward {\n fallback forbid 38002\n}"), nil)
	body := bytes.Replace(friendRequest("a", "b"), []byte(`"From_Account":"f"`), []byte(`"From_Account":7`), 1)
	got, _ := s.post(t, request{query: sampleOf(friendAdd).query, body: body})
	got.wantAnswer(t, `{"ActionStatus":"OK","ErrorInfo":"","ErrorCode":0,"ResultItem":[`+
		`{"To_Account":"a","ResultCode":38002,"ResultInfo":""},{"To_Account":"b","ResultCode":38002,"ResultInfo":""}]}`)
}

// "on before forbid" forbids every before-callback with a valid code.
func TestEndToEndVerdictForbidsEveryBeforeCommand(t *testing.T) {
	t.Parallel()
	s := serve(t, guardtest.Guard("on before forbid", "on after ack"), nil)
	for _, c := range callback.Commands() {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			got, _ := s.post(t, sampleOf(c.Name))
			if c.Class == callback.After {
				got.wantAnswer(t, guardtest.OKJSON)
				return
			}
			var answer callback.Answer
			if err := json.Unmarshal(got.body, &answer); err != nil || got.status != http.StatusOK || answer.ActionStatus != "OK" {
				t.Fatalf("answer %d %s", got.status, got.body)
			}
			code := answer.ErrorCode
			if c.Family == "sns" {
				if len(answer.ResultItem) != 1 || answer.ResultItem[0].ToAccount != "jonh" {
					t.Fatalf("answer %s, want the request's target in it", got.body)
				}
				code = answer.ResultItem[0].ResultCode
			}
			if !slices.ContainsFunc(c.Codes, func(r callback.CodeRange) bool { return r.From <= code && code <= r.To }) {
				t.Errorf("answer %s, want a code of %v", got.body, c.Codes)
			}
		})
	}
	t.Run("an unknown one", func(t *testing.T) {
		t.Parallel()
		got, _ := s.post(t, sampleOf("New.CallbackBeforeX"))
		got.wantAnswer(t, plainForbid)
	})
}

// The largest known callback is within the default limit.
func TestEndToEndForwardsALargeDestroyedGroup(t *testing.T) {
	t.Parallel()
	const command = "Group.CallbackAfterGroupDestroyed"
	var members bytes.Buffer
	for i := 0; members.Len() < 400_000; i++ {
		fmt.Fprintf(&members, `{"Member_Account":"user_%d_0123456789abcdef"},`, i)
	}
	body := fmt.Appendf(nil, `{"CallbackCommand":%q,"GroupId":"@TGS#2J4SZEAEL","Type":"Public","Owner_Account":"leckie","MemberList":[%s{"Member_Account":"last"}]}`, command, &members)
	var got atomic.Value
	s := serve(t, guardtest.Guard("on after forward"), func(w http.ResponseWriter, r *http.Request) error {
		data, err := io.ReadAll(r.Body)
		got.Store(data)
		if err != nil {
			return err
		}
		return write(w, guardtest.OKJSON)
	})
	for _, chunked := range []bool{false, true} {
		answer, _ := s.post(t, request{query: sampleOf(command).query, body: body, chunked: chunked})
		if answer.status != http.StatusOK || string(answer.body) != guardtest.OKJSON {
			t.Errorf("chunked %t: answer %d %s", chunked, answer.status, answer.body)
		}
		if data, _ := got.Swap([]byte(nil)).([]byte); !bytes.Equal(data, body) {
			t.Errorf("chunked %t: the next handler received %d bytes, want the %d that were sent", chunked, len(data), len(body))
		}
	}
}

func TestEndToEndVerdictOfTheFirstRuleThatNamesTheCommand(t *testing.T) {
	t.Parallel()
	s := serve(t, guardtest.Guard("on Group.CallbackBeforeSendMsg ack", "on Group.CallbackBefore* forbid 10100", "on before forward", "on * reject"),
		func(w http.ResponseWriter, _ *http.Request) error { return write(w, `{"ErrorCode":7}`) })
	for command, want := range map[string]string{
		beforeSend:                        guardtest.OKJSON,
		"Group.CallbackBeforeCreateGroup": `{"ActionStatus":"OK","ErrorInfo":"","ErrorCode":10100}`,
		"C2C.CallbackBeforeSendMsg":       `{"ErrorCode":7}`,
	} {
		if got, _ := s.post(t, sampleOf(command)); got.status != http.StatusOK || string(got.body) != want {
			t.Errorf("%s: answer %d %s, want %s", command, got.status, got.body, want)
		}
	}
	got, _ := s.post(t, sampleOf(callback.RecallCommand))
	got.wantRefused(t, http.StatusForbidden, callback.ReasonCommand)
}

func TestEndToEndReportModePassesOnTheVerdictOfTheBackend(t *testing.T) {
	t.Parallel()
	s := serve(t, guardtest.Guard("mode report", "on Group.CallbackBeforeSendMsg forward {\n deadline 1ms\n fallback forbid\n}", "on C2C.CallbackBefore* forbid", "on * ack"),
		func(w http.ResponseWriter, _ *http.Request) error {
			time.Sleep(20 * time.Millisecond)
			w.WriteHeader(http.StatusTeapot)
			return write(w, "backend")
		})
	broken := sampleOf(beforeSend)
	broken.body = []byte("{")
	for name, q := range map[string]request{
		"fallback": sampleOf(beforeSend), "forbid": sampleOf("C2C.CallbackBeforeSendMsg"), "ack": sampleOf(callback.RecallCommand), "broken": broken,
	} {
		if got, _ := s.post(t, q); got.status != http.StatusTeapot || string(got.body) != "backend" {
			t.Errorf("%s: answer %d %s, want the backend's", name, got.status, got.body)
		}
	}
}

// The call after one that timed out is answered immediately, on the same connection if
// possible.
func TestEndToEndVerdictLeavesTheConnectionUsable(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		hang   func(r *http.Request)
		reused bool
	}{
		"next handler stops when told":    {func(r *http.Request) { <-r.Context().Done() }, true},
		"next handler ignores being told": {func(*http.Request) { time.Sleep(6 * testDeadline) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, fallbackRules(testDeadline), func(w http.ResponseWriter, r *http.Request) error {
				if r.URL.Path == "/hang" {
					tt.hang(r)
				}
				return write(w, guardtest.OKJSON)
			})
			q := sampleOf(beforeSend)
			for range 3 {
				q.path = "/hang"
				got, took := s.post(t, q)
				got.wantAnswer(t, `{"ActionStatus":"OK","ErrorInfo":"not \"now\"","ErrorCode":10123}`)
				if took > testDeadline+slack {
					t.Errorf("the first took %s, want at most %s", took, testDeadline)
				}
				q.path = "/"
				start := time.Now()
				body, reused := s.postTraced(t, q)
				if took := time.Since(start); string(body) != guardtest.OKJSON || took > slack {
					t.Errorf("the next answer is %s after %s, want OK at once", body, took)
				}
				if reused != tt.reused {
					t.Errorf("connection reused: %t, want %t", reused, tt.reused)
				}
			}
		})
	}
}

// postTraced also reports whether the connection was reused.
func (s *guardedServer) postTraced(t *testing.T, q request) (body []byte, reused bool) {
	t.Helper()
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) { reused = info.Reused }})
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.address+q.path+"?"+q.query, bytes.NewReader(q.body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	return readResponse(t, resp).body, reused
}

// hangingCalls posts before-callbacks to a hanging backend, with concurrent workers that
// each have a connection, and returns the latencies. The requests are prepared in
// advance, so that little but the guard is measured.
func hangingCalls(tb testing.TB, address string, calls, concurrency int, want string) []time.Duration {
	tb.Helper()
	q := sampleOf(beforeSend)
	text := fmt.Appendf(nil, "POST /callback?%s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", q.query, len(q.body), q.body)
	took := make([]time.Duration, calls)
	var next atomic.Int64
	var workers sync.WaitGroup
	for range concurrency {
		workers.Go(func() {
			c := caller{address: address}
			defer c.close()
			for i := next.Add(1) - 1; i < int64(calls); i = next.Add(1) - 1 {
				start := time.Now()
				status, body, err := c.call(tb.Context(), text)
				took[i] = time.Since(start)
				if err != nil || status != http.StatusOK || string(body) != want {
					tb.Errorf("answer %d %s, %v; want %s", status, body, err, want)
				}
			}
		})
	}
	workers.Wait()
	slices.Sort(took)
	return took
}

// caller makes consecutive calls, on the same connection as long as it stays open.
type caller struct {
	address string
	conn    net.Conn
	r       *bufio.Reader
}

func (c *caller) call(ctx context.Context, text []byte) (status int, body []byte, err error) {
	if c.conn == nil {
		if c.conn, err = new(net.Dialer).DialContext(ctx, "tcp", c.address); err != nil {
			return 0, nil, err
		}
		c.r = bufio.NewReader(c.conn)
	}
	if _, err = c.conn.Write(text); err != nil {
		return 0, nil, err
	}
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return 0, nil, err
	}
	if body, err = io.ReadAll(resp.Body); err != nil {
		return 0, nil, err
	}
	if resp.Close {
		c.close()
	}
	return resp.StatusCode, body, nil
}

func (c *caller) close() {
	if c.conn != nil {
		_ = c.conn.Close()
		c.conn = nil
	}
}

// resources returns the number of goroutines and the bytes of heap in use, when both
// have stopped falling.
func resources() (goroutines int, heap int64) {
	goroutines, heap = 1<<30, 1<<62
	for falling := 0; falling < 5; falling++ {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		if n, b := runtime.NumGoroutine(), int64(m.HeapAlloc); n < goroutines || b < heap-heap/100 {
			goroutines, heap, falling = min(n, goroutines), min(b, heap), 0
		}
		time.Sleep(50 * time.Millisecond)
	}
	return goroutines, heap
}

func TestEndToEndVerdictOfAThousandCallsToAHangingBackend(t *testing.T) {
	s := serve(t, fallbackRules(testDeadline)+"\nreverse_proxy "+wireBackend(t, untilClosed), nil)
	const want = `{"ActionStatus":"OK","ErrorInfo":"not \"now\"","ErrorCode":10123}`
	hangingCalls(t, s.address, 50, 50, want) // warms up
	goroutines, heap := resources()
	took := hangingCalls(t, s.address, 1000, 50, want)
	if first, last := took[0], took[len(took)-1]; first < testDeadline-time.Millisecond || last > 2*time.Second {
		t.Errorf("the verdicts took %s to %s, want them at the deadline of %s, and all before 2s", first, last, testDeadline)
	}
	t.Logf("p50 %s, p99 %s, max %s", took[500], took[990], took[999])
	goroutinesNow, heapNow := resources()
	if goroutinesNow > goroutines+5 {
		t.Errorf("%d goroutines before, %d after", goroutines, goroutinesNow)
	}
	if heapNow > heap+4<<20 {
		t.Errorf("%d kB of heap before, %d kB after", heap>>10, heapNow>>10)
	}
}

// One query over the access log, or over the guard's own log, lists every message that
// passed unjudged, with its app, its accounts and its group.
func TestEndToEndAuditsWhatTheBackendDidNotJudge(t *testing.T) {
	const single, group, created = "C2C.CallbackBeforeSendMsg", "Group.CallbackBeforeSendMsg", "Group.CallbackBeforeCreateGroup"
	s := site{body: "log\n" + guardtest.Guard("on "+single+" forward {\n fallback allow\n}", "on "+group+" forward {\n fallback forbid\n}", "on "+created+" ack", "on before forbid", "on after forward") +
		"\nheader X-Verdict {http.tim_callback.verdict}\n@judged query CallbackCommand=" + callback.RecallCommand + "\nrespond @judged `" + guardtest.OKJSON + "` 200\nrespond 500"}
	s.log = queryFilter(t)
	file := s.start(t)
	p := protocols(t)[0]
	tests := map[string]struct {
		verdict, action string
		fallback        bool
		values          map[string]string
	}{
		single:                                {"allow", "forward", true, map[string]string{"from": "jared", "to": "jonh", "conversation": "jared,jonh"}},
		group:                                 {"forbid", "forward", true, map[string]string{"group_id": "1213456", "from": "jared"}},
		created:                               {"allow", "ack", false, map[string]string{"operator": "admin"}},
		"Group.CallbackBeforeInviteJoinGroup": {"forbid", "forbid", false, map[string]string{"group_id": "1213456"}},
		callback.RecallCommand:                {"", "forward", false, map[string]string{"group_id": "1213456"}},
	}
	for command, tt := range tests {
		p.send(t, request{query: commandQuery(command), body: callback.Sample(command)})
		ofCommand := func(line map[string]any) bool {
			return isAccess(line) && asObject(line["tim_callback"])["command"] == command
		}
		for _, line := range logLines(t, file, ofCommand) {
			fields := asObject(line["tim_callback"])
			fell := line["msg"] == "no valid answer from backend; using fallback" && line["command"] == command
			if fell {
				fields = line
			}
			if fields["command"] != command {
				continue
			}
			if got, _ := fields["verdict"].(string); got != tt.verdict || fields["action"] != tt.action || fields["sdk_app_id"] != guardtest.App || len(fmt.Sprint(fields["event_id"])) != 64 {
				t.Errorf("%s: %v, want the verdict %q", command, fields, tt.verdict)
			}
			for name, want := range tt.values {
				if fields[name] != want {
					t.Errorf("%s: %s is %v, want %s", command, name, fields[name], want)
				}
			}
			if fell != tt.fallback && !isAccess(line) {
				t.Errorf("%s: a fallback is logged: %t, want %t", command, fell, tt.fallback)
			}
		}
	}
}
