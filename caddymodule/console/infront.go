// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package console

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// inFront is what the configuration of a server says of the handlers around the page, as far
// as it can be seen while the page is provisioned: its route is still in JSON then.
type inFront struct {
	found bool // the page is in one of the server's routes
	path  bool // only requests for some paths reach it
	after bool // handlers come after it
	auth  auth

	handler routeHandler
}

// auth says how requests are authenticated before they reach the page.
type auth int

const (
	noAuth    auth = iota
	namesUser      // by the handler authentication, which sets {http.auth.user.id}
	elsewhere      // by a server that is asked, as forward_auth does
)

// route is a route in JSON.
type route struct {
	Group string `json:"group"`
	Match []struct {
		Path json.RawMessage `json:"path"`
	} `json:"match"`
	Handle []routeHandler `json:"handle"`
}

type routeHandler struct {
	Handler        string            `json:"handler"`
	Routes         []route           `json:"routes"`
	HandleResponse []json.RawMessage `json:"handle_response"`

	// Of tim_console.
	Prefix   string `json:"prefix"`
	ReadOnly bool   `json:"read_only"`
}

// lookInFront looks for the page in the routes of a server. Of several pages with equal
// options, it returns what the least guarded one has in front.
func lookInFront(routes caddyhttp.RouteList, c *Console) (front inFront) {
	var all []route
	for _, r := range routes {
		all = append(all, routeOf(r))
	}
	for _, f := range inRoutes(all) {
		same := strings.TrimRight(f.handler.Prefix, "/") == c.Prefix && f.handler.ReadOnly == c.ReadOnly
		if same && (!front.found || f.auth < front.auth) {
			front = f
		}
	}
	return front
}

// routeOf returns a route of the server in JSON. What is provisioned already is no longer
// there, and is described by its modules.
func routeOf(r caddyhttp.Route) (out route) {
	out.Group = r.Group
	for _, set := range r.MatcherSets {
		var m struct {
			Path json.RawMessage `json:"path"`
		}
		for _, matcher := range set {
			if _, ok := matcher.(caddyhttp.MatchPath); ok {
				m.Path = json.RawMessage("[]")
			}
		}
		out.Match = append(out.Match, m)
	}
	for _, raw := range r.HandlersRaw {
		var h routeHandler
		if json.Unmarshal(raw, &h) == nil {
			out.Handle = append(out.Handle, h)
		}
	}
	if len(r.HandlersRaw) > 0 {
		return out
	}
	for _, handler := range r.Handlers {
		if m, ok := handler.(caddy.Module); ok && m.CaddyModule().ID.Name() != "tim_console" {
			out.Handle = append(out.Handle, routeHandler{Handler: m.CaddyModule().ID.Name()})
		}
	}
	return out
}

// inRoutes returns what is around each page in the routes.
func inRoutes(routes []route) (pages []inFront) {
	before := noAuth
	for i, r := range routes {
		later := func(after route) bool { return r.Group == "" || after.Group != r.Group }
		for j, h := range r.Handle {
			before = max(before, authOf(h))
			inner := inRoutes(h.Routes)
			if h.Handler == "tim_console" {
				inner = []inFront{{found: true, handler: h}}
			}
			for _, front := range inner {
				front.auth = max(front.auth, before)
				front.path = front.path || r.forPaths()
				front.after = front.after || j+1 < len(r.Handle) || slices.ContainsFunc(routes[i+1:], later)
				pages = append(pages, front)
			}
		}
	}
	return pages
}

// forPaths reports whether the route is for some paths only.
func (r route) forPaths() bool {
	for _, set := range r.Match {
		if set.Path != nil {
			return true
		}
	}
	return false
}

func authOf(h routeHandler) auth {
	switch {
	case h.Handler == "authentication":
		return namesUser
	case h.Handler == "reverse_proxy" && len(h.HandleResponse) > 0:
		return elsewhere
	}
	return noAuth
}
