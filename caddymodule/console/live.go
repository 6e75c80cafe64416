// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package console

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"github.com/timguard/timguard/caddymodule"
	"github.com/timguard/timguard/caddymodule/callback"
)

// live is what the page live shows.
type live struct {
	Filter   caddymodule.CallFilter
	Calls    []caddymodule.Call // the newest first
	Limit    int                // of Calls
	Stream   string             // address of the calls as they come
	Reasons  []string
	Commands []string
}

// maxShown is how many calls a page without the script shows.
const maxShown = 200

// Filtered reports whether a form has filtered the calls.
func (l live) Filtered() bool { return l.Filter != caddymodule.CallFilter{} }

func (c *Console) live(p *reply) {
	f, err := p.callFilter()
	if err != nil {
		p.show(http.StatusBadRequest, "error", page{Section: "live", Title: p.lang.t("error.title"), Data: failure{p.lang.t("error.filter"), err.Error()}})
		return
	}
	view := live{Filter: f, Limit: maxShown, Reasons: reasons(), Commands: commands()}
	view.Calls = caddymodule.LastCalls(f, maxShown)
	slices.Reverse(view.Calls)
	query := make(url.Values)
	for name, value := range map[string]string{"guard": f.Guard, "command": f.Command, "reason": f.Reason, "conversation": f.Conversation} {
		if value != "" {
			query.Set(name, value)
		}
	}
	query.Set("last", strconv.Itoa(caddymodule.MaxCalls))
	view.Stream = p.base + "/live/calls?" + query.Encode()
	p.show(http.StatusOK, "live", page{Section: "live", Title: p.lang.t("nav.live"), Data: view})
}

// callFilter parses the filters of the page.
func (p *reply) callFilter() (caddymodule.CallFilter, error) {
	query := filled(p.r.URL.Query())
	query.Del("lang")
	query.Del("last")
	query.Del("bodies")
	o, err := caddymodule.ParseStreamOptions(query.Encode())
	return o.Filter, err
}

// stream answers with calls as they come, without their payloads.
func (c *Console) stream(p *reply) {
	o, err := caddymodule.ParseStreamOptions(p.r.URL.RawQuery)
	if err != nil {
		http.Error(p.w, err.Error(), http.StatusBadRequest)
		return
	}
	o.Bodies = false
	ctx, cancel := context.WithCancel(p.r.Context())
	defer cancel()
	defer context.AfterFunc(c.stopping, cancel)()
	caddymodule.StreamCalls(p.w, p.r.WithContext(ctx), o)
}

// filled returns the parameters that are not empty, as forms send them too.
func filled(query url.Values) url.Values {
	for name, values := range query {
		if values = slices.DeleteFunc(values, func(v string) bool { return v == "" }); len(values) == 0 {
			query.Del(name)
		} else {
			query[name] = values
		}
	}
	return query
}

// reasons returns the reasons of rejections.
func reasons() (names []string) {
	for _, r := range callback.Reasons() {
		names = append(names, string(r))
	}
	return names
}

// commands returns the names of all commands.
func commands() (names []string) {
	for _, c := range callback.Commands() {
		names = append(names, c.Name)
	}
	return names
}
