// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package command

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/timguard/timguard/caddymodule/callback"
	"github.com/timguard/timguard/caddymodule/internal/guardtest"
)

// probeSite starts a site and probes it.
func probeSite(t *testing.T, directives string, args ...string) (got probed, err error) {
	t.Helper()
	s := guardtest.NewSite(t, directives)
	s.App = strings.Contains(directives, "fallback deliver")
	s.Start(t)
	return probeURL(t, "http://"+s.Listen+"/callback", args...)
}

func probeURL(t *testing.T, url string, args ...string) (got probed, err error) {
	t.Helper()
	output, err := run(t, probeCommand(), "", append([]string{url, "--json", "--timeout", "10s"}, args...)...)
	text, _, _ := strings.Cut(output, "\nError: ")
	if failed := json.Unmarshal([]byte(text), &got); failed != nil {
		t.Fatalf("%v: %s", failed, output)
	}
	for _, secret := range []string{guardtest.Token, "Sign=", "RequestTime"} {
		if strings.Contains(output, secret) {
			t.Errorf("the output holds %s: %s", secret, output)
		}
	}
	return got, err
}

// with returns the names of the calls with the result.
func (r probed) with(result outcome) (names []string) {
	for _, k := range r.Calls {
		if k.Result == result {
			names = append(names, k.Name)
		}
	}
	return names
}

// handled returns the directives of a site that serves nothing but what it guards.
func handled(inside string) string {
	return "handle /callback {\n" + inside + "\n}\nhandle {\nrespond 404\n}"
}

func TestProbeFindsWhatGetsIn(t *testing.T) {
	t.Parallel()
	b := guardtest.NewBackend(t, guardtest.Accepts)
	strict := guardtest.NewBackend(t, checksItself)
	proxy, guard := "reverse_proxy "+b.Address(), guardtest.Guard()
	itself := []string{"unsigned", "forged Sign", "stale by 2 minutes", "of another app", "a parameter twice", "a form body", "by GET"}
	guarded := []string{"to //callback", "to /CALLBACK", "to /./callback"} // by a path matcher of Caddy
	beside := []string{"to /callback/", "to /callback%2f", "to /callback;x", "to any other path"}
	everywhere := slices.Concat(itself, guarded, beside)
	for name, tt := range map[string]struct {
		directives string
		want       []string // gets in
		hint       string
	}{
		"a proxy before the guard": {handled("route {\n" + proxy + "\n" + guard + "\n}"), slices.Concat(itself, guarded), "stand before it in a route"},
		"a proxy to a backend that checks Sign itself": {
			handled("route {\nreverse_proxy " + strict.Address() + "\n" + guard + "\n}"),
			slices.Concat(itself, guarded), "stand before it in a route",
		},
		"a matcher of the guard": {strings.Replace(guard, "{", "/callback {", 1) + "\n" + proxy, beside, "put both into a handle of the exact path"},
		"a matcher that is exact": {
			"@exact path_regexp ^/callback$\n" + strings.Replace(guard, "{", "@exact {", 1) + "\n" + proxy,
			append([]string{"to /CALLBACK"}, beside...), "put both into a handle of the exact path",
		},
		"a proxy beside the guard": {"handle /callback {\n" + guard + "\n" + proxy + "\n}\nhandle {\n" + proxy + "\n}", beside, "put both into a handle of the exact path"},
		"a page beside the guard":  {"handle /callback {\n" + guard + "\n" + proxy + "\n}\nrespond \"a page\"", beside, "put both into a handle of the exact path"},
		"an app that is unsigned": {
			handled("tim_callback {\napp " + guardtest.App + " unsigned\n}\n" + proxy),
			[]string{"unsigned", "forged Sign", "stale by 2 minutes"},
			"does the app lack a token",
		},
		"report mode":      {guardtest.Guard("mode report") + "\n" + proxy, everywhere, "is it in report mode"},
		"a longer window":  {handled(guardtest.Guard("window 5m") + "\n" + proxy), []string{"stale by 2 minutes"}, ""},
		"a dead backend":   {strings.Replace(guard, "{", "/callback {", 1) + "\nreverse_proxy 127.0.0.1:1", beside, "put both into a handle of the exact path"},
		"nothing is there": {"respond 404", nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := probeSite(t, tt.directives, "--token", guardtest.Token)
			slices.Sort(tt.want)
			in := got.with(gotIn)
			slices.Sort(in)
			if !slices.Equal(in, tt.want) || got.GotIn != len(tt.want) {
				t.Errorf("%d got in: %q\nwant %q", got.GotIn, in, tt.want)
			}
			if err == nil || !strings.Contains(got.Hint, tt.hint) {
				t.Errorf("error %v, hint %q; want an error, and %q", err, got.Hint, tt.hint)
			}
		})
	}
}

