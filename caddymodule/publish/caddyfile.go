// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package publish

import (
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/timguard/timguard/caddymodule/internal/option"
)

func init() {
	httpcaddyfile.RegisterHandlerDirective("tim_publish", parseCaddyfile)
	httpcaddyfile.RegisterDirectiveOrder("tim_publish", httpcaddyfile.Before, "reverse_proxy")
}

func parseCaddyfile(helper httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	h := new(Handler)
	err := h.UnmarshalCaddyfile(helper.Dispenser)
	return h, err
}

// UnmarshalCaddyfile sets up the handler from Caddyfile tokens. Syntax:
//
//	tim_publish [<matcher>] <broker> <args>... {
//	    header <name> <value>
//	    timeout <duration>
//	    <options of the broker>
//	}
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume directive name
	if !d.NextArg() {
		return d.Errf("want a broker, one of %s", strings.Join(brokerNames(), ", "))
	}
	name := d.Val()
	if !slices.Contains(brokerNames(), name) {
		return d.Errf("unknown broker %q: this Caddy has %s", name, strings.Join(brokerNames(), ", "))
	}
	args := caddyfile.Segment{d.Token()}
	for d.NextArg() {
		args = append(args, d.Token())
	}
	var options caddyfile.Segment
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		known, err := h.unmarshalOption(d)
		if err != nil {
			return err
		}
		if !known {
			options = append(options, d.NextSegment()...)
		}
	}
	if len(options) > 0 {
		// A copy of the closing brace, because a copy of a quoted argument would be
		// another argument.
		open, end := d.Token(), d.Token()
		open.Text, open.Line = "{", args[len(args)-1].Line
		args = slices.Concat(args, caddyfile.Segment{open}, options, caddyfile.Segment{end})
	}
	segment := caddyfile.NewDispenser(args)
	segment.Next()
	broker, err := caddyfile.UnmarshalModule(segment, "tim_publish.brokers."+name)
	if err != nil {
		return err
	}
	h.BrokerRaw = caddyconfig.JSONModuleObject(broker, "module", name, nil)
	return nil
}

// unmarshalOption parses an option of the handler. It returns false if the dispenser is at
// an option of the broker.
func (h *Handler) unmarshalOption(d *caddyfile.Dispenser) (known bool, err error) {
	switch d.Val() {
	case "timeout":
		return true, option.Duration(d, &h.Timeout)
	case "header":
		var name, value string
		if !d.AllArgs(&name, &value) {
			return true, d.Errf("header: want <name> <value>")
		}
		if _, twice := h.Headers[name]; twice {
			return true, d.Errf("header %s is given twice", name)
		}
		if err := checkHeader(name, value); err != nil {
			return true, d.WrapErr(err)
		}
		if h.Headers == nil {
			h.Headers = make(map[string]string)
		}
		h.Headers[name] = value
		return true, nil
	}
	return false, nil
}

// Interface guard
var _ caddyfile.Unmarshaler = (*Handler)(nil)
