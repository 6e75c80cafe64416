// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package console

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/timguard/timguard/caddymodule/callback"
	"github.com/timguard/timguard/caddymodule/internal/guardtest"
	"github.com/timguard/timguard/caddymodule/outbox"
)

// requireBrowser is the environment variable that makes the tests in a browser fail instead
// of skip if there is none.
const requireBrowser = "TIMGUARD_REQUIRE_BROWSER"

func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv(requireBrowser) != "" {
		t.Fatal(what)
	}
	t.Skip(what)
}

// tab is a tab of Chromium that records what must not happen.
type tab struct {
	*testing.T
	ctx  context.Context
	site *guardtest.Site

	mu     sync.Mutex
	faults []string // what the console says, and requests to other hosts
}

// newTab opens a tab at the site, in which the reader is signed in, asks for a language and
// sees a window of a width.
func newTab(t *testing.T, s *guardtest.Site, language string, width int64) *tab {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		missing(t, "chromium is not installed")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox,
		chromedp.Flag("disable-dev-shm-usage", true), chromedp.UserDataDir(t.TempDir()))
	allocator, cancelAllocator := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, cancelTab := chromedp.NewContext(allocator)
	ctx, cancelTime := context.WithTimeout(ctx, 90*time.Second)
	t.Cleanup(func() {
		cancelTime()
		cancelTab()
		cancelAllocator()
	})
	b := &tab{T: t, ctx: ctx, site: s}
	b.check(chromedp.Listen(ctx, b.listen))
	auth := base64.StdEncoding.EncodeToString([]byte(operator + ":" + password))
	call(b, network.Enable, network.EnableParams{})
	call(b, runtime.Enable, cdp.Empty{})
	call(b, cdplog.Enable, cdp.Empty{})
	call(b, network.SetExtraHTTPHeaders, network.SetExtraHTTPHeadersParams{
		Headers: network.Headers{"Authorization": "Basic " + auth, "Accept-Language": language},
	})
	call(b, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
		Width: width, Height: 900, DeviceScaleFactor: 1, Mobile: width < 720,
	})
	return b
}

func (b *tab) check(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

// call sends a command to the browser.
func call[P, R any](b *tab, command cdp.Command[P, R], params P) {
	b.Helper()
	_, err := chromedp.Call(b.ctx, command, params)
	b.check(err)
}

func (b *tab) listen(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		u, err := url.Parse(e.Request.URL)
		if err != nil || u.Host != b.site.Listen && u.Scheme != "data" && u.Scheme != "about" {
			b.faults = append(b.faults, "request to "+e.Request.URL)
		}
	case *runtime.EventConsoleAPICalled:
		b.faults = append(b.faults, fmt.Sprintf("console: %s %s", e.Type, e.Args[0].Description))
	case *runtime.EventExceptionThrown:
		b.faults = append(b.faults, "exception: "+e.ExceptionDetails.Text)
	case *cdplog.EventEntryAdded:
		b.faults = append(b.faults, "log: "+e.Entry.Text+" "+e.Entry.URL)
	}
}

// wantNoFaults fails the test if the browser has complained, or has asked another host.
func (b *tab) wantNoFaults() {
	b.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, fault := range b.faults {
		b.Error(fault)
	}
	b.faults = nil
}

// open opens a page of the console.
func (b *tab) open(path string) {
	b.Helper()
	b.check(chromedp.Do(b.ctx, chromedp.Navigate("http://"+b.site.Listen+"/console"+path)))
}

// click follows a link or presses a button, and waits for the next page.
func (b *tab) click(selector string) {
	b.Helper()
	_, err := chromedp.RunResponse(b.ctx, chromedp.Click(chromedp.CSS(selector)))
	if err != nil {
		b.Fatalf("%s: %v", selector, err)
	}
}

// text returns the text of an element as it is seen.
func (b *tab) text(selector string) string {
	b.Helper()
	text, err := chromedp.Run(b.ctx, chromedp.Text(chromedp.CSS(selector)))
	b.check(err)
	return text
}

