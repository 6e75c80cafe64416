// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/timguard/timguard/caddymodule/internal/guardtest"
	"github.com/timguard/timguard/caddymodule/outbox"
)

func init() {
	caddy.RegisterModule(meddler{})
	httpcaddyfile.RegisterHandlerDirective("test_meddler", func(httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
		return meddler{}, nil
	})
}

// meddler is a handler that ignores the deadline of its request, and goes on changing it.
// Deliveries it lets through.
type meddler struct{}

// CaddyModule returns the Caddy module information.
func (meddler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.test_meddler", New: func() caddy.Module { return meddler{} }}
}

// meddles is longer than the rule's deadline in the test, and than storing takes.
const meddles = 1500 * time.Millisecond

// ServeHTTP implements [caddyhttp.MiddlewareHandler].
func (meddler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if r.Header.Get("Tim-Delivery-Attempt") != "" {
		return next.ServeHTTP(w, r)
	}
	for begun, n := time.Now(), 0; time.Since(begun) < meddles; n++ {
		value := fmt.Sprint("meddled-", n)
		caddyhttp.SetVar(r.Context(), "root", value)
		caddyhttp.SetVar(r.Context(), fmt.Sprint("var-", n%100), value)
		caddyhttp.SetVar(r.Context(), caddyhttp.ClientIPVarKey, value)
		r.Header.Set("X-Note", value)
		r.Header.Del("Content-Type")
		r.URL.Path, r.URL.RawQuery, r.Host, r.Method = "/"+value, value, value, http.MethodPut
		time.Sleep(100 * time.Microsecond)
	}
	return nil
}

// What `fallback deliver` stores while a handler of the backend is still running is the
// callback as it was received, whatever that handler does with the request. The race
// detector says if the two touch the same memory.
func TestEndToEndDeliveryStoresWhatCameWhileAHandlerChangesIt(t *testing.T) {
	t.Parallel()
	b := guardtest.NewBackend(t, guardtest.Accepts)
	s := guardtest.NewSite(t, "root * /srv/site\n"+guardtest.Guard("on after forward {\ndeadline 200ms\nfallback deliver\n}",
		"backend {\nroute {\ntest_meddler\nreverse_proxy "+b.Address()+" {\nheader_up X-Root {http.vars.root}\n}\n}\n}"))
	s.Start(t).WantLog(t, "the store is open", nil)
	p := guardtest.NewPoster(t, s.Listen)
	p.Header = http.Header{"X-Note": {"original"}}
	const callbacks = 3
	var posts sync.WaitGroup
	for i := range callbacks {
		posts.Go(func() { p.WantOK(t, fmt.Sprint("meddled-", i)) })
	}
	posts.Wait()
	s.WantState(t, outbox.Delivered, callbacks)
	for i := range callbacks {
		a := b.One(t, guardtest.Event(fmt.Sprint("meddled-", i)))
		if err := a.IsDelivery("/callback", guardtest.Token); err != nil {
			t.Error(err)
		}
		if a.Method != http.MethodPost || a.Header.Get("X-Note") != "original" || a.Header.Get("X-Root") != "/srv/site" {
			t.Errorf("%s with %v", a.Method, a.Header)
		}
	}
}
