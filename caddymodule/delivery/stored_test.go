// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"bytes"
	"io"
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
	b := guardtest.NewBackend(t, guardtest.Accepts)
	s := guardtest.NewSite(t, guardtest.Guard("app "+otherApp+" "+guardtest.Token, "on after deliver", "backend "+b.Address()))
	s.Start(t)
	p := guardtest.NewPoster(t, s.Listen)
	post := func(host, path, app string) {
		t.Helper()
		q := guardtest.Query(app, callback.RecallCommand, guardtest.Signed(guardtest.Token, time.Now()))
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.Base+path+"?"+q, bytes.NewReader(guardtest.Event("same")))
		if err != nil {
			t.Fatal(err)
		}
		r.Host = host
		resp, err := p.Client.Do(r)
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
		if stored := len(s.Items(t)); stored != n+1 {
			t.Errorf("%d are stored after %v, want %d", stored, tt, n+1)
		}
	}
	s.WantState(t, outbox.Delivered, 4)
}

func TestEndToEndDeliveryStoresNoCredentials(t *testing.T) {
	t.Parallel()
	b := guardtest.NewBackend(t, guardtest.Answers(http.StatusServiceUnavailable, ""))
	s := guardtest.NewSite(t, guardtest.Delivering(b))
	s.Start(t)
	p := guardtest.NewPoster(t, s.Listen)
	q := guardtest.Query(guardtest.App, callback.RecallCommand, guardtest.Signed(guardtest.Token, time.Now()))
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.Base+"/callback?"+q, bytes.NewReader(guardtest.Event("credentials")))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Kept", "kept")
	for _, name := range unstored[:3] {
		r.Header.Set(name, "a=secret")
	}
	resp, err := p.Client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	item := s.WantError(t, "503")
	header := http.Header(item.Callback.Header)
	if header.Get("X-Kept") != "kept" {
		t.Errorf("the headers are %v, want X-Kept among them", header)
	}
	for _, name := range []string{"Authorization", "Cookie", "Proxy-Authorization"} {
		if _, stored := header[name]; stored {
			t.Errorf("%s is stored", name)
		}
	}
	wantNoAuthStored(t, s)
}

