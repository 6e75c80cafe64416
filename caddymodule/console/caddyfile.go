// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package console

import (
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
)

func init() {
	// Not RegisterHandlerDirective, which would parse the prefix as a path matcher.
	httpcaddyfile.RegisterDirective("tim_console", parseConsole)
	httpcaddyfile.RegisterDirectiveOrder("tim_console", httpcaddyfile.Before, "reverse_proxy")
}

func parseConsole(h httpcaddyfile.Helper) ([]httpcaddyfile.ConfigValue, error) {
	c := new(Console)
	if err := c.UnmarshalCaddyfile(h.Dispenser); err != nil {
		return nil, err
	}
	return h.NewRoute(nil, c), nil
}

// UnmarshalCaddyfile sets up the handler from Caddyfile tokens. Syntax:
//
//	tim_console [<prefix>] {
//		read_only
//	}
func (c *Console) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume directive name
	if d.NextArg() {
		c.Prefix = d.Val()
	}
	if d.NextArg() {
		return d.Errf("tim_console takes only a prefix, but got %q as well", d.Val())
	}
	if err := checkPrefix(c.Prefix); err != nil {
		return d.Errf("tim_console: %v", err)
	}
	for d.NextBlock(0) {
		if d.Val() != "read_only" {
			return d.Errf("tim_console has no option %q: want read_only", d.Val())
		}
		if c.ReadOnly {
			return d.Errf("read_only is given twice")
		}
		c.ReadOnly = true
		if d.NextArg() {
			return d.Errf("read_only takes no argument, but got %q", d.Val())
		}
	}
	return nil
}

// Interface guards
var _ caddyfile.Unmarshaler = (*Console)(nil)
