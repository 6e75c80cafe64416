// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"maps"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// option is an option of rules. It is registered by the file that implements it. Each
// action lists the options that it allows.
type option struct {
	// given reports whether the rule has the option.
	given func(r *Rule) bool

	// unmarshal parses the option in the rule's block. It is nil if the option is an
	// argument of the action instead.
	unmarshal func(r *Rule, d *caddyfile.Dispenser) error

	// check rejects an invalid option. earlier are the rules before this one. It may
	// be nil.
	check func(r Rule, earlier []Rule) error
}

// options maps the JSON keys of options to options.
var options = make(map[string]option)

func registerOption(name string, o option) { options[name] = o }

// options returns the names of the options that the rule has.
func (r Rule) options() []string {
	names := slices.Sorted(maps.Keys(options))
	return slices.DeleteFunc(names, func(name string) bool { return !options[name].given(&r) })
}

// unmarshalOption parses one option in the rule's block.
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

// blockOptions returns the options of the action that are written in a rule's block.
func (a action) blockOptions() []string {
	return slices.DeleteFunc(slices.Clone(a.options), func(name string) bool { return options[name].unmarshal == nil })
}

func actionsTaking(option string) []string {
	return slices.DeleteFunc(actionNames(), func(name string) bool { return !slices.Contains(actions[name].options, option) })
}

// or joins words as in "a, b or c".
func or(words []string) string {
	last := len(words) - 1
	if last < 1 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:last], ", ") + " or " + words[last]
}
