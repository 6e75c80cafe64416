// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"maps"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// option is something that a rule can say besides its commands and its action. It is
// registered by the file that it is about; actions name those that they take.
type option struct {
	// given reports whether the rule says it.
	given func(r *Rule) bool

	// unmarshal reads its line in the rule's block. Nil if it stands behind the action.
	unmarshal func(r *Rule, d *caddyfile.Dispenser) error

	// check rejects a rule that says what makes no sense, given the rules before it.
	// May be nil.
	check func(r Rule, earlier []Rule) error
}

// options are by the names of their JSON keys.
var options = make(map[string]option)

func registerOption(name string, o option) { options[name] = o }

// options are the names of those that the rule gives.
func (r Rule) options() []string {
	names := slices.Sorted(maps.Keys(options))
	return slices.DeleteFunc(names, func(name string) bool { return !options[name].given(&r) })
}

// unmarshalOption reads one line of the rule's block.
func (r *Rule) unmarshalOption(d *caddyfile.Dispenser) error {
	name := d.Val()
	wanted := actions[r.Action].blockOptions()
	_, known := options[name]
	switch {
	case slices.Contains(wanted, name):
		return options[name].unmarshal(r, d)
	case known && !slices.Contains(actions[r.Action].options, name):
		return d.Errf("on … %s takes no %s; %s does", r.Action, name, or(actionsTaking(name)))
	case len(wanted) == 0:
		return d.Errf("on … %s takes no block", r.Action)
	}
	return d.Errf("unrecognized option %q of %s: want %s", name, r.Action, or(wanted))
}

// blockOptions are those of the action's options that stand in a rule's block.
func (a action) blockOptions() []string {
	return slices.DeleteFunc(slices.Clone(a.options), func(name string) bool { return options[name].unmarshal == nil })
}

func actionsTaking(option string) []string {
	return slices.DeleteFunc(actionNames(), func(name string) bool { return !slices.Contains(actions[name].options, option) })
}

// or lists words as a sentence does.
func or(words []string) string {
	last := len(words) - 1
	if last < 1 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:last], ", ") + " or " + words[last]
}
