// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"maps"
	"net/http"
	"slices"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// action is something that a rule can say is done with a callback. Each has a file
// of its own, which registers it.
type action struct {
	// options are what a rule with this action may say besides its commands, by the
	// names of the JSON keys.
	options []string

	// unmarshalArgs reads what stands behind the action in a Caddyfile. Nil if nothing
	// may.
	unmarshalArgs func(r *Rule, d *caddyfile.Dispenser, args []string) error

	// unmarshalOption reads one line of the rule's block. Nil if it has none.
	unmarshalOption func(r *Rule, d *caddyfile.Dispenser) error

	// check rejects a rule that makes no sense, given the rules before it. May be nil.
	check func(r Rule, earlier []Rule) error

	// forwards says that the next handlers get the callback, as a rule.
	forwards bool

	// serve does it.
	serve func(h *Handler, w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, c *call) error

	// internal says that no rule can name it.
	internal bool
}

var actions = make(map[string]*action)

func registerAction(name string, a action) { actions[name] = &a }

// forwards reports whether the rule's action does.
func (r *Rule) forwards() bool {
	a, ok := actions[r.Action]
	return ok && a.forwards
}

// actionNames are those that a rule can name.
func actionNames() []string {
	names := slices.Sorted(maps.Keys(actions))
	return slices.DeleteFunc(names, func(name string) bool { return actions[name].internal })
}