// eval evaluates a script.
func eval[T any](b *tab, script string) T {
	b.Helper()
	value, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](script))
	b.check(err)
	return value
}

func (b *tab) wantText(selector, want string) {
	b.Helper()
	if got := b.text(selector); !strings.Contains(got, want) {
		b.Errorf("%s is %q, want %q in it", selector, got, want)
	}
}

// picture saves what is seen, for whoever runs the tests with TIMGUARD_PICTURES.
func (b *tab) picture(name string) {
	b.Helper()
	dir := os.Getenv("TIMGUARD_PICTURES")
	if dir == "" {
		return
	}
	shoot := chromedp.FullScreenshot(100)
	if eval[int](b, "document.documentElement.scrollHeight") > 5000 {
		shoot = chromedp.CaptureScreenshot()
	}
	png, err := chromedp.Run(b.ctx, shoot)
	b.check(err)
	b.check(os.WriteFile(filepath.Join(dir, name+".png"), png, 0o600))
}

// axe is the environment variable with the path of axe.min.js of axe-core.
const axe = "TIMGUARD_AXE"

// wantAccessible fails the test if axe-core finds something serious.
func (b *tab) wantAccessible(name string) {
	b.Helper()
	script, err := os.ReadFile(os.Getenv(axe))
	b.check(err)
	eval[any](b, string(script)+"\n;0")
	const run = `axe.run(document, {resultTypes: ["violations"]}).then((r) => r.violations
		.filter((v) => v.impact === "serious" || v.impact === "critical")
		.map((v) => v.id + ": " + v.nodes.slice(0, 3).map((n) => n.html + " " + n.failureSummary).join("; ")))`
	found, err := chromedp.Run(b.ctx, chromedp.Evaluate[[]string](run, chromedp.EvalAwaitPromise))
	b.check(err)
	for _, violation := range found {
		b.Errorf("%s: %s", name, violation)
	}
}

// populated starts a site with a bit of everything.
func populated(t *testing.T, b *guardtest.Backend) *guardtest.Site {
	t.Helper()
	s := guardtest.NewSite(t, withConsole(guardtest.Guard("on after deliver {\ncopy archive\n}", "on before forward", "backend "+b.Address(),
		"consumer archive {\nordered\nreverse_proxy 127.0.0.1:9\n}")))
	s.Options = "max_attempts 1"
	s.Start(t)
	for i := range 3 {
		guardtest.NewPoster(t, s.Listen).WantOK(t, fmt.Sprint(i))
	}
	if status, _ := guardtest.Get(t, http.MethodGet, "http://"+s.Listen+"/callback"); status != http.StatusMethodNotAllowed {
		t.Fatal(status)
	}
	s.WantState(t, outbox.Dead, 3)
	s.WantState(t, outbox.Delivered, 3)
	return s
}

// Each page fits on a phone and a large screen, in both languages and color schemes, is
// accessible, and asks no other host for anything.
func TestEndToEndDeliveryConsoleInABrowser(t *testing.T) {
	t.Parallel()
	s := populated(t, guardtest.NewBackend(t, guardtest.Accepts))
	id := s.Items(t)[0].ID
	pages := map[string]string{
		"overview": "/", "live": "/live", "filtered": "/live?reason=*&command=none", "deliveries": "/deliveries?state=dead", "none": "/deliveries?state=running",
		"delivery": fmt.Sprintf("/deliveries/%d", id), "payload": fmt.Sprintf("/deliveries/%d/payload", id),
		"confirm": "/deliveries/all/discard?state=dead",
	}
	for _, c := range []struct {
		language, title, scheme string
		width                   int64
	}{{"zh-CN", "概览", "light", 360}, {"en", "Overview", "dark", 360}, {"en", "Overview", "light", 1600}, {"zh-CN", "概览", "dark", 1280}} {
		t.Run(fmt.Sprintf("%s_%d", c.language, c.width), func(t *testing.T) {
			t.Parallel()
			b := newTab(t, s, c.language, c.width)
			call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: c.scheme}}})
			if os.Getenv(axe) == "" {
				if os.Getenv(requireBrowser) != "" {
					t.Error(axe + " is not set")
				}
				t.Log(axe + " is not set: accessibility is not checked")
			}
			for name, path := range pages {
				b.open(path)
				if path == "/" {
					if got := eval[string](b, "document.title"); got != c.title+" · timguard" {
						t.Errorf("the title is %q", got)
					}
				}
				if got := eval[string](b, "document.documentElement.lang"); got != c.language {
					t.Errorf("%s: the language is %q", name, got)
				}
				if wider := eval[int](b, "document.documentElement.scrollWidth - document.documentElement.clientWidth"); wider > 0 {
					t.Errorf("%s scrolls sideways by %d", name, wider)
				}
				b.picture(fmt.Sprintf("%s-%s-%d-%s", name, c.language, c.width, c.scheme))
				b.wantNoFaults()
				if os.Getenv(axe) != "" {
					b.wantAccessible(name)
				}
			}
		})
	}
}

