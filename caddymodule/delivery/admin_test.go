// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/timguard/timguard/caddymodule/callback"
	"github.com/timguard/timguard/caddymodule/internal/guardtest"
	"github.com/timguard/timguard/caddymodule/outbox"
)

func TestEndToEndDeliveryAdminAPI(t *testing.T) {
	t.Parallel()
	b := guardtest.NewBackend(t, guardtest.Answers(http.StatusInternalServerError, ""))
	s := guardtest.NewSite(t, guardtest.Delivering(b, "name front"))
	s.Options = "max_attempts 1"
	s.Start(t)
	p := guardtest.NewPoster(t, s.Listen)
	for i := range 3 {
		p.WantOK(t, fmt.Sprint("admin", i))
	}
	s.WantState(t, outbox.Dead, 3)

	status := s.Status(t)
	if status.Store != "sqlite" || len(status.Guards) != 1 || status.Guards[0].Name != "front" || status.Guards[0].Total.Actions["deliver"] == 0 || len(status.Deliveries) != len(outbox.States()) || status.OldestAgeSeconds != 0 {
		t.Errorf("status %+v", status)
	}
	items := s.Items(t)
	if len(items) != 3 || items[0].ID < items[1].ID {
		t.Fatalf("items %+v, want 3, the newest first", items)
	}
	newest := items[0]
	if newest.Callback.Body != "" {
		t.Error("a list has bodies")
	}
	if c := newest.Callback; c.Command != callback.RecallCommand || c.SdkAppID != guardtest.App || c.Guard != "front" || c.Host != "127.0.0.1" || !c.Signed ||
		newest.State != outbox.Dead || len(newest.Failures) != 1 {
		t.Errorf("item %+v", newest)
	}

	const list = "/tim_callback/deliveries"
	one := list + "/" + strconv.FormatInt(newest.ID, 10)
	for _, tt := range []struct {
		method, path string
		status       int
		has          string
	}{
		{http.MethodGet, list + "?state=dead&limit=2", http.StatusOK, `"state":"dead"`},
		{http.MethodGet, list + "?state=pending", http.StatusOK, "[]"},
		{http.MethodGet, list + "?before=" + strconv.FormatInt(items[2].ID, 10), http.StatusOK, "[]"},
		{http.MethodGet, one, http.StatusOK, `"state":"dead"`},
		{http.MethodGet, "/tim_callback/", http.StatusNotFound, "error"},
		{http.MethodGet, "/tim_callback/other", http.StatusNotFound, "error"},
		{http.MethodGet, list + "/999999", http.StatusNotFound, "no such delivery"},
		{http.MethodPost, list + "/999999/retry", http.StatusNotFound, "no such delivery"},
		{http.MethodDelete, list + "/999999", http.StatusNotFound, "no such delivery"},
		{http.MethodPost, one + "/other", http.StatusNotFound, "error"},
		{http.MethodPost, "/tim_callback/status", http.StatusMethodNotAllowed, "want GET"},
		{http.MethodDelete, list, http.StatusBadRequest, "no filter"},
		{http.MethodPost, list + "/retry", http.StatusBadRequest, "no filter"},
		{http.MethodPut, list, http.StatusMethodNotAllowed, "want GET or DELETE"},
		{http.MethodGet, list + "?stat=dead", http.StatusBadRequest, "unknown filter"},
		{http.MethodPost, one, http.StatusMethodNotAllowed, "want GET or DELETE"},
		{http.MethodGet, one + "/retry", http.StatusMethodNotAllowed, "want POST"},
		{http.MethodGet, list + "?state=lost", http.StatusBadRequest, "want one of"},
		{http.MethodGet, list + "?state=", http.StatusBadRequest, "the filter state is empty"},
		{http.MethodDelete, list + "?state=dead&state=delivered", http.StatusBadRequest, "the filter state is given twice"},
		{http.MethodDelete, list + "?state=dead;limit=1", http.StatusBadRequest, "query: "},
		{http.MethodDelete, list + "?state=%zz", http.StatusBadRequest, "query: "},
		{http.MethodDelete, list + "?guard=other", http.StatusBadRequest, `no queue of guard \"other\" and consumer \"\"; the queues are: front`},
		{http.MethodGet, list + "?consumer=archive", http.StatusBadRequest, "the queues are: front"},
		{http.MethodGet, list + "?limit=0", http.StatusBadRequest, "from 1 to 1000"},
		{http.MethodGet, list + "?limit=1001", http.StatusBadRequest, "from 1 to 1000"},
		{http.MethodGet, list + "?before=x", http.StatusBadRequest, "before"},
		{http.MethodGet, list + "/x", http.StatusBadRequest, "is not the id"},
	} {
		if code, body := guardtest.Get(t, tt.method, "http://"+s.Admin+tt.path); code != tt.status || !strings.Contains(body, tt.has) {
			t.Errorf("%s %s: %d %s, want %d and %q", tt.method, tt.path, code, body, tt.status, tt.has)
		}
	}

	b.Will(guardtest.Accepts)
	if code, body := guardtest.Get(t, http.MethodPost, "http://"+s.Admin+one+"/retry"); code != http.StatusOK {
		t.Fatalf("retry: %d %s", code, body)
	}
	b.One(t, guardtest.Event("admin2"))
	s.WantState(t, outbox.Delivered, 1)
	if code, body := guardtest.Get(t, http.MethodDelete, "http://"+s.Admin+one); code != http.StatusConflict || !strings.Contains(body, "it is delivered") {
		t.Errorf("discarding what is delivered: %d %s, want 409", code, body)
	}
}

