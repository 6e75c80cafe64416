// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"bytes"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/timguard/timguard/caddymodule/callback"
	"github.com/timguard/timguard/caddymodule/internal/guardtest"
	"github.com/timguard/timguard/caddymodule/outbox"
)

// The same payload with another path, host or app is another event, so posting it
// elsewhere first cannot suppress the genuine one.
func TestEndToEndDeliveryOfTheSamePayloadElsewhere(t *testing.T) {
	t.Parallel()
	const otherApp = "1400000001"
	b := newUnsteady(t, accepts)
	s := newDeliverySite(t, guardtest.Guard("app "+otherApp+" "+guardtest.Token, "on after deliver")+"\nreverse_proxy "+b.address())
	s.start(t)
	p := newPoster(t, s.listen)
	post := func(host, path, app string) {
		t.Helper()
		q := guardtest.Query(app, callback.RecallCommand, guardtest.Signed(guardtest.Token, time.Now()))
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.base+path+"?"+q, bytes.NewReader(event("same")))
		if err != nil {
			t.Fatal(err)
		}
		r.Host = host
		resp, err := p.client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Errorf("%s%s of app %s: %s", host, path, app, resp.Status)
		}
	}
	for n, tt := range []struct{ host, path, app string }{
		{"127.0.0.1", "/elsewhere", guardtest.App},
		{"127.0.0.1", "/callback", otherApp},
		{"127.0.0.1:1", "/callback", guardtest.App},
		{"127.0.0.1", "/callback", guardtest.App},
	} {
		post(tt.host, tt.path, tt.app)
		post(tt.host, tt.path, tt.app) // a duplicate
		if stored := len(s.items(t)); stored != n+1 {
			t.Errorf("%d are stored after %v, want %d", stored, tt, n+1)
		}
	}
	s.wantState(t, outbox.Delivered, 4)
}

func TestEndToEndDeliveryStoresNoCredentials(t *testing.T) {
	t.Parallel()
	b := newUnsteady(t, answers(http.StatusServiceUnavailable, ""))
	s := newDeliverySite(t, delivering(b))
	s.start(t)
	p := newPoster(t, s.listen)
	q := guardtest.Query(guardtest.App, callback.RecallCommand, guardtest.Signed(guardtest.Token, time.Now()))
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.base+"/callback?"+q, bytes.NewReader(event("credentials")))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Kept", "kept")
	for _, name := range unstored[:3] {
		r.Header.Set(name, "a=secret")
	}
	resp, err := p.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	item := s.wantError(t, "503")
	header := http.Header(item.Callback.Header)
	if header.Get("X-Kept") != "kept" {
		t.Errorf("the headers are %v, want X-Kept among them", header)
	}
	for _, name := range []string{"Authorization", "Cookie", "Proxy-Authorization"} {
		if _, stored := header[name]; stored {
			t.Errorf("%s is stored", name)
		}
	}
	s.wantNoAuthStored(t)
}

// What the guard lets in can be stored, whatever characters it has: a callback must not be
// refused only because the backend is down.
func TestEndToEndDeliveryStoresWhatIsLetIn(t *testing.T) {
	t.Parallel()
	const command = "Group.CallbackAfterGroupFull"
	eachStore(t, func(t *testing.T, option string) {
		t.Helper()
		b := newUnsteady(t, accepts)
		s := newDeliverySite(t, delivering(b))
		s.options = option
		s.start(t)
		p := newPoster(t, s.listen)
		for _, body := range []string{
			`{"CallbackCommand":"` + command + `","GroupId":"a\u0000b","EventTime":1}`,
			`{"CallbackCommand":"` + command + `","GroupId":"\u0000","EventTime":2,"x":"\u0000"}`,
			`{"CallbackCommand":"` + command + `","GroupId":"\u202e\ud83d\ude00` + "\u2028" + `","EventTime":3}`,
		} {
			q := "x=\xff%00&" + guardtest.Query(guardtest.App, command, guardtest.Signed(guardtest.Token, time.Now()))
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.base+"/callback?"+q, strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			r.Header["X-Latin"] = []string{"caf\xe9"}
			resp, err := p.client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				t.Errorf("%q: %s", body, resp.Status)
			}
			if got := b.one(t, []byte(body)); got.Header.Get("Tim-Delivery-Attempt") != "1" || !strings.HasPrefix(got.RequestURI, "/callback?x=%FF%00&") {
				t.Errorf("%q was forwarded, not delivered: %s", body, got.RequestURI)
			}
		}
		s.wantState(t, outbox.Delivered, 3)
	})
}
