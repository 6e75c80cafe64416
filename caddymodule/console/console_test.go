// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package console

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go/http3"

	"github.com/timguard/timguard/caddymodule/callback"
	"github.com/timguard/timguard/caddymodule/internal/guardtest"
	"github.com/timguard/timguard/caddymodule/outbox"
)

const (
	operator = "operator"
	password = "hiccup"
	// passwordHash is bcrypt's of the password.
	passwordHash = "$2a$04$3JU1nf81JMr5.ZzusrRLdehWX2Xph5E256u3T0T3nqDS3bFrxdhxq"
)

// withConsole returns the directives of a site with the page behind basic_auth at /console,
// and others.
func withConsole(directives string) string {
	return "handle /console* {\nbasic_auth {\n" + operator + " " + passwordHash + "\n}\ntim_console /console\n}\nhandle {\n" + directives + "\n}"
}

// visitor is a browser without one.
type visitor struct {
	*testing.T
	site   *guardtest.Site
	header http.Header
}

func newVisitor(t *testing.T, s *guardtest.Site) *visitor {
	t.Helper()
	return &visitor{t, s, http.Header{"Accept-Language": {"en"}}}
}

// do sends a request to the page. It does not follow redirects.
func (v *visitor) do(method, path string, form url.Values) (resp *http.Response, body string) {
	v.Helper()
	req, err := http.NewRequestWithContext(v.Context(), method, "http://"+v.site.Listen+path, strings.NewReader(form.Encode()))
	if err != nil {
		v.Fatal(err)
	}
	req.SetBasicAuth(operator, password)
	maps.Copy(req.Header, v.header)
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err = client.Do(req)
	if err != nil {
		v.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		v.Fatal(err)
	}
	return resp, string(data)
}

// want gets a page, which must have the status and contain the texts, and returns it.
func (v *visitor) want(status int, path string, texts ...string) string {
	v.Helper()
	resp, body := v.do(http.MethodGet, path, nil)
	if resp.StatusCode != status {
		v.Errorf("%s: status %d, want %d\n%s", path, resp.StatusCode, status, body)
	}
	for _, text := range texts {
		if !strings.Contains(body, text) {
			v.Errorf("%s: no %q in\n%s", path, text, body)
		}
	}
	return body
}

// post posts a form, which must redirect to the page.
func (v *visitor) post(path string, form url.Values, to string) {
	v.Helper()
	resp, body := v.do(http.MethodPost, path, form)
	if got := resp.Header.Get("Location"); resp.StatusCode != http.StatusSeeOther || got != to {
		v.Errorf("POST %s: status %d to %q, want 303 to %q\n%s", path, resp.StatusCode, got, to, body)
	}
}

// callbackOf returns text that identifies the recall with the id in its payload.
func callbackOf(id string) string { return "é-" + id }

// dead starts a site whose backend has not accepted the recalls.
func dead(t *testing.T, b *guardtest.Backend, options string, ids ...string) (*guardtest.Site, *guardtest.Process) {
	t.Helper()
	s := guardtest.NewSite(t, withConsole(guardtest.Delivering(b)))
	s.Options = "max_attempts 1\n" + options
	process := s.Start(t)
	for _, id := range ids {
		guardtest.NewPoster(t, s.Listen).WantOK(t, id)
	}
	s.WantState(t, outbox.Dead, len(ids))
	return s, process
}

