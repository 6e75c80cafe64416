// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

func init() {
	registerOption("copy", option{
		given:     func(r *Rule) bool { return len(r.Copy) > 0 },
		unmarshal: (*Rule).unmarshalCopy,
		check:     Rule.checkCopy,
	})
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

func (r Rule) checkCopy(earlier []Rule) error {
	for i, consumer := range r.Copy {
		if strings.ContainsAny(consumer, ":/.") {
			return fmt.Errorf("copy %s: want the name of a consumer, such as archive, and not its address", consumer)
		}
		if err := checkName(consumer); err != nil {
			return fmt.Errorf("copy: %w", err)
		}
		if slices.Contains(r.Copy[:i], consumer) {
			return fmt.Errorf("copy names %s twice", consumer)
		}
	}
	return r.checkAfterOnly(earlier, "copy")
}

// consumers returns the consumers of all rules, without duplicates.
func (h *Handler) consumers() []string {
	var consumers []string
	for _, rule := range h.Rules {
		consumers = append(consumers, rule.Copy...)
	}
	slices.Sort(consumers)
	return slices.Compact(consumers)
}

// copy stores the callback for the rule's consumers, if there are any. It logs and counts
// errors.
func (h *Handler) copy(r *http.Request, c *call) error {
	if len(c.rule.Copy) == 0 {
		return nil
	}
	err := h.storeFor(r, c, false, c.rule.Copy)
	if err != nil {
		countCopyFailure(c)
		h.logger.Error("storing callback for consumers failed",
			zap.String("guard", h.Name), zap.String("command", c.value("command")),
			zap.Strings("consumers", c.rule.Copy), zap.Error(err))
	}
	c.copied = err == nil
	return err
}
