// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"strconv"

	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
)

func init() {
	httpcaddyfile.RegisterGlobalOption("tim_delivery", parseDelivery)
}

func parseDelivery(d *caddyfile.Dispenser, existing any) (any, error) {
	if existing != nil {
		d.Next() // to the option's name, whose line the error gives
		return nil, d.Errf("tim_delivery is given twice")
	}
	app := new(Delivery)
	if err := app.UnmarshalCaddyfile(d); err != nil {
		return nil, err
	}
	return httpcaddyfile.App{Name: "tim_delivery", Value: caddyconfig.JSON(app, nil)}, nil
}

// UnmarshalCaddyfile sets up the app from Caddyfile tokens. Syntax:
//
//	tim_delivery {
//		store        sqlite [<path>] | postgres <dsn>
//		workers      <n>
//		timeout      <duration>
//		max_attempts <n>
//		keep         <duration>
//		keep_dead    <duration>
//	}
func (d *Delivery) UnmarshalCaddyfile(disp *caddyfile.Dispenser) error {
	disp.Next() // consume option name
	if disp.NextArg() {
		return disp.Errf("tim_delivery takes no argument, but %q stands after it", disp.Val())
	}
	for nesting := disp.Nesting(); disp.NextBlock(nesting); {
		if err := d.unmarshalOption(disp); err != nil {
			return err
		}
	}
	return nil
}

func (d *Delivery) unmarshalOption(disp *caddyfile.Dispenser) error {
	switch name := disp.Val(); name {
	case "store":
		return d.unmarshalStore(disp)
	case "workers":
		return positiveNumber(disp, &d.Workers)
	case "max_attempts":
		return positiveNumber(disp, &d.MaxAttempts)
	case "timeout":
		return positiveDuration(disp, &d.Timeout)
	case "keep":
		return positiveDuration(disp, &d.Keep)
	case "keep_dead":
		return positiveDuration(disp, &d.KeepDead)
	default:
		return disp.Errf("unrecognized option %q of tim_delivery: want store, workers, timeout, max_attempts, keep or keep_dead", name)
	}
}

func (d *Delivery) unmarshalStore(disp *caddyfile.Dispenser) error {
	args := disp.RemainingArgs()
	switch {
	case len(args) == 1 && args[0] == storeSQLite:
		d.Store = &Store{Driver: storeSQLite}
	case len(args) == 2 && args[0] == storeSQLite:
		d.Store = &Store{Driver: storeSQLite, Path: args[1]}
	case len(args) == 2 && args[0] == storePostgres && args[1] != "":
		d.Store = &Store{Driver: storePostgres, DSN: args[1]}
	default:
		return disp.Errf("store: want sqlite [<path>] or postgres <dsn>")
	}
	return nil
}

// positiveNumber reads the one argument, a number from 1 to 1000.
func positiveNumber(d *caddyfile.Dispenser, value *int) error {
	name := d.Val()
	var text string
	if !d.AllArgs(&text) {
		return d.Errf("%s: want one number", name)
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > 1000 {
		return d.Errf("%s %q: want a number from 1 to 1000", name, text)
	}
	*value = n
	return nil
}

// Interface guards
var _ caddyfile.Unmarshaler = (*Delivery)(nil)