func TestEndToEndDeliveryConsole(t *testing.T) {
	t.Parallel()
	for _, store := range []string{"sqlite", "postgres"} {
		t.Run(store, func(t *testing.T) {
			t.Parallel()
			b := guardtest.NewBackend(t, guardtest.Answers(http.StatusInternalServerError, ""))
			options := ""
			if store == "postgres" {
				options = "store postgres " + guardtest.PostgresDSN(t, "")
			}
			s, process := dead(t, b, options, "one", "two", "three")
			v := newVisitor(t, s)
			for _, path := range []string{"/console", "/console/", "/console/live", "/console/live/calls", "/console/deliveries", "/console/assets/console.css"} {
				if status, body := guardtest.Get(t, http.MethodGet, "http://"+s.Listen+path); status != http.StatusUnauthorized {
					t.Errorf("%s without a password: %d %s", path, status, body)
				}
			}
			id := fmt.Sprint(s.Items(t)[0].ID) // the newest
			for path, want := range map[string][]string{
				"/console":                   {"Latest dead", "3 dead", "default", guardtest.App, "status 500", "Pause"},
				"/console/":                  {`href="/console/deliveries"`},
				"/console/live":              {callback.RecallCommand, "stored to deliver"},
				"/console/deliveries":        {callback.RecallCommand, "status 500", `href="/console/deliveries/` + id + `"`},
				"/console/deliveries/" + id:  {"Failed attempts", "status 500", "Show the payload"},
				"/console/deliveries?limit=": {callback.RecallCommand},
			} {
				if body := v.want(http.StatusOK, path, want...); strings.Contains(body, callbackOf("three")) {
					t.Errorf("%s shows a payload", path)
				}
			}
			v.want(http.StatusOK, "/console/deliveries/"+id+"/payload", callbackOf("three"))
			process.WantLog(t, "payload shown", map[string]any{"user": operator, "command": callback.RecallCommand})
			if _, body := v.do(http.MethodGet, "/console/deliveries/"+id+"/download", nil); body != string(guardtest.Event("three")) {
				t.Errorf("the download is\n%s\nwant the payload as it came", body)
			}
			v.want(http.StatusNotFound, "/console/deliveries/999999", "no such delivery")
			v.want(http.StatusNotFound, "/console/deliveries/x", "no such delivery")
			v.want(http.StatusNotFound, "/console/nothing", "no such page")
			v.want(http.StatusBadRequest, "/console/deliveries?state=unheard", "cannot be used", "want one of")
			v.want(http.StatusBadRequest, "/console/deliveries?guard=unheard", "cannot be used")
			v.want(http.StatusOK, "/console/deliveries?state=delivered", "No delivery matches")

			v.want(http.StatusOK, "/console/deliveries/"+id+"/discard", "Discard?")
			v.post("/console/deliveries/"+id+"/discard", nil, "/console/deliveries?done=discard")
			process.WantLog(t, "delivery discarded", map[string]any{"user": operator, "guard": "default"})
			s.WantState(t, outbox.Dead, 2)

			b.Will(guardtest.Accepts)
			v.want(http.StatusOK, "/console/deliveries/all/retry?state=dead", "Retry?", "2 deliveries")
			v.post("/console/deliveries/all/retry?state=dead", nil, "/console/deliveries?done=retry&n=2&state=dead")
			process.WantLog(t, "deliveries retried", map[string]any{"user": operator, "deliveries": 2.0, "filters": "state=dead"})
			b.One(t, guardtest.Event("one"))
			b.One(t, guardtest.Event("two"))
			s.WantState(t, outbox.Delivered, 2)
			v.want(http.StatusOK, "/console/deliveries?done=retry&n=2", "2 deliveries are due again")
			if body := v.want(http.StatusOK, "/console/deliveries?state=delivered", callback.RecallCommand); strings.Contains(body, "status 500") {
				t.Error("the list shows the error of a delivered row")
			}
			id = fmt.Sprint(s.Items(t)[0].ID)
			v.want(http.StatusOK, "/console/deliveries/"+id, "status 500")
			v.post("/console/deliveries/"+id+"/retry", nil, "/console/deliveries/"+id+"?done=retry")
			guardtest.Eventually(t, 20*time.Second, "it is delivered again", func() bool { return b.Total() == 3 })
		})
	}
}

func TestEndToEndDeliveryConsolePauses(t *testing.T) {
	t.Parallel()
	b := guardtest.NewBackend(t, guardtest.Accepts)
	s := guardtest.NewSite(t, withConsole(guardtest.Delivering(b)))
	process := s.Start(t)
	v := newVisitor(t, s)
	queue := url.Values{"guard": {"default"}, "consumer": {""}}
	v.post("/console/queues/pause", queue, "/console/?done=pause")
	process.WantLog(t, "queue paused", map[string]any{"user": operator, "guard": "default"})
	v.want(http.StatusOK, "/console/?done=pause", "The queue is paused", "paused", "Resume")
	time.Sleep(2500 * time.Millisecond) // until all processes have noticed
	guardtest.NewPoster(t, s.Listen).WantOK(t, "paused")
	s.WantState(t, outbox.Pending, 1)
	v.post("/console/queues/resume", queue, "/console/?done=resume")
	b.One(t, guardtest.Event("paused"))
	v.want(http.StatusOK, "/console/", "Pause")
	if resp, body := v.do(http.MethodPost, "/console/queues/pause", url.Values{"guard": {"unheard"}}); resp.StatusCode != http.StatusNotFound {
		t.Errorf("a queue that does not exist: %d %s", resp.StatusCode, body)
	}
}