func TestEndToEndDeliveryAdminAPIWithoutDeliveries(t *testing.T) {
	t.Parallel()
	s := guardtest.NewSite(t, guardtest.Guard()+"\nrespond 200")
	s.App = false
	s.Start(t)
	code, body := guardtest.Get(t, http.MethodGet, "http://"+s.Admin+"/tim_callback/status")
	if code != http.StatusOK || !strings.Contains(body, `{"guards":[{"name":"default","mode":"enforce",`) || strings.Contains(body, `"store"`) {
		t.Errorf("status: %d %s, want the guard, and no store", code, body)
	}
	if output := s.CLI(t, true, "list"); !strings.Contains(output, "does not store callbacks") {
		t.Errorf("deliveries list prints %s", output)
	}
}

func TestEndToEndDeliveryCommandLine(t *testing.T) {
	t.Parallel()
	b := guardtest.NewBackend(t, guardtest.Answers(http.StatusInternalServerError, ""))
	s := guardtest.NewSite(t, guardtest.Delivering(b))
	s.Start(t)
	guardtest.NewPoster(t, s.Listen).WantOK(t, "cli")
	item := s.WantError(t, "the status 500")
	id := strconv.FormatInt(item.ID, 10)
	for _, tt := range []struct {
		fails     bool
		arguments []string
		has       []string
	}{
		{false, []string{"list"}, []string{"ID ", "LAST ERROR", "Group.CallbackAfterRecallMsg", guardtest.App, `"a\"<%> b"`, "the answer has the status 500"}},
		{false, []string{"list", "--state", "dead"}, []string{"ID "}},
		{false, []string{"list", "--json"}, []string{`[{"id":`}},
		{true, []string{"list", "--state", "lost"}, []string{"want one of"}},
		{false, []string{"show", id}, []string{"attempt 1 at ", "POST /callback?CallbackCommand=", string(guardtest.Event("cli"))}},
		{true, []string{"show", "999999"}, []string{"no such delivery"}},
		{true, []string{"show", "x"}, []string{"is not the id"}},
		{true, []string{"show"}, []string{"arg"}},
	} {
		output := s.CLI(t, tt.fails, tt.arguments...)
		for _, text := range tt.has {
			if !strings.Contains(output, text) {
				t.Errorf("%v prints\n%s\nwithout %q", tt.arguments, output, text)
			}
		}
	}
	guardtest.Eventually(t, 20*time.Second, "it is discarded, between two attempts", func() bool {
		output, err := guardtest.Timguard(s.Dir, "tim-callback", "deliveries", "discard", id, "--address", s.Admin).CombinedOutput()
		if err != nil && !strings.Contains(string(output), "it is running") {
			t.Fatalf("%v: %s", err, output)
		}
		return err == nil && strings.Contains(string(output), "discarded")
	})
	if got := s.Status(t).Deliveries[outbox.Discarded]; got != 1 {
		t.Errorf("%d are discarded, want 1", got)
	}
	b.Will(guardtest.Accepts)
	var retried outbox.Delivery
	if err := json.Unmarshal([]byte(s.CLI(t, false, "retry", id, "--json")), &retried); err != nil || retried.ID != item.ID {
		t.Errorf("retry printed %+v, %v", retried, err)
	}
	b.One(t, guardtest.Event("cli"))
	s.WantState(t, outbox.Delivered, 1)
}

