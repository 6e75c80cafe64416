// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"slices"
	"strconv"
	"strings"

	"github.com/dustin/go-humanize"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/timguard/timguard/caddymodule/outbox"
)

func init() {
	httpcaddyfile.RegisterHandlerDirective("tim_callback", parseCaddyfile)

	// It must see the URL as Tencent sent it, so it stands before every rewrite.
	httpcaddyfile.RegisterDirectiveOrder("tim_callback", httpcaddyfile.After, "request_body")
}

func parseCaddyfile(helper httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	h := new(Handler)
	if err := h.UnmarshalCaddyfile(helper.Dispenser); err != nil {
		return nil, err
	}
	return h, nil
}

// UnmarshalCaddyfile sets up the handler from Caddyfile tokens. Syntax:
//
//	tim_callback [<matcher>] [<sdk_app_id>...] {
//		app           <sdk_app_id> [<token>...]
//		on            <command>... forward [{
//			deadline <duration>
//			fallback none|allow|forbid [<code> [<info>]]|deliver
//		}]
//		on            <command>... ack
//		on            <command>... forbid [<code> [<info>]]
//		on            <command>... deliver
//		on            <command>... reject
//		mode          enforce|report
//		window        <duration>
//		max_body      <size>
//		strip_auth
//		console_check on|off
//		rejections    answer|handle_errors
//		name          <name>
//	}
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume directive name
	for _, id := range d.RemainingArgs() {
		if !appIDFormat.MatchString(id) && !isPlaceholder(id) { // the word may be a token
			return d.Errf("tim_callback: want SDKAppIDs, in decimal; tokens go into its block, app <sdk_app_id> <token>...")
		}
		if err := h.addApp(d, id, nil); err != nil {
			return err
		}
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		if err := h.unmarshalSubdirective(d); err != nil {
			return err
		}
	}
	if err := h.check(); err != nil {
		return d.Errf("tim_callback: %v", err)
	}
	return nil
}

func (h *Handler) unmarshalSubdirective(d *caddyfile.Dispenser) error {
	switch name := d.Val(); name {
	case "app":
		args := d.RemainingArgs()
		if len(args) == 0 {
			return d.Errf("app: want <sdk_app_id> [<token>...]")
		}
		return h.addApp(d, args[0], args[1:])
	case "on":
		return h.unmarshalRule(d)
	case "mode":
		return oneOf(d, &h.Mode, modeEnforce, modeReport)
	case "rejections":
		return oneOf(d, &h.Rejections, rejectionsAnswer, rejectionsHandleErrors)
	case "window":
		return positiveDuration(d, &h.Window)
	case "max_body":
		return h.unmarshalMaxBody(d)
	case "strip_auth":
		if d.NextArg() {
			return d.Errf("strip_auth takes no argument, but %q stands after it", d.Val())
		}
		h.StripAuth = true
		return nil
	case "console_check":
		return h.unmarshalConsoleCheck(d)
	case "name":
		if !d.AllArgs(&h.Name) {
			return d.Errf("name: want one word")
		}
		if err := outbox.CheckGuard(h.Name); err != nil {
			return d.Errf("name: %v", err)
		}
		return nil
	case "deadline", "fallback":
		return d.Errf("%s belongs into the block of a rule: on <command>... forward { %s … }", name, name)
	case "token", "tokens":
		return d.Errf("tokens stand after their app: app <sdk_app_id> <token>...")
	default:
		return d.Errf("unrecognized subdirective %q: want app, on, mode, window, max_body, strip_auth, console_check, rejections or name", name)
	}
}

func (h *Handler) addApp(d *caddyfile.Dispenser, id string, tokens []string) error {
	if !appIDFormat.MatchString(id) && !isPlaceholder(id) {
		return d.Errf("app: want the SDKAppID of Tencent's console first, in decimal") // the word may be a token in the wrong place
	}
	for _, a := range h.Apps {
		if a.SdkAppID == id {
			return d.Errf("app %s is given twice: write all its tokens after one app %s", id, id)
		}
	}
	if slices.Contains(tokens, "") {
		return d.Errf("app %s: a token is empty; if it comes from the environment, is the variable set?", id)
	}
	h.Apps = append(h.Apps, App{SdkAppID: id, Tokens: tokens})
	return nil
}

func isPlaceholder(s string) bool { return len(s) > 2 && s[0] == '{' && s[len(s)-1] == '}' }