func TestEndToEndDeliveryConsoleDiscardsMany(t *testing.T) {
	t.Parallel()
	b := guardtest.NewBackend(t, guardtest.Answers(http.StatusInternalServerError, ""))
	s, process := dead(t, b, "", "one", "two")
	v := newVisitor(t, s)
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		for _, query := range []string{"", "?before=100000", "?state=&command="} {
			if resp, body := v.do(method, "/console/deliveries/all/discard"+query, nil); resp.StatusCode != http.StatusBadRequest || !strings.Contains(body, "at least one filter") {
				t.Errorf("%s %q: %d %s", method, query, resp.StatusCode, body)
			}
		}
	}
	v.want(http.StatusOK, "/console/deliveries/all/discard?command="+callback.RecallCommand, "Discard?", "2 deliveries", callback.RecallCommand)
	v.post("/console/deliveries/all/discard?command="+callback.RecallCommand, nil, "/console/deliveries?command="+callback.RecallCommand+"&done=discard&n=2")
	process.WantLog(t, "deliveries discarded", map[string]any{"user": operator, "deliveries": 2.0})
	s.WantState(t, outbox.Dead, 0)
}

// Requests outside of the prefix are passed on, even if their path begins with it.
func TestEndToEndDeliveryConsoleLeavesOtherPathsAlone(t *testing.T) {
	t.Parallel()
	b := guardtest.NewBackend(t, guardtest.Answers(http.StatusOK, "other"))
	s := guardtest.NewSite(t, "tim_console /console\nreverse_proxy "+b.Address())
	s.Start(t)
	for path, other := range map[string]bool{"/": true, "/consolex": true, "/x/console": true, "/console/": false, "/console/live": false, "/console": false} {
		if status, body := guardtest.Get(t, http.MethodGet, "http://"+s.Listen+path); status != http.StatusOK || (body == "other") != other {
			t.Errorf("%s: %d %.60s", path, status, body)
		}
	}
}

// A path that is stripped before the page is part of its links.
func TestEndToEndConsoleBehindAStrippedPath(t *testing.T) {
	t.Parallel()
	s := guardtest.NewSite(t, "handle_path /ops/* {\ntim_console\n}\nhandle {\nrespond other\n}")
	s.App = false
	s.Start(t)
	v := newVisitor(t, s)
	v.want(http.StatusOK, "/ops/", `href="/ops/live"`, `href="/ops/assets/console.css?v=`)
	v.want(http.StatusOK, "/ops/live", `data-stream="/ops/live/calls?last=1000"`)
	v.want(http.StatusOK, "/", "other")
	resp, _ := v.do(http.MethodGet, "/ops/live?lang=zh-CN&reason=sign", nil)
	if got := resp.Header.Get("Location"); got != "/ops/live?reason=sign" {
		t.Errorf("switching the language leads to %q", got)
	}
}

// A store that cannot be opened is said to be, until it can.
func TestEndToEndDeliveryConsoleWaitsForTheStore(t *testing.T) {
	t.Parallel()
	b := guardtest.NewBackend(t, guardtest.Accepts)
	s := guardtest.NewSite(t, withConsole(guardtest.Delivering(b)))
	s.Unopened = true
	if err := os.Mkdir(s.StorePath(), 0o700); err != nil {
		t.Fatal(err)
	}
	s.Start(t)
	v := newVisitor(t, s)
	v.want(http.StatusOK, "/console/", "not working", "is a directory", "forwarded at once")
	v.want(http.StatusServiceUnavailable, "/console/deliveries", "The store does not work")
	v.want(http.StatusOK, "/console/live", "No call yet")
	if resp, body := v.do(http.MethodPost, "/console/deliveries/all/retry?state=dead", nil); resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("retry: %d %s", resp.StatusCode, body)
	}
	if err := os.Remove(s.StorePath()); err != nil {
		t.Fatal(err)
	}
	guardtest.Eventually(t, 10*time.Second, "the page is there", func() bool {
		resp, body := v.do(http.MethodGet, "/console/deliveries", nil)
		return resp.StatusCode == http.StatusOK && strings.Contains(body, "Nothing is stored")
	})
}