// What is stored means one thing, like what is forwarded, whichever rule stores it: no header
// of the caller changes how a backend reads the payload, or passes for one of a delivery.
func TestEndToEndDeliveryMeansOneThing(t *testing.T) {
	t.Parallel()
	own, down, archive := guardtest.NewBackend(t, guardtest.Accepts), guardtest.NewBackend(t, guardtest.Accepts), guardtest.NewBackend(t, guardtest.Accepts)
	down.Will(func(b *guardtest.Backend) http.HandlerFunc {
		accept := guardtest.Accepts(b)
		return func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Tim-Delivery-Attempt") == "" {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			accept(w, r)
		}
	})
	rules := map[string]struct {
		rule    string
		backend *guardtest.Backend
		arrives []*guardtest.Backend
	}{
		"ack-copies":     {"ack {\ncopy archive\n}", own, []*guardtest.Backend{archive}},
		"forward-copies": {"forward {\ncopy archive\n}", own, []*guardtest.Backend{own, archive}},
		"deliver":        {"deliver", own, []*guardtest.Backend{own}},
		"deliver-copies": {"deliver {\ncopy archive\n}", own, []*guardtest.Backend{own, archive}},
		"fallback":       {"forward {\nfallback deliver\n}", down, []*guardtest.Backend{down}},
	}
	directives := ""
	for name, tt := range rules {
		directives += "handle_path /" + name + "/* {\n" + guardtest.Guard("name "+name, "strip_auth", "on after "+tt.rule,
			"backend "+tt.backend.Address(), "consumer archive "+archive.Address()) + "\n}\n"
	}
	s := guardtest.NewSite(t, directives)
	s.Start(t)
	p := guardtest.NewPoster(t, s.Listen)
	forbidden := []string{
		"Cookie", "Te", "Trailer", "Upgrade", "X-Http-Method", "X-Http-Method-Override", "X-Method-Override", "X-Original-Url", "X-Rewrite-Url",
		"X_HTTP_Method_Override", "Tim_Delivery_Attempt", "TIM-DELIVERY_CONSUMER", "Tim_event-Id",
	}
	for name, tt := range rules {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.Base+"/"+name+"/callback?"+
			guardtest.Query(guardtest.App, callback.RecallCommand, guardtest.Signed(guardtest.Token, time.Now())), bytes.NewReader(guardtest.Event(name)))
		if err != nil {
			t.Fatal(err)
		}
		for _, header := range forbidden {
			r.Header[header] = []string{"7"}
		}
		for header, value := range map[string]string{
			"Content-Type": "application/x-www-form-urlencoded", "X-Kept": "kept", "Connection": "Upgrade",
			"Tim-Delivery-Attempt": "7", "Tim-Delivery-Consumer": "other", "Tim-Event-Id": "7",
		} {
			r.Header.Set(header, value)
		}
		r.Trailer = nil
		delete(r.Header, "Trailer")
		resp, err := p.Client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if answer, err := io.ReadAll(resp.Body); err != nil || string(answer) != guardtest.OKJSON {
			t.Fatalf("%s: %s %s, %v", name, resp.Status, answer, err)
		}
		_ = resp.Body.Close()
		for _, b := range tt.arrives {
			a := b.One(t, guardtest.Event(name))
			if a.Header.Get("Content-Type") != "application/json" || a.Header.Get("X-Kept") != "kept" || a.Method != http.MethodPost {
				t.Errorf("%s: %s with %v", name, a.Method, a.Header)
			}
			for _, header := range forbidden {
				if values, ok := a.Header[http.CanonicalHeaderKey(header)]; ok {
					t.Errorf("%s: %s arrives as %v", name, header, values)
				}
			}
			attempt, consumer, id := a.Header.Get("Tim-Delivery-Attempt"), a.Header.Get("Tim-Delivery-Consumer"), a.Header.Get("Tim-Event-Id")
			if attempt != "" && attempt != "1" || consumer != "" && consumer != "archive" || id == "7" {
				t.Errorf("%s: a caller passes for a delivery: %q %q %q", name, attempt, consumer, id)
			}
			if strings.Contains(a.RequestURI, "Sign=") || strings.Contains(a.RequestURI, "RequestTime=") {
				t.Errorf("%s: %s in spite of strip_auth", name, a.RequestURI)
			}
		}
	}
}

// What the guard lets in can be stored, whatever characters it has: a callback must not be
// refused only because the backend is down.
func TestEndToEndDeliveryStoresWhatIsLetIn(t *testing.T) {
	t.Parallel()
	const command = "Group.CallbackAfterGroupFull"
	eachStore(t, func(t *testing.T, option string) {
		t.Helper()
		b := guardtest.NewBackend(t, guardtest.Accepts)
		s := guardtest.NewSite(t, guardtest.Delivering(b))
		s.Options = option
		s.Start(t)
		p := guardtest.NewPoster(t, s.Listen)
		for _, body := range []string{
			`{"CallbackCommand":"` + command + `","GroupId":"a\u0000b","EventTime":1}`,
			`{"CallbackCommand":"` + command + `","GroupId":"\u0000","EventTime":2,"x":"\u0000"}`,
			`{"CallbackCommand":"` + command + `","GroupId":"\u202e\ud83d\ude00` + "\u2028" + `","EventTime":3}`,
		} {
			q := "x=\xff%00&" + guardtest.Query(guardtest.App, command, guardtest.Signed(guardtest.Token, time.Now()))
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.Base+"/callback?"+q, strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			r.Header["X-Latin"] = []string{"caf\xe9"}
			resp, err := p.Client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				t.Errorf("%q: %s", body, resp.Status)
			}
			if got := b.One(t, []byte(body)); got.Header.Get("Tim-Delivery-Attempt") != "1" || !strings.HasPrefix(got.RequestURI, "/callback?x=%FF%00&") {
				t.Errorf("%q was forwarded, not delivered: %s", body, got.RequestURI)
			}
		}
		s.WantState(t, outbox.Delivered, 3)
	})
}