// checksItself is a backend that refuses what is not signed, in a form of its own.
func checksItself(b *guardtest.Backend) http.HandlerFunc {
	accepts := guardtest.Accepts(b)
	return func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		if q.Get("Sign") != callback.Sign(guardtest.Token, q.Get("RequestTime")) {
			http.Error(w, "forbidden", http.StatusForbidden)
			return
		}
		accepts(w, r)
	}
}

// blockOf returns what is inside of the block of a site in a Caddyfile.
func blockOf(t *testing.T, file, site string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", file))
	if err != nil {
		t.Fatal(err)
	}
	match := regexp.MustCompile(`(?ms)^` + regexp.QuoteMeta(site) + ` \{\n(.*?)^\}`).FindSubmatch(text)
	if match == nil {
		t.Fatalf("%s has no site %s", file, site)
	}
	return string(match[1])
}

func TestProbeFindsNothingInTheDocumentedSites(t *testing.T) {
	t.Parallel()
	b := guardtest.NewBackend(t, guardtest.Accepts)
	replace := strings.NewReplacer(
		"10.0.0.5:9000", b.Address(), "127.0.0.1:8081", b.Address(),
		"{file./run/secrets/tim_callback_token}", guardtest.Token, "{$TIM_CALLBACK_TOKEN:xxxxyyyy}", guardtest.Token,
	)
	for name, directives := range map[string]string{
		"README":  blockOf(t, "README.md", "im.example.com"),
		"example": blockOf(t, "Caddyfile.example", "http://:8080"),
	} {
		for how, token := range map[string]string{"without a token": "", "with the token": guardtest.Token} {
			t.Run(name+" "+how, func(t *testing.T) {
				t.Parallel()
				got, err := probeSite(t, replace.Replace(directives), "--token", token)
				if err != nil || got.GotIn != 0 || got.Hint != "" || len(got.with(unclear)) > 0 {
					t.Errorf("error %v of %+v", err, got)
				}
				if accepts := len(got.with(accepted)) == 1; accepts != (token != "") {
					t.Errorf("the genuine call was accepted: %t", accepts)
				}
			})
		}
	}
}

func TestProbePrintsATable(t *testing.T) {
	t.Parallel()
	s := guardtest.NewSite(t, handled(guardtest.Guard()+"\nrespond `"+guardtest.OKJSON+"`"))
	s.App = false
	s.Start(t)
	output, err := run(t, probeCommand(), "", "http://"+s.Listen+"/callback", "--token", guardtest.Token, "--timeout", "10s")
	const want = `CALL                STATUS  RESULT    DETAIL
unsigned            401     refused   by the guard: unsigned
forged Sign         401     refused   by the guard: sign
stale by 2 minutes  401     refused   by the guard: stale
of another app      403     refused   by the guard: app
a parameter twice   400     refused   by the guard: query
a form body         401     refused   by the guard: unsigned
by GET              405     refused   by the guard: method
to /callback/       404     absent    nothing is there
to //callback       400     refused   by the guard: query
to /callback%2f     404     absent    nothing is there
to /callback;x      404     absent    nothing is there
to /CALLBACK        400     refused   by the guard: query
to /./callback      400     refused   by the guard: query
to any other path   404     absent    nothing is there
genuine             200     accepted  was answered OK
`
	if err != nil || output != want {
		t.Errorf("error %v, output\n%s\nwant\n%s", err, output, want)
	}
}