// Without anything stored, there are the guards and the calls, and nothing creates a store.
func TestEndToEndConsoleOfAGuardThatStoresNothing(t *testing.T) {
	t.Parallel()
	s := guardtest.NewSite(t, withConsole(guardtest.Guard("on before ack")))
	s.Start(t)
	v := newVisitor(t, s)
	v.want(http.StatusOK, "/console/", "No guard stores callbacks", guardtest.App, "1 rule,")
	v.want(http.StatusOK, "/console/deliveries", "on Group.CallbackAfterRecallMsg deliver")
	v.want(http.StatusNotFound, "/console/deliveries/1", "no such delivery")
	if resp, _ := v.do(http.MethodPost, "/console/deliveries/all/retry?state=dead", nil); resp.StatusCode != http.StatusNotFound {
		t.Errorf("retry: %d, want 404", resp.StatusCode)
	}
	if _, err := os.Stat(s.StorePath()); !os.IsNotExist(err) {
		t.Errorf("the store exists: %v", err)
	}
}

func TestEndToEndDeliveryConsoleReadOnly(t *testing.T) {
	t.Parallel()
	b := guardtest.NewBackend(t, guardtest.Answers(http.StatusInternalServerError, ""))
	s := guardtest.NewSite(t, strings.Replace(withConsole(guardtest.Delivering(b)), "tim_console /console", "tim_console /console {\nread_only\n}", 1))
	s.Options = "max_attempts 1"
	s.Start(t)
	guardtest.NewPoster(t, s.Listen).WantOK(t, "kept")
	s.WantState(t, outbox.Dead, 1)
	v := newVisitor(t, s)
	id := fmt.Sprint(s.Items(t)[0].ID)
	for _, path := range []string{"/console/", "/console/deliveries?state=dead", "/console/deliveries/" + id} {
		body := v.want(http.StatusOK, path, "Read only")
		for _, change := range []string{`method="post"`, "/retry", "/discard", "/pause"} {
			if strings.Contains(body, change) {
				t.Errorf("%s offers %s", path, change)
			}
		}
	}
	for _, path := range []string{"/deliveries/" + id + "/retry", "/deliveries/" + id + "/discard", "/deliveries/all/retry?state=dead", "/deliveries/all/discard?state=dead", "/queues/pause", "/queues/resume"} {
		resp, body := v.do(http.MethodPost, "/console"+path, url.Values{"guard": {"default"}})
		if resp.StatusCode != http.StatusForbidden || !strings.Contains(body, "read only") {
			t.Errorf("%s: %d %s", path, resp.StatusCode, body)
		}
	}
	v.want(http.StatusForbidden, "/console/deliveries/"+id+"/discard", "read only")
	s.WantState(t, outbox.Dead, 1)
}

func TestEndToEndDeliveryConsoleRefusesOtherOrigins(t *testing.T) {
	t.Parallel()
	b := guardtest.NewBackend(t, guardtest.Answers(http.StatusInternalServerError, ""))
	s, _ := dead(t, b, "", "kept")
	for _, header := range []http.Header{
		{"Sec-Fetch-Site": {"cross-site"}}, {"Sec-Fetch-Site": {"same-site"}}, {"Origin": {"https://evil.example"}}, {"Origin": {"null"}},
	} {
		v := newVisitor(t, s)
		v.header = header
		if resp, body := v.do(http.MethodPost, "/console/deliveries/all/discard?state=dead", nil); resp.StatusCode != http.StatusForbidden || !strings.Contains(body, "not from another site") {
			t.Errorf("%v: %d %s", header, resp.StatusCode, body)
		}
	}
	s.WantState(t, outbox.Dead, 1)
}