func TestEndToEndDeliveryConsoleChangesInABrowser(t *testing.T) {
	t.Parallel()
	s := populated(t, guardtest.NewBackend(t, guardtest.Accepts))
	b := newTab(t, s, "en", 1280)
	b.open("/")
	b.click(`form[action$="/queues/pause"] input[value="archive"] ~ button`)
	b.wantText("main", "The queue is paused")
	b.wantText("main", "paused")
	time.Sleep(2500 * time.Millisecond) // until the workers have noticed

	b.open("/deliveries?state=dead")
	if rows := eval[int](b, "document.querySelectorAll('.rows tbody tr').length"); rows != 3 {
		t.Errorf("%d rows, want 3", rows)
	}
	b.click(".rows tbody a")
	b.wantText("main", "connection refused")
	if text := b.text("main"); strings.Contains(text, "MsgSeqList") {
		t.Error("the payload is shown before it is asked for")
	}
	b.click(`a[href*="/payload"]`)
	b.wantText("pre.payload", "MsgSeqList")
	b.click(`form[action$="/retry"] button`)
	b.wantText("main", "1 delivery is due again")
	s.WantState(t, outbox.Pending, 1)

	b.open("/deliveries?state=dead")
	b.click(`a[href*="/all/retry"]`)
	b.wantText("main", "2 deliveries become due")
	b.click(`main form button`)
	b.wantText("main", "2 deliveries are due again")
	s.WantState(t, outbox.Pending, 3)

	id := s.Items(t)[0].ID
	b.open("/deliveries?state=pending")
	b.click(".rows tbody a")
	b.click(`a[href$="/discard"]`)
	b.click(`main form button`)
	b.wantText("main", "1 delivery was discarded")
	s.WantState(t, outbox.Discarded, 1)
	b.open("/deliveries?state=pending&consumer=archive")
	b.click(`a[href*="/all/discard"]`)
	b.click(`main form button`)
	b.wantText("main", "2 deliveries were discarded")
	s.WantState(t, outbox.Discarded, 3)

	b.open("/")
	b.click(`form[action$="/queues/resume"] button`)
	b.wantText("main", "The queue goes on")
	b.open(fmt.Sprintf("/deliveries/%d", id))
	b.wantNoFaults()
}