func TestProbeSaysWhatItCannotTell(t *testing.T) {
	t.Parallel()
	b := guardtest.NewBackend(t, guardtest.Accepts)
	missing := guardtest.NewBackend(t, guardtest.Answers(http.StatusNotFound, "not here"))
	guard := guardtest.Guard() + "\nreverse_proxy " + b.Address()
	for name, tt := range map[string]struct {
		directives string
		args       []string
		result     outcome
		want       []string // have the result
		error      string   // or "" if it succeeds
	}{
		"error routes": {
			handled(guardtest.Guard("rejections handle_errors")+"\nreverse_proxy "+b.Address()) + "\nhandle_errors {\nrespond \"refused\"\n}", nil,
			unclear,
			[]string{"unsigned", "forged Sign", "stale by 2 minutes", "of another app", "a parameter twice", "a form body", "by GET", "to //callback", "to /CALLBACK", "to /./callback"},
			"",
		},
		"no handler for other paths": {
			"handle /callback {\n" + guard + "\n}", nil,
			unclear,
			[]string{"to /callback/", "to /callback%2f", "to /callback;x", "to any other path"},
			"",
		},
		"a backend that knows no other path": {
			"handle /callback {\n" + guard + "\n}\nreverse_proxy " + missing.Address(), nil,
			unclear,
			[]string{"to /callback/", "to /callback%2f", "to /callback;x", "to any other path"},
			"",
		},
		"redirects": {
			"handle /callback {\n" + guard + "\n}\nhandle {\nredir https://example.com{uri}\n}", nil,
			absent,
			[]string{"to /callback/", "to /callback%2f", "to /callback;x", "to any other path"},
			"",
		},
		"another token": {handled(guard), []string{"--token", guardtest.NewToken}, notOK, []string{"genuine"}, "the genuine call was not answered OK"},
		"another app":   {handled(guard), []string{"--app", "1400000007"}, notOK, []string{"genuine"}, "the guard does not know the app"},
		"another app, and no token": {
			handled(guard),
			[]string{"--app", "1400000007", "--token", ""},
			skipped,
			[]string{"stale by 2 minutes", "genuine"},
			"the guard does not know the app",
		},
		"another command": {handled(guard), []string{"--command", "State.StateChange"}, notOK, []string{"genuine"}, "the genuine call was not answered OK"},
		"no backend":      {handled(guardtest.Guard()), nil, notOK, []string{"genuine"}, "the genuine call was not answered OK"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := probeSite(t, tt.directives, append([]string{"--token", guardtest.Token}, tt.args...)...)
			if names := got.with(tt.result); !slices.Equal(names, tt.want) || got.GotIn > 0 {
				t.Errorf("%s are %q, and %d got in; want %q", tt.result, names, got.GotIn, tt.want)
			}
			if (err == nil) != (tt.error == "") || err != nil && !strings.Contains(err.Error(), tt.error) {
				t.Errorf("error %v, want %q", err, tt.error)
			}
		})
	}
}

// A proxy in front of the site marks every answer, also those of the guard.
func TestProbeLooksBehindAProxyInFront(t *testing.T) {
	t.Parallel()
	missing := guardtest.NewBackend(t, guardtest.Answers(http.StatusForbidden, "no"))
	for name, want := range map[string]int{"respond 403": 0, "reverse_proxy " + missing.Address(): 4} {
		s := guardtest.NewSite(t, "handle /callback {\n"+guardtest.Guard()+"\nrespond `"+guardtest.OKJSON+"`\n}\n"+name)
		s.App = false
		front := guardtest.FreePort(t)
		s.After = "http://" + front + " {\nreverse_proxy " + s.Listen + "\n}"
		s.Start(t)
		if got, _ := probeURL(t, "http://"+front+"/callback", "--token", guardtest.Token); got.GotIn != want {
			t.Errorf("%s: %q got in, want %d", name, got.with(gotIn), want)
		}
	}
}

