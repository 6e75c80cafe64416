// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
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
	b := newUnsteady(t, answers(http.StatusInternalServerError, ""))
	s := newDeliverySite(t, delivering(b, "name front"))
	s.options = "max_attempts 1"
	s.start(t)
	p := newPoster(t, s.listen)
	for i := range 3 {
		p.wantOK(t, fmt.Sprint("admin", i))
	}
	s.wantState(t, outbox.Dead, 3)

	status := s.status(t)
	if status.Store != "sqlite" || !slices.Equal(status.Guards, []string{"front"}) || len(status.Deliveries) != len(outbox.States()) || status.OldestAgeSeconds != 0 {
		t.Errorf("status %+v", status)
	}
	items := s.items(t)
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
		{http.MethodGet, list + "?limit=0", http.StatusBadRequest, "from 1 to 1000"},
		{http.MethodGet, list + "?limit=1001", http.StatusBadRequest, "from 1 to 1000"},
		{http.MethodGet, list + "?before=x", http.StatusBadRequest, "before"},
		{http.MethodGet, list + "/x", http.StatusBadRequest, "is not the id"},
	} {
		if code, body := get(t, tt.method, "http://"+s.admin+tt.path); code != tt.status || !strings.Contains(body, tt.has) {
			t.Errorf("%s %s: %d %s, want %d and %q", tt.method, tt.path, code, body, tt.status, tt.has)
		}
	}

	b.will(accepts)
	if code, body := get(t, http.MethodPost, "http://"+s.admin+one+"/retry"); code != http.StatusOK {
		t.Fatalf("retry: %d %s", code, body)
	}
	b.one(t, event("admin2"))
	s.wantState(t, outbox.Delivered, 1)
	if code, body := get(t, http.MethodDelete, "http://"+s.admin+one); code != http.StatusConflict || !strings.Contains(body, "it is delivered") {
		t.Errorf("discarding what is delivered: %d %s, want 409", code, body)
	}
}

func TestEndToEndDeliveryAdminAPIWithoutDeliveries(t *testing.T) {
	t.Parallel()
	s := newDeliverySite(t, guardtest.Guard()+"\nrespond 200")
	s.app = false
	s.start(t)
	code, body := get(t, http.MethodGet, "http://"+s.admin+"/tim_callback/status")
	if code != http.StatusNotFound || !strings.Contains(body, "the running configuration does not store callbacks") {
		t.Errorf("status: %d %s, want 404", code, body)
	}
	if output := s.cli(t, true, "list"); !strings.Contains(output, "does not store callbacks") {
		t.Errorf("deliveries list prints %s", output)
	}
}

// cli runs `timguard tim-callback deliveries` against the site.
func (s *deliverySite) cli(t *testing.T, fails bool, arguments ...string) string {
	t.Helper()
	arguments = append([]string{"tim-callback", "deliveries"}, arguments...)
	output, err := timguard(s.dir, append(arguments, "--address", s.admin)...).CombinedOutput()
	if (err != nil) != fails {
		t.Errorf("%v: %v\n%s", arguments, err, output)
	}
	return string(output)
}

func TestEndToEndDeliveryCommandLine(t *testing.T) {
	t.Parallel()
	b := newUnsteady(t, answers(http.StatusInternalServerError, ""))
	s := newDeliverySite(t, delivering(b))
	s.start(t)
	newPoster(t, s.listen).wantOK(t, "cli")
	item := s.wantError(t, "the status 500")
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
		{false, []string{"show", id}, []string{"attempt 1 at ", "POST /callback?CallbackCommand=", string(event("cli"))}},
		{true, []string{"show", "999999"}, []string{"no such delivery"}},
		{true, []string{"show", "x"}, []string{"is not the id"}},
		{true, []string{"show"}, []string{"arg"}},
	} {
		output := s.cli(t, tt.fails, tt.arguments...)
		for _, text := range tt.has {
			if !strings.Contains(output, text) {
				t.Errorf("%v prints\n%s\nwithout %q", tt.arguments, output, text)
			}
		}
	}
	eventually(t, 20*time.Second, "it is discarded, between two attempts", func() bool {
		output, err := timguard(s.dir, "tim-callback", "deliveries", "discard", id, "--address", s.admin).CombinedOutput()
		if err != nil && !strings.Contains(string(output), "it is running") {
			t.Fatalf("%v: %s", err, output)
		}
		return err == nil && strings.Contains(string(output), "discarded")
	})
	if got := s.status(t).Deliveries[outbox.Discarded]; got != 1 {
		t.Errorf("%d are discarded, want 1", got)
	}
	b.will(accepts)
	var retried outbox.Delivery
	if err := json.Unmarshal([]byte(s.cli(t, false, "retry", id, "--json")), &retried); err != nil || retried.ID != item.ID {
		t.Errorf("retry printed %+v, %v", retried, err)
	}
	b.one(t, event("cli"))
	s.wantState(t, outbox.Delivered, 1)
}

