// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/timguard/timguard/caddymodule/callback"
)

const actionForbid = "forbid"

func init() {
	registerAction(actionForbid, action{
		options: []string{"code", "info"},
		unmarshalArgs: func(r *Rule, d *caddyfile.Dispenser, args []string) error {
			return codeAndInfo(d, "forbid", args, &r.Code, &r.Info)
		},
		check: func(r Rule, earlier []Rule) error { return r.checkForbid(earlier, "forbid", r.Code) },
		serve: (*Handler).forbid,
	})
	registerOption("code", option{given: func(r *Rule) bool { return r.Code != 0 }})
	registerOption("info", option{given: func(r *Rule) bool { return r.Info != "" }})
}

// forbid answers a verdict that forbids the action of a before-callback.
func (*Handler) forbid(w http.ResponseWriter, _ *http.Request, _ caddyhttp.Handler, c *call) error {
	code, info := c.rule.Code, c.rule.Info
	if c.verdict != nil {
		code, info = c.verdict.Code, c.verdict.Info
	}
	c.answer(w, http.StatusOK, callback.Forbid(c.query.CallbackCommand, c.body.bytes, code, info).JSON())
	return nil
}

// checkForbid rejects commands that cannot be forbidden with the code.
func (r Rule) checkForbid(earlier []Rule, what string, code int) error {
	if err := r.checkBeforeOnly(what); err != nil {
		return err
	}
	if code < 0 {
		return errors.New(what + ": want a positive code")
	}
	for _, command := range r.commands(earlier) {
		if err := callback.CheckForbid(command, code); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
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