func TestEndToEndConsoleHeaders(t *testing.T) {
	t.Parallel()
	s := guardtest.NewSite(t, "tim_console /console")
	s.App = false
	s.Start(t)
	v := newVisitor(t, s)
	for _, path := range []string{"/console/", "/console/live", "/console/nothing", "/console/deliveries"} {
		resp, body := v.do(http.MethodGet, path, nil)
		for name, want := range map[string]string{
			"Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
			"X-Content-Type-Options":  "nosniff", "Referrer-Policy": "same-origin", "Cache-Control": "no-store", "Content-Type": "text/html; charset=utf-8",
		} {
			if got := resp.Header.Get(name); got != want {
				t.Errorf("%s: %s is %q, want %q", path, name, got, want)
			}
		}
		for _, inline := range []string{"<style", "style=", "onclick=", "<script>", "javascript:"} {
			if strings.Contains(body, inline) {
				t.Errorf("%s has %s, which the policy forbids", path, inline)
			}
		}
	}
	resp, _ := v.do(http.MethodGet, "/console/assets/console.js?v="+versions["console.js"], nil)
	if got := resp.Header.Get("Cache-Control"); resp.StatusCode != http.StatusOK || !strings.Contains(got, "immutable") {
		t.Errorf("script: %d, Cache-Control %q", resp.StatusCode, got)
	}
	v.want(http.StatusNotFound, "/console/assets/other.js")
}

func TestEndToEndConsoleLanguages(t *testing.T) {
	t.Parallel()
	s := guardtest.NewSite(t, "tim_console /console")
	s.App = false
	s.Start(t)
	for header, want := range map[string]string{
		"zh-CN,zh;q=0.9,en;q=0.8": "概览", "zh": "概览", "zh-Hans-CN": "概览", "en-US,en;q=0.9,zh;q=0.8": "Overview", "": "Overview", "fr": "Overview", "%%%": "Overview",
	} {
		v := newVisitor(t, s)
		v.header.Set("Accept-Language", header)
		v.want(http.StatusOK, "/console/", want)
	}
	v := newVisitor(t, s)
	resp, _ := v.do(http.MethodGet, "/console/live?lang=zh-CN", nil)
	if resp.StatusCode != http.StatusSeeOther || resp.Header.Get("Location") != "/console/live" || len(resp.Cookies()) != 1 {
		t.Fatalf("%d to %s, cookies %v", resp.StatusCode, resp.Header.Get("Location"), resp.Cookies())
	}
	v.header.Set("Cookie", resp.Cookies()[0].Name+"="+resp.Cookies()[0].Value)
	v.want(http.StatusOK, "/console/live", "实时", `lang="zh-CN"`)
	v.header.Set("Cookie", langCookie+"=unheard")
	v.want(http.StatusOK, "/console/live", "Live")
	v.header.Del("Cookie")
	if resp, _ := v.do(http.MethodGet, "/console/?lang=zh", nil); len(resp.Cookies()) != 1 || resp.Cookies()[0].Value != "zh-CN" {
		t.Errorf("lang=zh: cookies %v", resp.Cookies())
	}
	if resp, _ := v.do(http.MethodGet, "/console/?lang=fr", nil); resp.StatusCode != http.StatusOK || len(resp.Cookies()) != 0 {
		t.Errorf("an unknown lang: %d, cookies %v", resp.StatusCode, resp.Cookies())
	}
}

