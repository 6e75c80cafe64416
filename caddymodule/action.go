// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// What the guard does with a callback. Rules can use all but console_check.
const (
	actionForward      = "forward"
	actionAck          = "ack"
	actionForbid       = "forbid"
	actionDeliver      = "deliver"
	actionReject       = "reject"
	actionConsoleCheck = "console_check"
)

// actionNames are the actions of rules, in the order of the documentation.
var actionNames = []string{actionForward, actionAck, actionForbid, actionDeliver, actionReject}

// actionsTaking maps the options of rules to the actions that take them.
var actionsTaking = map[string][]string{
	"deadline": {actionForward},
	"fallback": {actionForward},
	"copy":     {actionForward, actionAck, actionDeliver},
	"code":     {actionForbid},
	"info":     {actionForbid},
}

// blockOptions are the options that are written in the block of a rule.
var blockOptions = []string{"deadline", "fallback", "copy"}

// optionsOf returns the block options that the action takes.
func optionsOf(action string) []string {
	return slices.DeleteFunc(slices.Clone(blockOptions), func(option string) bool {
		return !slices.Contains(actionsTaking[option], action)
	})
}

// act performs the action of the call.
func (h *Handler) act(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, c *call) error {
	switch c.action {
	case actionForward:
		return h.forward(w, r, next, c)
	case actionAck:
		return h.ack(w, r, c)
	case actionForbid:
		return c.forbid(w)
	case actionDeliver:
		return h.deliver(w, r, c)
	case actionReject:
		return h.reject(w, r, c)
	case actionConsoleCheck:
		return c.answerOK(w)
	}
	return caddyhttp.Error(http.StatusInternalServerError, fmt.Errorf("unknown action: %s", c.action))
}

// or joins words as in "a, b or c".
func or(words []string) string {
	last := len(words) - 1
	if last < 1 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:last], ", ") + " or " + words[last]
}
