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

// actionFunc performs an action.
type actionFunc func(h *Handler, w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, c *call) error

var actions = map[string]actionFunc{
	actionForward: (*Handler).forward,
	actionAck:     (*Handler).ack,
	actionForbid:  (*Handler).forbid,
	actionDeliver: (*Handler).deliver,
	actionReject:  (*Handler).reject,
	actionConsoleCheck: func(_ *Handler, w http.ResponseWriter, _ *http.Request, _ caddyhttp.Handler, c *call) error {
		return c.answerOK(w)
	},
}

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
	serve := actions[c.action]
	if serve == nil {
		return caddyhttp.Error(http.StatusInternalServerError, fmt.Errorf("unknown action: %s", c.action))
	}
	if h.isLoop(r, c) {
		h.answerLoop(w, c)
		return nil
	}
	return serve(h, w, r, next, c)
}

// or joins words as in "a, b or c".
func or(words []string) string {
	last := len(words) - 1
	if last < 1 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:last], ", ") + " or " + words[last]
}
