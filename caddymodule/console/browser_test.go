// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package console

import (
	"context"
	"encoding/base64"
	"fmt"
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

	"github.com/timguard/timguard/caddymodule/internal/guardtest"
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

// click follows a link or presses a button, waits for the next page, and returns its status.
func (b *tab) click(selector string) int64 {
	b.Helper()
	response, err := chromedp.RunResponse(b.ctx, chromedp.Click(chromedp.CSS(selector)))
	if err != nil {
		b.Fatalf("%s: %v", selector, err)
	}
	return response.Status
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
