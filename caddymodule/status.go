// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// Status is what a guard says of itself.
type Status struct {
	Name  string      `json:"name"`
	Mode  string      `json:"mode"`
	Apps  []AppStatus `json:"apps"`
	Rules []Rule      `json:"rules"`

	// Since is when counting began: when a guard of this name was first loaded into the
	// process.
	Since time.Time `json:"since"`
	Total Tally     `json:"total"`

	// Commands are the known commands that have come since, in what was accepted or has a
	// valid Sign.
	Commands []string `json:"commands"`

	// Hour counts the last 60 minutes, which Minutes are.
	Hour    Tally    `json:"hour"`
	Minutes []Minute `json:"minutes"`

	// SkewSeconds is how far the local clock is ahead of Tencent's: the median of the last
	// signed callbacks. It is nil without any.
	SkewSeconds *float64 `json:"clock_skew_seconds"`
}

// MaxSkewSeconds is how far off the local clock may be before it is called wrong: half of the
// default window.
const MaxSkewSeconds = 30

// AppStatus says how an app's callbacks are authenticated.
type AppStatus struct {
	SdkAppID string     `json:"sdk_app_id"`
	Unsigned bool       `json:"unsigned"`
	Tokens   []TokenUse `json:"tokens"` // by their positions
}

// loaded are the handlers of all configurations in memory.
var loaded struct {
	sync.Mutex
	handlers []*Handler
}

func (h *Handler) load() {
	loaded.Lock()
	defer loaded.Unlock()
	h.history = historyOf(h.Name)
	loaded.handlers = append(loaded.handlers, h)
}

// Cleanup forgets the handler.
func (h *Handler) Cleanup() error {
	loaded.Lock()
	defer loaded.Unlock()
	loaded.handlers = slices.DeleteFunc(loaded.handlers, func(other *Handler) bool { return other == h })
	return nil
}

// runningHandlers returns the handlers of the running configuration by name. Handlers of the
// one before may still be finishing requests. Those whose configurations are equal are the
// same directive in a site with several listeners, and only one of them is returned.
func runningHandlers() []*Handler {
	app, err := caddy.ActiveContext().AppIfConfigured("http")
	if err != nil {
		return nil
	}
	http, ok := app.(*caddyhttp.App)
	if !ok {
		return nil
	}
	servers := slices.Collect(maps.Values(http.Servers))
	loaded.Lock()
	defer loaded.Unlock()
	var handlers []*Handler
	for _, h := range loaded.handlers {
		same := func(o *Handler) bool { return o.guard.ConfigHash == h.guard.ConfigHash }
		if slices.Contains(servers, h.server) && !slices.ContainsFunc(handlers, same) {
			handlers = append(handlers, h)
		}
	}
	slices.SortStableFunc(handlers, func(a, b *Handler) int { return cmp.Compare(a.Name, b.Name) })
	return handlers
}

// Running returns the status of each guard of the running configuration, by name. Guards
// with the same name share their counts.
func Running() []Status {
	now := time.Now()
	statuses := []Status{}
	for _, h := range runningHandlers() {
		s := Status{Name: h.Name, Mode: h.Mode, Apps: h.appStatuses(), Rules: h.Rules, SkewSeconds: h.history.medianSkew()}
		s.Total, s.Since = h.history.totals()
		s.Commands = h.history.commandsSeen()
		s.Hour, s.Minutes = h.history.hourNow(now)
		statuses = append(statuses, s)
	}
	return statuses
}

// HourOf adds up the last hour of guards. Those with the same name share their counts.
func HourOf(guards []Status) (hour Tally, minutes []Minute) {
	hour = newTally()
	for i, g := range guards {
		if slices.ContainsFunc(guards[:i], func(o Status) bool { return o.Name == g.Name }) {
			continue
		}
		hour.add(g.Hour)
		if minutes == nil {
			minutes = slices.Clone(g.Minutes)
			continue
		}
		for j := range minutes {
			minutes[j].Calls += g.Minutes[j].Calls
			minutes[j].Refused += g.Minutes[j].Refused
		}
	}
	return hour, minutes
}

func (h *Handler) appStatuses() []AppStatus {
	uses := h.history.usesNow()
	var apps []AppStatus
	for _, app := range h.Apps {
		s := AppStatus{SdkAppID: app.id, Unsigned: len(app.secrets) == 0, Tokens: []TokenUse{}}
		for i := range app.secrets {
			s.Tokens = append(s.Tokens, uses[tokenOfApp{app.id, i + 1}])
		}
		apps = append(apps, s)
	}
	return apps
}

// Interface guards
var _ caddy.CleanerUpper = (*Handler)(nil)
