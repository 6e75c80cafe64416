// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"slices"
	"strings"

	"github.com/dustin/go-humanize"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// unsigned is the keyword for apps without tokens.
const unsigned = "unsigned"

func init() {
	httpcaddyfile.RegisterHandlerDirective("tim_callback", parseCaddyfile)

	// The handler must see the original URL, so it comes before all rewrites.
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
//		app           <sdk_app_id> <token>...|unsigned
//		on            <command>... forward [{
//			deadline <duration>
//			fallback none|allow|forbid [<code> [<info>]]|deliver
//			copy     <consumer>...
//		}]
//		on            <command>... ack [{
//			copy <consumer>...
//		}]
//		on            <command>... forbid [<code> [<info>]]
//		on            <command>... deliver [{
//			copy <consumer>...
//		}]
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
	if err := checkBraces(d); err != nil {
		return err
	}
	d.Next() // consume directive name
	for _, id := range d.RemainingArgs() {
		if !appIDFormat.MatchString(id) && !isPlaceholder(id) { // not quoted in the error, because it may be a token
			return d.Errf("tim_callback: want SDKAppIDs, in decimal; tokens go into its block, app <sdk_app_id> <token>...")
		}
		if err := h.addApp(d, App{SdkAppID: AppID(id), Unsigned: true}); err != nil {
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

// checkBraces rejects full-width braces, which a Chinese input method writes and which open
// no block.
func checkBraces(d *caddyfile.Dispenser) error {
	for tokens := d.NewFromNextSegment(); tokens.Next(); {
		if text := tokens.Val(); text == "｛" || text == "｝" {
			return tokens.Errf("full-width brace %s: write { or }", text)
		}
	}
	d.Reset()
	return nil
}

func (h *Handler) unmarshalSubdirective(d *caddyfile.Dispenser) error {
	switch name := d.Val(); name {
	case "app":
		return h.unmarshalApp(d)
	case "on":
		return h.unmarshalRule(d)
	case "mode":
		return oneOf(d, &h.Mode, modeEnforce, modeReport)
	case "rejections":
		return oneOf(d, &h.Rejections, rejectionsAnswer, rejectionsHandleErrors)
	case "window":
		return UnmarshalDuration(d, &h.Window)
	case "max_body":
		return h.unmarshalMaxBody(d)
	case "strip_auth":
		if d.NextArg() {
			return d.Errf("strip_auth takes no arguments, but got %q", d.Val())
		}
		h.StripAuth = true
		return nil
	case "console_check":
		return h.unmarshalConsoleCheck(d)
	case "name":
		if !d.AllArgs(&h.Name) {
			return d.Errf("name: want one word")
		}
		if err := checkName(h.Name); err != nil {
			return d.Err(err.Error())
		}
		return nil
	case "token", "tokens":
		return d.Errf("tokens must follow their app: app <sdk_app_id> <token>...")
	default:
		if options[name].unmarshal != nil {
			return d.Errf("%s belongs in the block of a rule: on <command>... %s { %s … }", name, strings.Join(actionsTaking(name), "|"), name)
		}
		return d.Errf("unrecognized subdirective %q: want app, on, mode, window, max_body, strip_auth, console_check, rejections or name", name)
	}
}

// unmarshalApp parses an app with its tokens, or with the keyword unsigned.
func (h *Handler) unmarshalApp(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	switch {
	case len(args) == 0:
		return d.Errf("app: want <sdk_app_id> <token>..., or <sdk_app_id> unsigned")
	case len(args) == 2 && args[1] == unsigned:
		return h.addApp(d, App{SdkAppID: AppID(args[0]), Unsigned: true})
	case slices.Contains(args[1:], unsigned):
		return d.Errf("app %s: unsigned cannot be combined with tokens", args[0])
	}
	return h.addApp(d, App{SdkAppID: AppID(args[0]), Tokens: args[1:]})
}

func (h *Handler) addApp(d *caddyfile.Dispenser, a App) error {
	if err := a.check(h.Apps); err != nil {
		return d.Err(err.Error())
	}
	h.Apps = append(h.Apps, a)
	return nil
}

func (h *Handler) unmarshalRule(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	i := slices.IndexFunc(args, func(arg string) bool { return slices.Contains(actionNames(), arg) })
	if i < 0 {
		return d.Errf("on: want <command>... and then one of %v, but got %q", actionNames(), strings.Join(args, " "))
	}
	rule := Rule{Commands: args[:i], Action: args[i]}
	action := actions[rule.Action]
	if err := checkOneLine(d, args[i:]); err != nil {
		return err
	}
	if rest := args[i+1:]; action.unmarshalArgs != nil {
		if err := action.unmarshalArgs(&rule, d, rest); err != nil {
			return err
		}
	} else if len(rest) > 0 {
		return d.Errf("on … %s takes no arguments, but got %q", rule.Action, rest[0])
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

// checkOneLine rejects an option that is written behind the action instead of in a block.
func checkOneLine(d *caddyfile.Dispenser, args []string) error {
	if len(args) < 2 || options[args[1]].unmarshal == nil {
		return nil
	}
	return d.Errf("%s belongs in braces, on lines of its own:\n\ton <command>... %s {\n\t\t%s\n\t}", args[1], args[0], strings.Join(args[1:], " "))
}

// UnmarshalDuration parses the only argument, a positive duration.
func UnmarshalDuration(d *caddyfile.Dispenser, value *caddy.Duration) error {
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

// oneOf parses the only argument, which must be one of the words.
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