func TestProbeKnocksAsItSays(t *testing.T) {
	t.Parallel()
	var calls []*http.Request
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls = append(calls, r) // one at a time
		http.NotFound(w, r)
	}))
	t.Cleanup(server.Close)
	url := server.URL + "/im/callback?m=Api&Sign=captured&RequestTime=1669872112"
	if _, err := probeURL(t, url, "--token", guardtest.Token, "--app", "42"); err == nil || !strings.Contains(err.Error(), "no guard answers here") {
		t.Errorf("error %v", err)
	}
	signedAt := func(r *http.Request) time.Duration {
		q, err := callback.ParseQuery(strings.TrimSuffix(r.URL.RawQuery, "&"+twice))
		at := callback.Query{RequestTime: q.RequestTime}.RequestTime
		if err != nil || q.Sign != callback.Sign(guardtest.Token, at) {
			t.Fatalf("%s %s is not signed: %v", r.Method, r.URL.Path, err)
		}
		seconds, _ := time.ParseDuration(at + "s")
		return time.Since(time.Unix(int64(seconds.Seconds()), 0)).Round(10 * time.Second)
	}
	if q := calls[0].URL.Query(); q.Has("Sign") || q.Has("RequestTime") || q.Get("SdkAppid") != "42" || q.Get("m") != "Api" {
		t.Errorf("unsigned: %v", calls[0].URL)
	}
	if q := calls[1].URL.Query(); len(q.Get("Sign")) != 64 || q.Get("Sign") == callback.Sign(guardtest.Token, q.Get("RequestTime")) {
		t.Errorf("forged: %v", calls[1].URL)
	}
	if age := signedAt(calls[2]); age != 2*time.Minute {
		t.Errorf("stale by %s", age)
	}
	if got := calls[3].URL.Query().Get("SdkAppid"); got == "42" || signedAt(calls[3]) != 0 {
		t.Errorf("of another app: %s", got)
	}
	if got := calls[4].URL.Query()["SdkAppid"]; len(got) != 2 || calls[4].URL.Query().Get("Sign") == "" {
		t.Errorf("twice: %s", got)
	}
	if got := calls[5].Header.Get("Content-Type"); got != "application/x-www-form-urlencoded" || calls[5].URL.Query().Has("Sign") {
		t.Errorf("form: %s", got)
	}
	if calls[6].Method != http.MethodGet || signedAt(calls[6]) != 0 {
		t.Errorf("GET: %s", calls[6].Method)
	}
	for i, path := range []string{"/im/callback/", "//im/callback", "/im/callback%2f", "/im/callback;x", "/IM/CALLBACK", "/./im/callback"} {
		if r := calls[7+i]; r.URL.EscapedPath() != path || signedAt(r) != 0 || len(r.URL.Query()["contenttype"]) != 2 {
			t.Errorf("spelling %v, want %s", r.URL, path)
		}
	}
	if r := calls[len(calls)-1]; len(calls) != 15 || r.URL.Path != "/im/callback" || signedAt(r) != 0 {
		t.Errorf("%d calls, the last one %v", len(calls), r.URL)
	}
}

func TestProbeSpellsPathsInOtherWays(t *testing.T) {
	t.Parallel()
	for path, want := range map[string][]string{
		"/":          {"//", "/%2f", "/;x"},
		"/cb/":       {"/cb", "//cb", "/cb%2f", "/cb;x", "/CB", "/./cb"},
		"/CB":        {"/CB/", "//CB", "/CB%2f", "/CB;x", "/cb", "/./CB"},
		"/3":         {"/3/", "//3", "/3%2f", "/3;x", "/./3"},
		"/%E5%9B%9E": {"/%E5%9B%9E/", "//%E5%9B%9E", "/%E5%9B%9E%2f", "/%E5%9B%9E;x", "/%e5%9b%9e", "/./%E5%9B%9E"},
	} {
		if got := spellings(path); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}

func TestProbeFailsWhereItCannotKnock(t *testing.T) {
	t.Parallel()
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	secure := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(secure.Close)
	for name, tt := range map[string]struct {
		args []string
		want string
	}{
		"nobody listens": {[]string{closed.URL}, "connection refused"},
		"not a URL":      {[]string{"im.example.com/callback"}, "want a URL such as"},
		"certificate":    {[]string{secure.URL}, "--insecure accepts any certificate"},
		"plain to TLS":   {[]string{strings.Replace(secure.URL, "https", "http", 1)}, "write https://"},
		"command":        {[]string{closed.URL, "--command", "Group.CallbackAfterRecalMsg"}, "did you mean"},
		"no such token":  {[]string{closed.URL, "--token", "{env.TIMGUARD_TEST_UNSET}"}, "--token"},
		"no such file":   {[]string{closed.URL, "--token", "{file.nowhere/token}"}, "--token: {file.nowhere/token}: no such file or directory"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if output, err := run(t, probeCommand(), "", tt.args...); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q; output %s", err, tt.want, output)
			}
		})
	}
	if got, err := probeURL(t, secure.URL+"/callback", "--insecure"); err == nil || got.Calls[0].Status != http.StatusNotFound {
		t.Errorf("--insecure: %v, %+v", err, got.Calls[0])
	}
}
