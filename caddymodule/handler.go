// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

// Package caddymodule holds the Caddy modules of timguard: the tim_callback
// HTTP handler and what belongs to it. It turns Caddy's configuration and HTTP
// into calls of package callback, which knows the protocol.
package caddymodule

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"time"

	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/timguard/timguard/caddymodule/callback"
)

func init() {
	caddy.RegisterModule(Handler{})
}

// Handler guards an endpoint that Tencent Cloud Chat (IM) calls back. It checks
// SdkAppid, Sign, RequestTime and CallbackCommand of the query and the payload
// against its command's schema, and then does what the first rule that names the
// command says. What it forwards keeps its body and query byte for byte.
//
// What it refuses never reaches the handlers behind it; the caller gets the
// status of the reason and a FAIL answer in Tencent's form, and the log one line.
//
// It sets these placeholders, which are empty where the callback does not say:
//
// Placeholder | Description
// ------------|---------------
// `{http.tim_callback.sdk_app_id}` | SdkAppid of the query
// `{http.tim_callback.command}` | CallbackCommand of the query
// `{http.tim_callback.class}` | `before` or `after`
// `{http.tim_callback.group_id}` | GroupId of the payload
// `{http.tim_callback.topic_id}` | TopicId of the payload
// `{http.tim_callback.operator}` | The requester's UserID, whose field's name differs by command
// `{http.tim_callback.group_type}` | Type of the payload
// `{http.tim_callback.event_time}` | EventTime of the payload, in milliseconds
// `{http.tim_callback.msg_seqs}` | MsgSeq of the messages it is about, separated by commas
// `{http.tim_callback.opt_platform}` | OptPlatform of the query
// `{http.tim_callback.client_ip}` | ClientIP of the query: the end user's address, not the peer's
// `{http.tim_callback.action}` | What the guard did: `forward`, `ack`, `forbid`, `deliver`, `reject`, or `console_check`
// `{http.tim_callback.consumer}` | In a delivery: the consumer that it is for; empty for the guard's own backend
// `{http.tim_callback.reason}` | Why the callback was refused, or in report mode would have been
// `{http.tim_callback.path}` | Where the fault is: a parameter's name, or a JSON pointer into the body
//
// The access log carries the same values in the object `tim_callback`.
type Handler struct {
	// The apps whose callbacks are let in. At least one.
	Apps []App `json:"apps,omitempty"`

	// What is done with which commands. The first rule that names a command
	// counts, and a command that none names is refused. Default: forward
	// Group.CallbackAfterRecallMsg.
	Rules []Rule `json:"rules,omitempty"`

	// What happens to a callback that is to be refused: `enforce` refuses it,
	// `report` logs and counts it and forwards it anyway. In report mode
	// everything is forwarded, whatever the rules say. Default: `enforce`.
	Mode string `json:"mode,omitempty"`

	// How far RequestTime may be from the local clock, in either direction.
	// Default: `1m`.
	Window caddy.Duration `json:"window,omitempty"`

	// The largest body that is let in, in bytes. Default: 1048576 (1 MiB).
	MaxBody int64 `json:"max_body,omitempty"`

	// Whether Sign and RequestTime are removed from the query that is forwarded.
	// Default: false.
	StripAuth bool `json:"strip_auth,omitempty"`

	// Whether to answer OK to the console's URL check: a correctly signed call
	// whose body is empty or `{}`, whatever its other parameters. Such a call is
	// never forwarded. Default: true if any app has tokens.
	ConsoleCheck *bool `json:"console_check,omitempty"`

	// How callbacks are refused: `answer` writes the status and a FAIL answer in
	// JSON, `handle_errors` returns the error to the site's error routes.
	// Default: `answer`.
	Rejections string `json:"rejections,omitempty"`

	// The identity of this guard in logs and stored deliveries: lower-case letters
	// and digits, in words joined by `-` or `_`. Two guards that deliver cannot have
	// the same. Default: `default`.
	Name string `json:"name,omitempty"`

	apps     map[string]*App
	anyToken *callback.Verifier // of every app; nil if the console's check is not answered
	known    map[string]*Rule   // the rules of the known commands
	logger   *zap.Logger

	deliveries Deliveries        // nil if nothing is stored
	server     *caddyhttp.Server // that it is part of, and deliveries go through
}