func (h *Handler) unmarshalRule(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	i := slices.IndexFunc(args, func(arg string) bool { return slices.Contains(actions, arg) })
	if i < 0 {
		return d.Errf("on: want <command>... and then one of %v; %q has none of them", actions, strings.Join(args, " "))
	}
	rule := Rule{Commands: args[:i], Action: args[i]}
	rest := args[i+1:]
	if rule.Action == actionForbid {
		if err := codeAndInfo(d, "forbid", rest, &rule.Code, &rule.Info); err != nil {
			return err
		}
	} else if len(rest) > 0 {
		return d.Errf("on … %s: takes no argument, but %q stands after it", rule.Action, rest[0])
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		if err := rule.unmarshalOption(d); err != nil {
			return err
		}
	}
	if err := rule.check(h.Rules); err != nil {
		return d.Errf("on: %v", err)
	}
	h.Rules = append(h.Rules, rule)
	return nil
}

func (r *Rule) unmarshalOption(d *caddyfile.Dispenser) error {
	if r.Action != actionForward {
		return d.Errf("on … %s takes no block; forward does", r.Action)
	}
	switch name := d.Val(); name {
	case "deadline":
		return positiveDuration(d, &r.Deadline)
	case "fallback":
		args := d.RemainingArgs()
		switch {
		case len(args) == 0 || !slices.Contains(verdicts, args[0]):
			return d.Errf("fallback %q: want one of %v", strings.Join(args, " "), verdicts)
		case args[0] == verdictForbid:
			r.Fallback = &Fallback{Verdict: verdictForbid}
			return codeAndInfo(d, "fallback forbid", args[1:], &r.Fallback.Code, &r.Fallback.Info)
		case len(args) > 1:
			return d.Errf("fallback %s takes no argument, but %q stands after it", args[0], args[1])
		case args[0] == verdictNone:
			r.Fallback = nil
		default:
			r.Fallback = &Fallback{Verdict: args[0]}
		}
		return nil
	default:
		return d.Errf("unrecognized option %q of forward: want deadline or fallback", name)
	}
}

// codeAndInfo reads what may stand after forbid.
func codeAndInfo(d *caddyfile.Dispenser, what string, args []string, code *int, info *string) (err error) {
	if len(args) > 2 {
		return d.Errf("%s: want [<code> [<info>]]; put an info of several words in quotes", what)
	}
	if len(args) > 0 {
		if *code, err = strconv.Atoi(args[0]); err != nil || *code < 1 {
			return d.Errf("%s: code %q: want a positive number", what, args[0])
		}
	}
	if len(args) > 1 {
		*info = args[1]
	}
	return nil
}

// positiveDuration reads the one argument.
func positiveDuration(d *caddyfile.Dispenser, value *caddy.Duration) error {
	name := d.Val()
	var text string
	if !d.AllArgs(&text) {
		return d.Errf("%s: want one duration, such as 1500ms", name)
	}
	duration, err := caddy.ParseDuration(text)
	if err != nil || duration <= 0 {
		return d.Errf("%s %q: want a positive duration, such as 1500ms", name, text)
	}
	*value = caddy.Duration(duration)
	return nil
}

// oneOf reads the one argument, which must be one of the words.
func oneOf(d *caddyfile.Dispenser, value *string, words ...string) error {
	name := d.Val()
	if !d.AllArgs(value) || !slices.Contains(words, *value) {
		return d.Errf("%s %q: want one of %v", name, *value, words)
	}
	return nil
}

func (h *Handler) unmarshalMaxBody(d *caddyfile.Dispenser) error {
	var text string
	if !d.AllArgs(&text) {
		return d.Errf("max_body: want one size, such as 1MiB")
	}
	size, err := humanize.ParseBytes(text)
	if err != nil || size == 0 || size > 1<<40 {
		return d.Errf("max_body %q: want a positive size, such as 1MiB; it cannot be unlimited", text)
	}
	h.MaxBody = int64(size)
	return nil
}

func (h *Handler) unmarshalConsoleCheck(d *caddyfile.Dispenser) error {
	var text string
	if err := oneOf(d, &text, "on", "off"); err != nil {
		return err
	}
	on := text == "on"
	h.ConsoleCheck = &on
	return nil
}

// Interface guards
var _ caddyfile.Unmarshaler = (*Handler)(nil)