// Filters select several deliveries, and no others.
func TestEndToEndDeliveryFiltersSelect(t *testing.T) {
	t.Parallel()
	b := guardtest.NewBackend(t, guardtest.Answers(http.StatusInternalServerError, ""))
	s := guardtest.NewSite(t, "handle /a {\n"+guardtest.Delivering(b, "name a")+"\n}\nhandle {\n"+guardtest.Delivering(b, "name b")+"\n}")
	s.Options = "max_attempts 1"
	s.Start(t)
	p := guardtest.NewPoster(t, s.Listen)
	for i := range 4 {
		path := []string{"/a", "/callback"}[i%2]
		if _, answer, err := p.Post(path, callback.RecallCommand, guardtest.Event(fmt.Sprint("many", i))); err != nil || answer != guardtest.OKJSON {
			t.Fatal(answer, err)
		}
	}
	s.WantState(t, outbox.Dead, 4)
	for filter, want := range map[string]int{
		"state=dead": 4, "guard=a": 2, "guard=a&state=delivered": 0, "consumer=-": 4, "consumer=-&guard=b": 2,
		"command=" + callback.RecallCommand: 4, "command=State.StateChange": 0, "since=1h": 4, "limit=3": 3, "before=3": 2,
		"since=" + time.Now().Add(time.Hour).UTC().Format(time.RFC3339): 0,
	} {
		var items []outbox.Delivery
		if code, body := guardtest.Get(t, http.MethodGet, "http://"+s.Admin+"/tim_callback/deliveries?"+filter); code != http.StatusOK || json.Unmarshal([]byte(body), &items) != nil || len(items) != want {
			t.Errorf("%s selects %d: %d %s, want %d", filter, len(items), code, body, want)
		}
	}
	b.Will(guardtest.Accepts)
	if text := s.CLI(t, false, "retry", "--guard", "a", "--state", "dead"); !strings.Contains(text, "2 retried") {
		t.Errorf("retry prints %s", text)
	}
	s.WantState(t, outbox.Delivered, 2)
	if text := s.CLI(t, false, "discard", "--state", "dead"); !strings.Contains(text, "2 discarded") {
		t.Errorf("discard prints %s", text)
	}
	s.WantState(t, outbox.Dead, 0)
	for i, want := range []int{1, 0, 1, 0} {
		if n := b.Times(guardtest.Event(fmt.Sprint("many", i))); n != want {
			t.Errorf("callback %d of guard %c arrived %d times, want %d", i, "ab"[i%2], n, want)
		}
	}
	if text := s.CLI(t, true, "retry"); !strings.Contains(text, "no filter") {
		t.Errorf("retry of nothing prints %s", text)
	}
	if text := s.CLI(t, true, "retry", "1", "--state", "dead"); !strings.Contains(text, "not both") {
		t.Errorf("retry of both prints %s", text)
	}
}

