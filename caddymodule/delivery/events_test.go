// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"

	"github.com/timguard/timguard/caddymodule/internal/guardtest"
	"github.com/timguard/timguard/caddymodule/outbox"
)

func init() { caddy.RegisterModule(noteEvents{}) }

// noteEvents is an event handler that appends each event to a file, as a line.
type noteEvents struct {
	File string `json:"file"`
}

func (noteEvents) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "events.handlers.note_events", New: func() caddy.Module { return new(noteEvents) }}
}

func (n *noteEvents) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if !d.AllArgs(&n.File) {
		return d.ArgErr()
	}
	return nil
}

func (n *noteEvents) Handle(_ context.Context, e caddy.Event) error {
	data, err := json.Marshal(e.Data)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(n.File, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = fmt.Fprintf(f, "%s %s\n", e.Name(), data)
	return err
}

var _ caddyevents.Handler = (*noteEvents)(nil)

// notingEvents adds the event handler to the site, and returns a function that waits for
// an event and returns its line.
func notingEvents(t *testing.T, s *guardtest.Site) (wait func(name string) string) {
	t.Helper()
	file := filepath.Join(s.Dir, "events")
	s.Global += "\nevents {\non tim_delivery.dead note_events " + file +
		"\non tim_delivery.store_failed note_events " + file + "\non tim_delivery.store_recovered note_events " + file + "\n}"
	return func(name string) (line string) {
		t.Helper()
		guardtest.Eventually(t, 20*time.Second, "the event "+name, func() bool {
			data, _ := os.ReadFile(file)
			for l := range strings.Lines(string(data)) {
				if strings.HasPrefix(l, name+" ") {
					line = l
					return true
				}
			}
			return false
		})
		return line
	}
}

func TestEndToEndDeliveryEmitsAnEventWhenDead(t *testing.T) {
	t.Parallel()
	b := guardtest.NewBackend(t, guardtest.Answers(http.StatusInternalServerError, ""))
	s := guardtest.NewSite(t, guardtest.Delivering(b, "name front"))
	s.Options = "max_attempts 1"
	wait := notingEvents(t, s)
	s.Start(t)
	guardtest.NewPoster(t, s.Listen).WantOK(t, "dead")
	s.WantState(t, outbox.Dead, 1)
	var data map[string]any
	if err := json.Unmarshal([]byte(strings.TrimPrefix(wait("tim_delivery.dead"), "tim_delivery.dead ")), &data); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]any{
		"guard": "front", "consumer": "", "command": "Group.CallbackAfterRecallMsg", "sdk_app_id": "1400000000", "attempts": 1.0, "error": "the answer has the status 500",
	} {
		if data[name] != want {
			t.Errorf("%s is %v, want %v", name, data[name], want)
		}
	}
	if id, ok := data["id"].(float64); !ok || id < 1 {
		t.Errorf("id is %v", data["id"])
	}
}

func TestEndToEndDeliveryEmitsEventsWhenTheStoreFailsAndRecovers(t *testing.T) {
	t.Parallel()
	b := guardtest.NewBackend(t, guardtest.Accepts)
	s := guardtest.NewSite(t, guardtest.Delivering(b))
	wait := notingEvents(t, s)
	s.Start(t)
	p := guardtest.NewPoster(t, s.Listen)
	p.WantOK(t, "before")
	fault := moved(false)
	fault.begin(t, s)
	p.WantOK(t, "during")
	if line := wait("tim_delivery.store_failed"); !strings.Contains(line, `"store":"sqlite"`) || !strings.Contains(line, "the file was removed") {
		t.Error(line)
	}
	fault.end(t, s)
	p.WantOK(t, "after")
	if line := wait("tim_delivery.store_recovered"); !strings.Contains(line, `"store":"sqlite"`) {
		t.Error(line)
	}
}