// Filters select several deliveries, and no others.
func TestEndToEndDeliveryFiltersSelect(t *testing.T) {
	t.Parallel()
	b := newUnsteady(t, answers(http.StatusInternalServerError, ""))
	s := newDeliverySite(t, "handle /a {\n"+delivering(b, "name a")+"\n}\nhandle {\n"+delivering(b, "name b")+"\n}")
	s.options = "max_attempts 1"
	s.start(t)
	p := newPoster(t, s.listen)
	for i := range 4 {
		path := []string{"/a", "/callback"}[i%2]
		if _, answer, err := p.post(path, callback.RecallCommand, event(fmt.Sprint("many", i))); err != nil || answer != guardtest.OKJSON {
			t.Fatal(answer, err)
		}
	}
	s.wantState(t, outbox.Dead, 4)
	for filter, want := range map[string]int{
		"state=dead": 4, "guard=a": 2, "guard=a&state=delivered": 0, "consumer=archive": 0,
		"command=" + callback.RecallCommand: 4, "command=State.StateChange": 0, "since=1h": 4, "limit=3": 3, "before=3": 2,
		"since=" + time.Now().Add(time.Hour).UTC().Format(time.RFC3339): 0,
	} {
		var items []outbox.Delivery
		if code, body := get(t, http.MethodGet, "http://"+s.admin+"/tim_callback/deliveries?"+filter); code != http.StatusOK || json.Unmarshal([]byte(body), &items) != nil || len(items) != want {
			t.Errorf("%s selects %d: %d %s, want %d", filter, len(items), code, body, want)
		}
	}
	b.will(accepts)
	if text := s.cli(t, false, "retry", "--guard", "a", "--state", "dead"); !strings.Contains(text, "2 retried") {
		t.Errorf("retry prints %s", text)
	}
	s.wantState(t, outbox.Delivered, 2)
	if text := s.cli(t, false, "discard", "--state", "dead"); !strings.Contains(text, "2 discarded") {
		t.Errorf("discard prints %s", text)
	}
	s.wantState(t, outbox.Dead, 0)
	for i, want := range []int{1, 0, 1, 0} {
		if n := b.times(event(fmt.Sprint("many", i))); n != want {
			t.Errorf("callback %d of guard %c arrived %d times, want %d", i, "ab"[i%2], n, want)
		}
	}
	if text := s.cli(t, true, "retry"); !strings.Contains(text, "no filter") {
		t.Errorf("retry of nothing prints %s", text)
	}
	if text := s.cli(t, true, "retry", "1", "--state", "dead"); !strings.Contains(text, "not both") {
		t.Errorf("retry of both prints %s", text)
	}
}

// The command uses the same admin API as reload, and prints its address.
func TestEndToEndDeliveryCommandLineFindsItsServer(t *testing.T) {
	t.Parallel()
	s := newDeliverySite(t, guardtest.Guard("on after deliver")+"\nrespond 200")
	s.start(t)
	for name, tt := range map[string]struct {
		dir  string
		args []string
	}{
		"the Caddyfile of the directory": {s.dir, nil},
		"the configuration named":        {t.TempDir(), []string{"--config", filepath.Join(s.dir, "Caddyfile")}},
	} {
		cmd := timguard(s.dir, append([]string{"tim-callback", "deliveries", "status"}, tt.args...)...)
		cmd.Dir = tt.dir
		output, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(output), "asking "+s.admin+" (from ") || !strings.Contains(string(output), "store sqlite, guards default") {
			t.Errorf("%s: %v\n%s", name, err, output)
		}
	}
	cmd := timguard(s.dir, "tim-callback", "deliveries", "status", "--address", guardtest.FreePort(t))
	if output, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(output), "connection refused") {
		t.Errorf("nobody listens: %v\n%s", err, output)
	}
}

func TestEndToEndDeliveryMetrics(t *testing.T) {
	t.Parallel()
	b := newUnsteady(t, answers(http.StatusInternalServerError, ""))
	s := newDeliverySite(t, delivering(b))
	s.start(t)
	newPoster(t, s.listen).wantOK(t, "metrics")
	s.wantError(t, "the status 500")
	b.will(accepts)
	b.one(t, event("metrics"))
	s.wantState(t, outbox.Delivered, 1)
	const attempts = `caddy_tim_callback_delivery_attempts_total{command="Group.CallbackAfterRecallMsg",consumer="",outcome=`
	for sample, least := range map[string]float64{
		attempts + `"failed"}`:                             1,
		attempts + `"delivered"}`:                          1,
		`caddy_tim_callback_deliveries{state="delivered"}`: 1,
		`caddy_tim_callback_store_seconds_count`:           1,
		`caddy_tim_callback_callbacks_total{action="deliver",command="Group.CallbackAfterRecallMsg",sdk_app_id="` + guardtest.App + `"}`: 1,
	} {
		if value := s.metric(t, sample); value < least {
			t.Errorf("%s is %v, want %v", sample, value, least)
		}
	}
	_, text := get(t, http.MethodGet, "http://"+s.admin+"/metrics")
	for _, state := range outbox.States() {
		if !strings.Contains(text, fmt.Sprintf("caddy_tim_callback_deliveries{state=%q} ", state)) {
			t.Errorf("no deliveries in state %s", state)
		}
	}
	if !strings.Contains(text, "caddy_tim_callback_oldest_delivery_age_seconds 0\n") {
		t.Error("no oldest age")
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