// What a stranger has written is text, and is bounded.
func TestEndToEndDeliveryConsoleHostilePayload(t *testing.T) {
	t.Parallel()
	b := guardtest.NewBackend(t, guardtest.Answers(http.StatusInternalServerError, ""))
	s := guardtest.NewSite(t, withConsole(guardtest.Delivering(b, "max_body 2MB")))
	s.Options = "max_attempts 1"
	s.Start(t)
	const script = "<script>alert(1)</script>"
	large := strings.Repeat("x", 1<<20)
	payload := `{"CallbackCommand":"Group.CallbackAfterRecallMsg","GroupId":"` + script + `\u202e","Operator_Account":"a` + "\u202e" + `b</pre><img src=x onerror=alert(1)>",` +
		`"Type":"Public","MsgSeqList":[{"MsgSeq":1}],"EventTime":1670574414123`
	p := guardtest.NewPoster(t, s.Listen)
	for _, body := range []string{payload + "}", payload + `,"Extra":"` + large + `"}`} {
		if status, answer, err := p.Post("/callback", callback.RecallCommand, []byte(body)); err != nil || status != http.StatusOK || answer != guardtest.OKJSON {
			t.Fatalf("%d %s, %v", status, answer, err)
		}
	}
	s.WantState(t, outbox.Dead, 2)
	v := newVisitor(t, s)
	for i, item := range s.Items(t) {
		path := fmt.Sprintf("/console/deliveries/%d", item.ID)
		for _, page := range []string{"/console/", "/console/live", "/console/deliveries", path, path + "/payload"} {
			body := v.want(http.StatusOK, page, "&lt;script&gt;alert(1)&lt;/script&gt;")
			if strings.Contains(body, script) || strings.Contains(body, "<img") || strings.ContainsRune(body, '\u202e') {
				t.Errorf("%s shows it as it is", page)
			}
			if len(body) > 1<<19 {
				t.Errorf("%s has %d bytes", page, len(body))
			}
		}
		body := v.want(http.StatusOK, path+"/payload", `<span class="hidden-char">U&#43;202E</span>`)
		if large := i == 0; strings.Contains(body, "64 KiB of 1.0 MiB") != large {
			t.Errorf("item %d: it is said to be cut off, or not", i)
		}
	}
}

// Streams of calls have no payload, and do not hold up a reload.
func TestEndToEndConsoleStream(t *testing.T) {
	t.Parallel()
	s := guardtest.NewSite(t, withConsole(guardtest.Guard("on before ack", "on Group.CallbackAfterRecallMsg ack")))
	s.Global = "grace_period 60s"
	s.Start(t)
	p := guardtest.NewPoster(t, s.Listen)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.Listen+"/console/live/calls?last=10&bodies=1", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth(operator, password)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got := resp.Header.Get("Content-Type"); got != "text/event-stream" {
		t.Fatalf("%d %s", resp.StatusCode, got)
	}
	lines := bufio.NewScanner(resp.Body)
	p.WantOK(t, "streamed")
	data := ""
	for data == "" && lines.Scan() {
		data, _ = strings.CutPrefix(lines.Text(), "data: ")
		if !strings.HasPrefix(lines.Text(), "data: ") {
			data = ""
		}
	}
	if !strings.Contains(data, callback.RecallCommand) || strings.Contains(data, `"body"`) || strings.Contains(data, "MsgSeqList") {
		t.Errorf("event %s", data)
	}
	start := time.Now()
	s.Global = "grace_period 61s"
	s.Reload(t)
	for lines.Scan() {
	}
	if took := time.Since(start); took > 15*time.Second {
		t.Errorf("the stream and the reload took %s", took)
	}
}

// A tab that is left open over HTTP/3 does not hold up the end of the process, which waits for
// requests for ever by default.
func TestEndToEndConsoleStreamEndsOverHTTP3(t *testing.T) {
	t.Parallel()
	s := guardtest.NewSite(t, "respond plain")
	secure := guardtest.FreePort(t)
	certificate := filepath.Join(s.Dir, "site.pem")
	writeCertificate(t, certificate)
	s.Global = "" // thus no grace period
	s.After = "https://" + secure + " {\ntls " + certificate + " " + certificate + "\ntim_console /console\n}"
	process := s.Start(t)
	transport := &http3.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}} //nolint:gosec // the certificate is the test's
	t.Cleanup(func() { _ = transport.Close() })
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+secure+"/console/live/calls", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body := bufio.NewReader(resp.Body)
	if line, err := body.ReadString('\n'); err != nil || line != ": watching\n" {
		t.Fatalf("%d %q, %v", resp.StatusCode, line, err)
	}
	go func() { _, _ = io.Copy(io.Discard, body) }() // the client closes its connection when it has all
	if took := process.Terminate(t); took > 10*time.Second {
		t.Errorf("Caddy took %s to end", took)
	}
}

