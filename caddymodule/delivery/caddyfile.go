// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"

	"github.com/timguard/timguard/caddymodule/internal/option"
)

func init() {
	httpcaddyfile.RegisterGlobalOption("tim_delivery", parseOption)
}

func parseOption(d *caddyfile.Dispenser, existing any) (any, error) {
	if existing != nil {
		d.Next() // the option's name, for the error's position
		return nil, d.Errf("tim_delivery is given twice: merge the two blocks")
	}
	app := new(Service)
	if err := app.UnmarshalCaddyfile(d); err != nil {
		return nil, err
	}
	return httpcaddyfile.App{Name: "tim_delivery", Value: caddyconfig.JSON(app, nil)}, nil
}

// UnmarshalCaddyfile sets up the app from Caddyfile tokens. Syntax:
//
//	tim_delivery {
//		store        <module> ...
//		workers      <n>
//		timeout      <duration>
//		max_attempts <n>
//		keep         <duration>
//		keep_dead    <duration>
//		encrypt      <key>...
//	}
func (s *Service) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume option name
	if d.NextArg() {
		return d.Errf("tim_delivery takes no arguments, but got %q", d.Val())
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		if err := s.unmarshalOption(d); err != nil {
			return err
		}
	}
	return nil
}

func (s *Service) unmarshalOption(d *caddyfile.Dispenser) error {
	if known, err := s.attempts().Unmarshal(d); known || err != nil {
		return err
	}
	switch name := d.Val(); name {
	case "store":
		return s.unmarshalStore(d)
	case "keep":
		return option.Duration(d, &s.Keep)
	case "keep_dead":
		return option.Duration(d, &s.KeepDead)
	case "encrypt":
		if s.Encrypt = append(s.Encrypt, d.RemainingArgs()...); len(s.Encrypt) == 0 {
			return d.Errf("encrypt: want at least one key, such as {file./run/secrets/tim_key}")
		}
		return nil
	default:
		return d.Errf("unrecognized option %q of tim_delivery: want store, workers, timeout, max_attempts, keep, keep_dead or encrypt", name)
	}
}

func (s *Service) unmarshalStore(d *caddyfile.Dispenser) error {
	if !d.NextArg() {
		return d.Errf("store: want one of %s", strings.Join(storeNames(), ", "))
	}
	name := d.Val()
	id := "tim_delivery.stores." + name
	if _, err := caddy.GetModule(id); err != nil {
		return d.Errf("store %q: want one of %s", name, strings.Join(storeNames(), ", "))
	}
	store, err := caddyfile.UnmarshalModule(d, id)
	if err != nil {
		return err
	}
	s.StoreRaw = caddyconfig.JSONModuleObject(store, "module", name, nil)
	return nil
}

// Interface guards
var _ caddyfile.Unmarshaler = (*Service)(nil)