// The command uses the same admin API as reload, and prints its address.
func TestEndToEndDeliveryCommandLineFindsItsServer(t *testing.T) {
	t.Parallel()
	s := guardtest.NewSite(t, guardtest.Guard("on after deliver", "backend 127.0.0.1:1"))
	s.Start(t)
	for name, tt := range map[string]struct {
		dir  string
		args []string
	}{
		"the Caddyfile of the directory": {s.Dir, nil},
		"the configuration named":        {t.TempDir(), []string{"--config", filepath.Join(s.Dir, "Caddyfile")}},
	} {
		cmd := guardtest.Timguard(s.Dir, append([]string{"tim-callback", "deliveries", "status"}, tt.args...)...)
		cmd.Dir = tt.dir
		output, err := cmd.CombinedOutput()
		if err != nil || !strings.HasPrefix(string(output), "asking "+s.Admin+" (from ") || !strings.Contains(string(output), "store sqlite at ") {
			t.Errorf("%s: %v\n%s", name, err, output)
		}
	}
	cmd := guardtest.Timguard(s.Dir, "tim-callback", "deliveries", "status", "--address", guardtest.FreePort(t))
	if output, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(output), "connection refused") {
		t.Errorf("nobody listens: %v\n%s", err, output)
	}
}

func TestEndToEndDeliveryMetrics(t *testing.T) {
	t.Parallel()
	b := guardtest.NewBackend(t, guardtest.Answers(http.StatusInternalServerError, ""))
	s := guardtest.NewSite(t, guardtest.Delivering(b))
	s.Start(t)
	guardtest.NewPoster(t, s.Listen).WantOK(t, "metrics")
	s.WantError(t, "the status 500")
	b.Will(guardtest.Accepts)
	b.One(t, guardtest.Event("metrics"))
	s.WantState(t, outbox.Delivered, 1)
	const attempts = `caddy_tim_callback_delivery_attempts_total{command="Group.CallbackAfterRecallMsg",consumer="",guard="default",outcome=`
	for sample, least := range map[string]float64{
		attempts + `"failed"}`:    1,
		attempts + `"delivered"}`: 1,
		`caddy_tim_callback_deliveries{consumer="",guard="default",state="delivered"}`:                                                   1,
		`caddy_tim_callback_store_seconds_count`:                                                                                         1,
		`caddy_tim_callback_callbacks_total{action="deliver",command="Group.CallbackAfterRecallMsg",sdk_app_id="` + guardtest.App + `"}`: 1,
	} {
		if value := s.Metric(t, sample); value < least {
			t.Errorf("%s is %v, want %v", sample, value, least)
		}
	}
	_, text := guardtest.Get(t, http.MethodGet, "http://"+s.Admin+"/metrics")
	for _, state := range outbox.States() {
		if !strings.Contains(text, fmt.Sprintf("caddy_tim_callback_deliveries{consumer=\"\",guard=\"default\",state=%q} ", state)) {
			t.Errorf("no deliveries in state %s", state)
		}
	}
	for _, line := range []string{
		`caddy_tim_callback_oldest_delivery_age_seconds{consumer="",guard="default"} 0`,
		"caddy_tim_callback_unclaimed_deliveries 0",
		"caddy_tim_callback_abandoned_attempts 0",
	} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("no %s", line)
		}
	}
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Log("promtool is not here to check the metrics")
		return
	}
	cmd := exec.Command(promtool, "check", "metrics")
	cmd.Stdin = strings.NewReader(text)
	output, _ := cmd.CombinedOutput()
	for line := range strings.Lines(string(output)) {
		if strings.Contains(line, "tim_callback") {
			t.Error(line)
		}
	}
}