// writeCertificate writes a certificate for 127.0.0.1 and its key to a file.
func writeCertificate(t *testing.T, file string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	template := x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	text = append(text, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})...)
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestEndToEndConsoleWarns(t *testing.T) {
	t.Parallel()
	const noAuth, noPrefix = "tim_console has no authentication in front of it", "tim_console without a prefix answers every request"
	matched := func(matcher string) string {
		return "basic_auth " + matcher + " {\n" + operator + " " + passwordHash + "\n}\n"
	}
	basic := matched("")
	for name, c := range map[string]struct {
		directives string
		warns      []string
	}{
		"nothing in front":       {"tim_console /console\nrespond other", []string{noAuth}},
		"in a block":             {"handle /console* {\n" + basic + "tim_console /console\n}\nrespond other", nil},
		"before the block":       {basic + "handle /console* {\ntim_console /console\n}", nil},
		"in another block":       {"handle /x* {\n" + basic + "respond x\n}\nhandle /console* {\ntim_console /console\n}", []string{noAuth}},
		"forward_auth":           {"forward_auth 127.0.0.1:9 {\nuri /auth\n}\ntim_console /console", nil},
		"no prefix":              {basic + "tim_console\nreverse_proxy 127.0.0.1:9", []string{noPrefix}},
		"no prefix in a block":   {"handle /x* {\n" + basic + "tim_console\n}\nreverse_proxy 127.0.0.1:9", nil},
		"a site of its own":      {basic + "tim_console", nil},
		"forward_auth elsewhere": {"forward_auth /admin/* 127.0.0.1:9 {\nuri /auth\n}\ntim_console /console", []string{noAuth}},
		"basic_auth elsewhere":   {matched("/admin/*") + "tim_console /console", []string{noAuth}},
		"basic_auth of one page": {matched("/console") + "tim_console /console", []string{noAuth}},
		"basic_auth of the page": {matched("/Console*") + "tim_console /console", nil},
		"basic_auth of paths":    {"@page path /console /console/*\n" + matched("@page") + "tim_console /console", nil},
		"basic_auth of a method": {"@page {\npath /console*\nmethod POST\n}\n" + matched("@page") + "tim_console /console", []string{noAuth}},
		"basic_auth of a block":  {matched("/ops*") + "handle_path /ops* {\ntim_console /console\n}", nil},
		"two, of which one open": {"handle /a* {\n" + basic + "tim_console /a\n}\nhandle /b* {\ntim_console /b\n}", []string{noAuth}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := guardtest.NewSite(t, c.directives)
			s.App = false
			log := s.Start(t).Log.String()
			for _, warning := range []string{noAuth, noPrefix} {
				want := 0
				for _, w := range c.warns {
					if w == warning {
						want++
					}
				}
				if got := strings.Count(log, warning); got != want {
					t.Errorf("%d times %q, want %d in\n%s", got, warning, want, log)
				}
			}
		})
	}
}

// The routes of a site without a host are those of the server, so that earlier ones are no
// longer in JSON when the page is provisioned.
func TestEndToEndConsoleFindsAuthenticationOfASiteWithoutAHost(t *testing.T) {
	t.Parallel()
	for name, auth := range map[string]string{
		"forward_auth": "forward_auth 127.0.0.1:9 {\nuri /auth\n}",
		"basic_auth":   "basic_auth /console* {\n" + operator + " " + passwordHash + "\n}",
		"elsewhere":    "basic_auth /admin/* {\n" + operator + " " + passwordHash + "\n}",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := guardtest.NewSite(t, "respond other")
			s.App = false
			_, port, _ := net.SplitHostPort(guardtest.FreePort(t))
			s.After = "http://:" + port + " {\n" + auth + "\nhandle /console* {\ntim_console /console\n}\n}"
			if log := s.Start(t).Log.String(); strings.Contains(log, "tim_console has no authentication") != (name == "elsewhere") {
				t.Errorf("the warning that there is no authentication is wrong in\n%s", log)
			}
		})
	}
}

// The page itself says that nobody has signed in.
func TestEndToEndConsoleSaysThatItIsOpen(t *testing.T) {
	t.Parallel()
	s := guardtest.NewSite(t, "handle /open* {\ntim_console /open\n}\n"+withConsole("respond other"))
	s.App = false
	s.Start(t)
	v := newVisitor(t, s)
	v.want(http.StatusOK, "/open/", "Nobody has signed in")
	if body := v.want(http.StatusOK, "/console/", operator); strings.Contains(body, "Nobody has signed in") {
		t.Error("the page behind basic_auth says that nobody has signed in")
	}
}