const (
	modeEnforce = "enforce"
	modeReport  = "report"

	rejectionsAnswer       = "answer"
	rejectionsHandleErrors = "handle_errors"

	defaultWindow  = time.Minute
	defaultMaxBody = 1 << 20
	defaultName    = "default"
)

// CaddyModule returns the Caddy module information.
func (Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.tim_callback",
		New: func() caddy.Module { return new(Handler) },
	}
}

// Provision sets up the handler.
func (h *Handler) Provision(ctx caddy.Context) error {
	h.logger = ctx.Logger()
	h.server, _ = ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	h.setDefaults()
	if err := h.provisionApps(); err != nil {
		return err
	}
	if err := registerMetrics(ctx.GetMetricsRegistry()); err != nil {
		return err
	}
	return h.provisionDeliveries(ctx)
}

func (h *Handler) setDefaults() {
	h.Window = cmp.Or(h.Window, caddy.Duration(defaultWindow))
	h.MaxBody = cmp.Or(h.MaxBody, defaultMaxBody)
	h.Mode = cmp.Or(h.Mode, modeEnforce)
	h.Rejections = cmp.Or(h.Rejections, rejectionsAnswer)
	h.Name = cmp.Or(h.Name, defaultName)
	for i, rule := range h.Rules {
		if rule.Fallback != nil && rule.Fallback.Verdict == verdictNone {
			h.Rules[i].Fallback = nil
		}
	}
	if len(h.Rules) == 0 {
		h.Rules = []Rule{{Commands: []string{callback.RecallCommand}, Action: actionForward}}
	}
}

// Validate rejects invalid settings, and warns of those that are hardly meant.
func (h *Handler) Validate() error {
	if err := h.check(); err != nil {
		return err
	}
	h.provisionRules()
	h.countTokens()
	return nil
}

// check rejects settings that make no sense, given or not.
func (h *Handler) check() error {
	switch {
	case len(h.Apps) == 0:
		return errors.New("no app: write tim_callback <sdk_app_id>, or app <sdk_app_id> <token> in its block")
	case h.Window < 0:
		return fmt.Errorf("window is %s: want a positive duration such as 1m", time.Duration(h.Window))
	case h.MaxBody < 0 || h.MaxBody > 1<<40:
		return fmt.Errorf("max_body is %d: want a positive size such as 1MiB; it cannot be unlimited", h.MaxBody)
	case h.Mode != "" && h.Mode != modeEnforce && h.Mode != modeReport:
		return fmt.Errorf("mode is %q: want enforce or report", h.Mode)
	case h.Rejections != "" && h.Rejections != rejectionsAnswer && h.Rejections != rejectionsHandleErrors:
		return fmt.Errorf("rejections is %q: want answer or handle_errors", h.Rejections)
	case h.ConsoleCheck != nil && *h.ConsoleCheck && !h.hasTokens():
		return errors.New("console_check is on, but no app has a token: only the Sign tells the console's check from a forged call")
	}
	for i, app := range h.Apps {
		if err := app.check(h.Apps[:i]); err != nil {
			return err
		}
	}
	if h.Name != "" {
		if err := checkName(h.Name); err != nil {
			return err
		}
	}
	for i, rule := range h.Rules {
		if err := rule.check(h.Rules[:i]); err != nil {
			return fmt.Errorf("on, rule %d: %w", i+1, err)
		}
	}
	return nil
}

var nameFormat = regexp.MustCompile(`^[a-z0-9]+(?:[_-]?[a-z0-9]+)*$`)

// checkName rejects what cannot name a guard in stored deliveries.
func checkName(name string) error {
	if len(name) > 64 || !nameFormat.MatchString(name) {
		return fmt.Errorf("name %q: want up to 64 lower-case letters and digits, in words joined by single - or _", name)
	}
	return nil
}

// ServeHTTP judges the callback, records what it found, and does what its rule says.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	c := h.judge(r)
	h.record(r, c)
	action, ok := actions[c.action]
	if !ok {
		return noSuchAction(c.action)
	}
	err := action.serve(h, w, r, next, c)
	c.body.release()
	return err
}

func noSuchAction(name string) error {
	return caddyhttp.Error(http.StatusInternalServerError, fmt.Errorf("no such action: %s", name))
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddy.Validator             = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
)
