// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

// Package option parses options: those of Caddyfiles that have one argument, for which the
// dispenser must be at the option's name, and those in queries. Errors mention the name.
package option

import (
	"errors"
	"slices"
	"strconv"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// Duration parses a positive duration.
func Duration(d *caddyfile.Dispenser, value *caddy.Duration) error {
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

// Number parses a number from 1 to 1000.
func Number(d *caddyfile.Dispenser, value *int) error {
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

// OneOf parses one of the words.
func OneOf(d *caddyfile.Dispenser, value *string, words ...string) error {
	name := d.Val()
	if !d.AllArgs(value) || !slices.Contains(words, *value) {
		return d.Errf("%s %q: want one of %v", name, *value, words)
	}
	return nil
}

// Flag parses an option without arguments.
func Flag(d *caddyfile.Dispenser, value *bool) error {
	name := d.Val()
	if d.NextArg() {
		return d.Errf("%s takes no arguments, but got %q", name, d.Val())
	}
	*value = true
	return nil
}

// Text parses a text that is not empty.
func Text(d *caddyfile.Dispenser, value *string) error {
	name := d.Val()
	if !d.AllArgs(value) || *value == "" {
		return d.Errf("%s: want one argument", name)
	}
	return nil
}

// Attempts are the options of attempts to deliver stored callbacks, which the app
// tim_delivery has as well as each queue.
type Attempts struct {
	Workers     *int
	Timeout     *caddy.Duration
	MaxAttempts *int
}

// Check rejects invalid settings.
func (a Attempts) Check() error {
	switch {
	case *a.Workers < 0 || *a.Workers > 1000:
		return errors.New("workers: want a number from 1 to 1000")
	case *a.MaxAttempts < 0 || *a.MaxAttempts > 1000:
		return errors.New("max_attempts: want a number from 1 to 1000")
	case *a.Timeout < 0:
		return errors.New("timeout must be positive")
	}
	return nil
}

// Unmarshal parses the option at which the dispenser is. It returns false if it is none of
// these.
func (a Attempts) Unmarshal(d *caddyfile.Dispenser) (known bool, err error) {
	switch d.Val() {
	case "workers":
		return true, Number(d, a.Workers)
	case "timeout":
		return true, Duration(d, a.Timeout)
	case "max_attempts":
		return true, Number(d, a.MaxAttempts)
	}
	return false, nil
}
