// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package console

import (
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/timguard/timguard/caddymodule/internal/guardtest"
	"github.com/timguard/timguard/caddymodule/outbox"
)

const (
	operator = "operator"
	password = "hiccup"
	// passwordHash is bcrypt's of the password.
	passwordHash = "$2a$04$3JU1nf81JMr5.ZzusrRLdehWX2Xph5E256u3T0T3nqDS3bFrxdhxq"
)

// The console is on the same site as the guard, behind basic_auth.
func TestEndToEndDeliveryConsole(t *testing.T) {
	t.Parallel()
	for _, store := range []string{"sqlite", "postgres"} {
		t.Run(store, func(t *testing.T) {
			t.Parallel()
			b := guardtest.NewBackend(t, guardtest.Answers(http.StatusInternalServerError, ""))
			s := guardtest.NewSite(t, "handle /deliveries* {\nbasic_auth {\n"+operator+" "+passwordHash+"\n}\ntim_console /deliveries\n}\nhandle {\n"+guardtest.Delivering(b)+"\n}")
			s.Options = "max_attempts 1"
			if store == "postgres" {
				s.Options += "\nstore postgres " + guardtest.PostgresDSN(t, "")
			}
			s.Start(t)
			guardtest.NewPoster(t, s.Listen).WantOK(t, "console")
			s.WantState(t, outbox.Dead, 1)

			for _, path := range []string{"/deliveries", "/deliveries/", "/deliveries/api/jobs?state=discarded"} {
				if status, body := guardtest.Get(t, http.MethodGet, "http://"+s.Listen+path); status != http.StatusUnauthorized {
					t.Errorf("%s without a password: %d %s", path, status, body)
				}
			}
			for path, want := range map[string]string{
				"/deliveries/":                         "/deliveries/assets/", // assets are under the prefix
				"/deliveries/api/jobs?state=discarded": callbackOf("console"),
				"/deliveries/api/states":               `"discarded"`,
				"/deliveries/api/queues":               `"default"`,
			} {
				if status, body := console(t, s, http.MethodGet, path, ""); status != http.StatusOK || !strings.Contains(body, want) {
					t.Errorf("%s: %d, without %s in\n%s", path, status, want, body)
				}
			}

			b.Will(guardtest.Accepts)
			_, body := console(t, s, http.MethodGet, "/deliveries/api/jobs?state=discarded", "")
			var jobs struct {
				Data []struct {
					ID json.Number `json:"id"`
				} `json:"data"`
			}
			if err := json.Unmarshal([]byte(body), &jobs); err != nil || len(jobs.Data) != 1 {
				t.Fatalf("%s: %v", body, err)
			}
			if status, body := console(t, s, http.MethodPost, "/deliveries/api/jobs/retry", `{"ids":["`+jobs.Data[0].ID.String()+`"]}`); status != http.StatusOK {
				t.Fatalf("retry: %d %s", status, body)
			}
			b.One(t, guardtest.Event("console"))
			s.WantState(t, outbox.Delivered, 1)
		})
	}
}

// callbackOf returns text that identifies the recall with the id in a job's arguments.
func callbackOf(id string) string { return "é-" + id }

func console(t *testing.T, s *guardtest.Site, method, path, body string) (status int, answer string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+s.Listen+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth(operator, password)
	req.Header.Set("Content-Type", "application/json")
	return guardtest.AnswerTo(t, req)
}

// Requests outside of the prefix are passed on, even if their path begins with it.
func TestEndToEndDeliveryConsoleLeavesOtherPathsAlone(t *testing.T) {
	t.Parallel()
	b := guardtest.NewBackend(t, guardtest.Answers(http.StatusOK, "other"))
	s := guardtest.NewSite(t, "tim_console /deliveries\nreverse_proxy "+b.Address())
	s.Start(t)
	for path, other := range map[string]bool{"/": true, "/deliveriesx": true, "/x/deliveries": true, "/deliveries/": false, "/deliveries/api/states": false} {
		if status, body := guardtest.Get(t, http.MethodGet, "http://"+s.Listen+path); status != http.StatusOK || (body == "other") != other {
			t.Errorf("%s: %d %.60s", path, status, body)
		}
	}
}

// A store that cannot be opened makes the page unavailable, until it can.
func TestEndToEndDeliveryConsoleWaitsForTheStore(t *testing.T) {
	t.Parallel()
	b := guardtest.NewBackend(t, guardtest.Accepts)
	s := guardtest.NewSite(t, "handle /deliveries* {\ntim_console /deliveries\n}\nhandle {\n"+guardtest.Delivering(b)+"\n}")
	if err := os.Mkdir(s.StorePath(), 0o700); err != nil {
		t.Fatal(err)
	}
	s.Start(t)
	target := "http://" + s.Listen + "/deliveries/api/states"
	if status, body := guardtest.Get(t, http.MethodGet, target); status != http.StatusServiceUnavailable {
		t.Errorf("without the store: %d %s, want 503", status, body)
	}
	if err := os.Remove(s.StorePath()); err != nil {
		t.Fatal(err)
	}
	guardtest.Eventually(t, 10*time.Second, "the page is there", func() bool {
		status, body := guardtest.Get(t, http.MethodGet, target)
		return status == http.StatusOK && strings.Contains(body, `"completed"`)
	})
}
