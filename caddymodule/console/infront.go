// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package console

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
)

// inFront is what the configuration of a server says of the handlers around the page, as far
// as it can be seen while the page is provisioned: its route is still in JSON then.
type inFront struct {
	found bool // the page is in one of the server's routes
	path  bool // only requests for some paths reach it
	after bool // handlers come after it
	auth  auth

	handler routeHandler
	within  [][]string // lists of patterns, of which one matches each request for the page
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
	Group  string         `json:"group"`
	Match  []matcherSet   `json:"match"`
	Handle []routeHandler `json:"handle"`
}

// matcherSet has matchers by their names.
type matcherSet map[string]json.RawMessage

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
		matchers := make(matcherSet)
		for _, matcher := range set {
			if m, ok := matcher.(caddy.Module); ok {
				matchers[m.CaddyModule().ID.Name()] = nil
			}
			if paths, ok := matcher.(*caddyhttp.MatchPath); ok {
				matchers["path"], _ = json.Marshal(paths) // they are text
			}
		}
		out.Match = append(out.Match, matchers)
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
			h := routeHandler{Handler: m.CaddyModule().ID.Name()}
			if proxy, ok := handler.(*reverseproxy.Handler); ok {
				h.HandleResponse = make([]json.RawMessage, len(proxy.HandleResponse))
			}
			out.Handle = append(out.Handle, h)
		}
	}
	return out
}

// inRoutes returns what is around each page in the routes.
func inRoutes(routes []route) (pages []inFront) {
	for i, r := range routes {
		later := func(after route) bool { return r.Group == "" || after.Group != r.Group }
		for j, h := range r.Handle {
			inner := inRoutes(h.Routes)
			if h.Handler == "tim_console" {
				inner = []inFront{pageOf(h)}
			}
			for _, front := range inner {
				front.path = front.path || r.forPaths()
				front.after = front.after || j+1 < len(r.Handle) || slices.ContainsFunc(routes[i+1:], later)
				front.within = append(front.within, r.patterns())
				front.auth = max(front.auth, authOf(r.Handle[:j]))
				for _, earlier := range routes[:i] {
					if earlier.covers(front) {
						front.auth = max(front.auth, authOf(earlier.Handle))
					}
				}
				pages = append(pages, front)
			}
		}
	}
	return pages
}

// pageOf returns the page of a handler, with nothing around it yet.
func pageOf(h routeHandler) inFront {
	prefix := strings.TrimRight(h.Prefix, "/")
	patterns := []string{prefix + "/*"}
	if prefix != "" {
		patterns = append(patterns, prefix)
	}
	return inFront{found: true, handler: h, within: [][]string{patterns}}
}

// forPaths reports whether the route is for some paths only.
func (r route) forPaths() bool {
	return slices.ContainsFunc(r.Match, func(set matcherSet) bool { return set["path"] != nil })
}

// patterns returns the patterns of paths of which one matches each request that takes the
// route.
func (r route) patterns() (patterns []string) {
	if len(r.Match) == 0 {
		return []string{"*"}
	}
	for _, set := range r.Match {
		patterns = append(patterns, set.patterns()...)
	}
	return patterns
}

func (m matcherSet) patterns() (patterns []string) {
	if m["path"] == nil || json.Unmarshal(m["path"], &patterns) != nil {
		return []string{"*"}
	}
	return patterns
}

// covers reports whether every request for the page takes the route.
func (r route) covers(page inFront) bool {
	return len(r.Match) == 0 || slices.ContainsFunc(r.Match, func(set matcherSet) bool {
		others := len(set)
		if set["path"] != nil {
			others--
		}
		return others == 0 && slices.ContainsFunc(page.within, func(within []string) bool { return includes(set.patterns(), within) })
	})
}

// includes reports whether the patterns match every path that the others match. Of patterns
// with a * in another place than the end, it only knows that each includes itself.
func includes(patterns, others []string) bool {
	return !slices.ContainsFunc(others, func(other string) bool {
		return !slices.ContainsFunc(patterns, func(pattern string) bool {
			begin, open := strings.CutSuffix(strings.ToLower(pattern), "*")
			begins := open && !strings.Contains(begin, "*") && strings.HasPrefix(strings.ToLower(other), begin)
			return begins || strings.EqualFold(pattern, other)
		})
	})
}

// authOf returns the best that the handlers do.
func authOf(handlers []routeHandler) (best auth) {
	for _, h := range handlers {
		switch {
		case h.Handler == "authentication":
			best = max(best, namesUser)
		case h.Handler == "reverse_proxy" && len(h.HandleResponse) > 0:
			best = max(best, elsewhere)
		}
	}
	return best
}