// Calls appear as they come, and go on appearing after a reload of the configuration.
func TestEndToEndDeliveryConsoleLiveInABrowser(t *testing.T) {
	t.Parallel()
	s := guardtest.NewSite(t, withConsole(guardtest.Guard("on Group.CallbackAfterRecallMsg ack")))
	s.App = false
	s.Start(t)
	b := newTab(t, s, "en", 1280)
	p := guardtest.NewPoster(t, s.Listen)
	b.open("/live")
	rows := func() int { return eval[int](b, "document.querySelectorAll('#calls tbody tr').length") }
	p.WantOK(t, "one")
	guardtest.Eventually(t, 10*time.Second, "a call appears", func() bool { return rows() == 1 })
	b.wantText("#calls tbody", callback.RecallCommand)
	b.wantText("#calls tbody", "answered OK")
	b.wantText("#live-state", "Live")

	b.check(chromedp.Do(b.ctx, chromedp.Click(chromedp.CSS("#live-hold"))))
	p.WantOK(t, "two")
	guardtest.Eventually(t, 10*time.Second, "it is said that a call waits", func() bool { return strings.Contains(b.text("#live-state"), "Held: 1 new") })
	if n := rows(); n != 1 {
		t.Errorf("%d rows while held", n)
	}
	b.check(chromedp.Do(b.ctx, chromedp.Click(chromedp.CSS("#live-hold"))))
	guardtest.Eventually(t, 10*time.Second, "it appears", func() bool { return rows() == 2 })
	b.wantNoFaults()

	s.Global = "grace_period 6s"
	s.Reload(t)
	p = guardtest.NewPoster(t, s.Listen) // the connection of the one before is closed
	p.WantOK(t, "three")
	guardtest.Eventually(t, 20*time.Second, "a call after the reload appears", func() bool { return rows() == 3 })

	b.open("/live?reason=*")
	p.WantOK(t, "four")
	if status, _, err := p.PostQuery("/callback", guardtest.Query(guardtest.App, "%3Cb%3E%E2%80%AE", "Sign=x&RequestTime=1"), nil); err != nil || status == http.StatusOK {
		t.Fatal(status, err)
	}
	guardtest.Eventually(t, 10*time.Second, "only what is refused appears", func() bool { return rows() == 1 })
	b.wantText("#calls tbody", "refused · stale")
}

// Everything can be reached with the keyboard, and it is seen where it is.
func TestEndToEndDeliveryConsoleByKeyboard(t *testing.T) {
	t.Parallel()
	s := populated(t, guardtest.NewBackend(t, guardtest.Accepts))
	b := newTab(t, s, "en", 1280)
	b.open("/")
	press := func(key string) {
		t.Helper()
		b.check(chromedp.Do(b.ctx, chromedp.KeyEvent(key)))
	}
	press(kb.Tab)
	if got := eval[string](b, "document.activeElement.className"); got != "skip" {
		t.Fatalf("the first thing to reach is %q, want the link to the content", got)
	}
	press(kb.Enter)
	if got := eval[string](b, "document.activeElement.id"); got != "content" {
		t.Errorf("the link leads to %q", got)
	}
	// From the content to the first button that pauses a queue.
	const isPause = `document.activeElement.matches("form[action$='/queues/pause'] button")`
	for range 30 {
		press(kb.Tab)
		const seen = `(() => { const e = document.activeElement, s = getComputedStyle(e); return e === document.body || (s.outlineStyle !== "none" && parseFloat(s.outlineWidth) >= 2) })()`
		if !eval[bool](b, seen) {
			t.Errorf("the focus on %s is not seen", eval[string](b, "document.activeElement.outerHTML"))
		}
		if eval[bool](b, isPause) {
			break
		}
	}
	if !eval[bool](b, isPause) {
		t.Fatal("no button that pauses a queue is reached")
	}
	_, err := chromedp.RunResponse(b.ctx, chromedp.KeyEvent(kb.Enter))
	b.check(err)
	b.wantText("main", "The queue is paused")
	b.wantNoFaults()
}

// The page works without JavaScript, but for calls as they come.
func TestEndToEndDeliveryConsoleWithoutJavaScript(t *testing.T) {
	t.Parallel()
	s := populated(t, guardtest.NewBackend(t, guardtest.Accepts))
	b := newTab(t, s, "en", 1280)
	call(b, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
	b.open("/live")
	b.wantText("main", "Without JavaScript, this table shows the last 200 calls")
	b.wantText("#calls", callback.RecallCommand)
	b.wantText("footer", "Times are UTC")
	b.open("/deliveries?state=dead")
	b.click(`a[href*="/all/retry"]`)
	b.click(`main form button`)
	b.wantText("main", "3 deliveries are due again")
	b.wantNoFaults()
}
