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

// action is what a rule does with callbacks. Each action has its own file, which
// registers it.
type action struct {
	// options are the names of the options that a rule with this action may have.
	options []string

	// unmarshalArgs parses the arguments after the action in a Caddyfile. It is nil if
	// there are none.
	unmarshalArgs func(r *Rule, d *caddyfile.Dispenser, args []string) error

	// check rejects an invalid rule. earlier are the rules before it. It may be nil.
	check func(r Rule, earlier []Rule) error

	// forwards is whether the action normally invokes the next handler.
	forwards bool

	// serve performs the action.
	serve func(h *Handler, w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, c *call) error

	// internal is whether rules cannot use the action.
	internal bool
}

var actions = make(map[string]*action)

func registerAction(name string, a action) { actions[name] = &a }

// forwards reports whether the rule's action does.
func (r *Rule) forwards() bool {
	a, ok := actions[r.Action]
	return ok && a.forwards
}

// actionNames returns the names of the actions that rules can use.
func actionNames() []string {
	names := slices.Sorted(maps.Keys(actions))
	return slices.DeleteFunc(names, func(name string) bool { return actions[name].internal })
}
