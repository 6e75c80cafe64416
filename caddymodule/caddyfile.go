// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"slices"
	"strconv"
	"strings"

	"github.com/dustin/go-humanize"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/timguard/timguard/caddymodule/internal/name"
	"github.com/timguard/timguard/caddymodule/internal/option"
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
	if err := h.FinalizeUnmarshalCaddyfile(helper); err != nil {
		return nil, err
	}
	if err := h.checkPositions(); err != nil {
		return nil, err
	}
	if err := h.check(); err != nil {
		return nil, helper.Errf("tim_callback: %v", err)
	}
	return h, nil
}

// checkPositions rejects rules without the routes that they need, with their positions.
func (h *Handler) checkPositions() error {
	for i, rule := range h.Rules {
		if err := h.checkRoutesOf(rule); err != nil {
			d := caddyfile.NewDispenser([]caddyfile.Token{h.positions[i]})
			d.Next()
			return d.Err(err.Error())
		}
	}
	return nil
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
//		backend       <upstream>...
//		backend {
//			accept       sound|answer|2xx|<json_pointer> <value>...
//			ordered
//			workers      <n>
//			timeout      <duration>
//			max_attempts <n>
//			rate         <n>/s
//			<directives...>
//		}
//		consumer      <name> <upstream>...
//		consumer      <name> {
//			<as in backend>
//		}
//		mode          enforce|report
//		window        <duration>
//		max_body      <size>
//		strip_auth
//		console_check on|off
//		rejections    answer|handle_errors
//		name          <name>
//	}
//
// FinalizeUnmarshalCaddyfile should be called after this, to parse the blocks of backend
// and consumers.
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
	switch subdirective := d.Val(); subdirective {
	case "app":
		return h.unmarshalApp(d)
	case "on":
		return h.unmarshalRule(d)
	case "mode":
		return option.OneOf(d, &h.Mode, modeEnforce, modeReport)
	case "rejections":
		return option.OneOf(d, &h.Rejections, rejectionsAnswer, rejectionsHandleErrors)
	case "window":
		return option.Duration(d, &h.Window)
	case "max_body":
		return h.unmarshalMaxBody(d)
	case "strip_auth":
		return option.Flag(d, &h.StripAuth)
	case "console_check":
		return h.unmarshalConsoleCheck(d)
	case "name":
		if !d.AllArgs(&h.Name) {
			return d.Errf("name: want one word")
		}
		if err := name.Check(h.Name); err != nil {
			return d.Err(err.Error())
		}
		return nil
	case "backend", "consumer":
		h.blocks = append(h.blocks, d.NewFromNextSegment())
		return nil
	case "token", "tokens":
		return d.Errf("tokens must follow their app: app <sdk_app_id> <token>...")
	default:
		switch {
		case slices.Contains(blockOptions, subdirective):
			return d.Errf("%s belongs in the block of a rule: on <command>... %s { %s … }", subdirective, strings.Join(actionsTaking[subdirective], "|"), subdirective)
		case slices.Contains(queueOptions, subdirective):
			return d.Errf("%s belongs in the block of backend or consumer", subdirective)
		}
		return d.Errf("unrecognized subdirective %q: want app, on, backend, consumer, mode, window, max_body, strip_auth, console_check, rejections or name", subdirective)
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
	h.positions = append(h.positions, d.Token())
	args := d.RemainingArgs()
	i := slices.IndexFunc(args, func(arg string) bool { return slices.Contains(actionNames, arg) })
	if i < 0 {
		return d.Errf("on: want <command>... and then one of %v, but got %q", actionNames, strings.Join(args, " "))
	}
	rule := Rule{Commands: args[:i], Action: args[i]}
	switch rest := args[i+1:]; {
	case len(rest) > 0 && slices.Contains(blockOptions, rest[0]):
		return d.Errf("%s belongs in braces, on lines of its own:\n\n\ton %s %s {\n\t\t%s\n\t}\n",
			rest[0], strings.Join(rule.Commands, " "), rule.Action, strings.Join(rest, " "))
	case rule.Action == actionForbid:
		if err := codeAndInfo(d, "forbid", rest, &rule.Code, &rule.Info); err != nil {
			return err
		}
	case len(rest) > 0:
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

// unmarshalOption parses one option in the rule's block.
func (r *Rule) unmarshalOption(d *caddyfile.Dispenser) error {
	word := d.Val()
	wanted := optionsOf(r.Action)
	switch {
	case len(actionsTaking[word]) > 0 && !slices.Contains(actionsTaking[word], r.Action):
		return d.Errf("on … %s takes no %s; %s does", r.Action, word, or(actionsTaking[word]))
	case len(wanted) == 0:
		return d.Errf("on … %s takes no block", r.Action)
	case word == "deadline":
		return option.Duration(d, &r.Deadline)
	case word == "fallback":
		return r.unmarshalFallback(d)
	case word == "copy":
		return r.unmarshalCopy(d)
	}
	return d.Errf("unrecognized option %q of %s: want %s", word, r.Action, or(wanted))
}

func (r *Rule) unmarshalFallback(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	switch {
	case len(args) == 0 || !slices.Contains(verdicts, args[0]):
		return d.Errf("fallback %q: want one of %v", strings.Join(args, " "), verdicts)
	case args[0] == verdictForbid:
		r.Fallback = &Fallback{Verdict: verdictForbid}
		return codeAndInfo(d, "fallback forbid", args[1:], &r.Fallback.Code, &r.Fallback.Info)
	case len(args) > 1:
		return d.Errf("fallback %s takes no arguments, but got %q", args[0], args[1])
	case args[0] == verdictNone:
		r.Fallback = nil
	default:
		r.Fallback = &Fallback{Verdict: args[0]}
	}
	return nil
}

// unmarshalCopy parses consumers, which are added to those of earlier lines.
func (r *Rule) unmarshalCopy(d *caddyfile.Dispenser) error {
	consumers := d.RemainingArgs()
	if len(consumers) == 0 {
		return d.Errf("copy: want <consumer>...")
	}
	r.Copy = append(r.Copy, consumers...)
	return nil
}

// codeAndInfo parses the arguments of forbid.
func codeAndInfo(d *caddyfile.Dispenser, what string, args []string, code *int, info *string) (err error) {
	if len(args) > 2 {
		return d.Errf("%s: want [<code> [<info>]]; quote an info of several words", what)
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
	if err := option.OneOf(d, &text, "on", "off"); err != nil {
		return err
	}
	on := text == "on"
	h.ConsoleCheck = &on
	return nil
}

// Interface guards
var _ caddyfile.Unmarshaler = (*Handler)(nil)
