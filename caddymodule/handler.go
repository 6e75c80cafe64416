// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

// Package caddymodule provides the tim_callback HTTP handler for Caddy. Package callback
// implements the protocol.
package caddymodule

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/timguard/timguard/caddymodule/callback"
	"github.com/timguard/timguard/caddymodule/internal/name"
)

func init() {
	caddy.RegisterModule(Handler{})
}

// Handler guards an endpoint for callbacks of Tencent Cloud Chat (IM). It checks
// SdkAppid, Sign, RequestTime and CallbackCommand in the query, and the payload against
// the schema of the command. Then it performs the action of the first rule that names
// the command. Forwarded callbacks keep their body and query byte for byte.
//
// Refused callbacks are not passed to the next handler: they are answered with an HTTP
// status and a FAIL answer in Tencent's format, and logged.
//
// It sets these placeholders, which are empty if the callback does not have the value:
//
// Placeholder | Description
// ------------|---------------
// `{http.tim_callback.sdk_app_id}` | SdkAppid of the query
// `{http.tim_callback.command}` | CallbackCommand of the query
// `{http.tim_callback.class}` | `before` or `after`
// `{http.tim_callback.group_id}` | GroupId of the payload
// `{http.tim_callback.topic_id}` | TopicId of the payload
// `{http.tim_callback.from}` | The accounts that sent or caused it, such as From_Account, separated by commas; at most 100
// `{http.tim_callback.to}` | The accounts that it is about, such as To_Account, separated by commas; at most 100
// `{http.tim_callback.operator}` | UserID of the requester: Operator_Account or, in some commands, another field
// `{http.tim_callback.conversation}` | What belongs in one order: the topic, group, room or official account; else the two accounts, the smaller first, separated by a comma; else the account
// `{http.tim_callback.group_type}` | Type of the payload
// `{http.tim_callback.event_time}` | EventTime of the payload, in milliseconds
// `{http.tim_callback.event_id}` | A hash of app, command and body in hex, which is the same if the event is sent again; random if nothing in the payload distinguishes the event from a later one
// `{http.tim_callback.msg_seqs}` | MsgSeq of the messages of the event, separated by commas; at most 100
// `{http.tim_callback.msg_key}` | MsgKey of the message, or of the first of several
// `{http.tim_callback.opt_platform}` | OptPlatform of the query
// `{http.tim_callback.client_ip}` | ClientIP of the query: the address of the end user, not of the caller
// `{http.tim_callback.action}` | What the guard did: `forward`, `ack`, `forbid`, `deliver`, `reject`, or `console_check`
// `{http.tim_callback.verdict}` | What the guard answered in the backend's place: `allow`, `forbid` or `deliver`; empty if the backend answered
// `{http.tim_callback.consumer}` | The consumer that a delivery is for; empty for the guard's own backend
// `{http.tim_callback.reason}` | Why the callback was refused, or in report mode would have been
// `{http.tim_callback.path}` | The place of the fault: a query parameter, or a JSON pointer into the body
//
// The access log has the same values in the object `tim_callback`.
type Handler struct {
	// The apps whose callbacks are accepted. At least one is required.
	Apps []App `json:"apps,omitempty"`

	// The rules for commands. The first rule that names a command applies. Commands
	// that no rule names are refused. Default: forward Group.CallbackAfterRecallMsg.
	Rules []Rule `json:"rules,omitempty"`

	// Whether to refuse callbacks that fail a check: `enforce` refuses them, `report`
	// logs and counts them. In report mode, all callbacks are forwarded, whatever the
	// rules say. Default: `enforce`.
	Mode string `json:"mode,omitempty"`

	// The maximum difference between RequestTime and the local clock, in either
	// direction. Default: `1m`.
	Window caddy.Duration `json:"window,omitempty"`

	// The maximum size of a body, in bytes. Default: 1048576 (1 MiB).
	MaxBody int64 `json:"max_body,omitempty"`

	// Whether to remove Sign and RequestTime from the query of forwarded callbacks.
	// Default: false.
	StripAuth bool `json:"strip_auth,omitempty"`

	// Whether to answer OK to the console's URL check: a correctly signed request with
	// an empty body or `{}`, whatever its other parameters. Such a request is never
	// forwarded. Default: true if any app has tokens.
	ConsoleCheck *bool `json:"console_check,omitempty"`

	// How to refuse callbacks: `answer` responds with the HTTP status and a FAIL
	// answer in JSON, `handle_errors` invokes the error routes of the site. Default:
	// `answer`.
	Rejections string `json:"rejections,omitempty"`

	// The backend to which `forward` passes callbacks on, and to which stored callbacks are
	// delivered. Required by `deliver` and `fallback deliver`. Default: `forward` passes
	// callbacks on to the next handler of the site.
	Backend *Backend `json:"backend,omitempty"`

	// The consumers that rules can copy callbacks to.
	Consumers []Consumer `json:"consumers,omitempty"`

	// The name of this guard in logs and stored deliveries: up to 64 lower-case
	// letters and digits, and single `-` or `_` between them. No guard that stores
	// callbacks may have the name of another one that stores any, or that has a backend or
	// consumers. Default: `default`.
	Name string `json:"name,omitempty"`

	apps     map[string]*App
	anyToken *callback.Verifier // accepts the tokens of all apps; nil if the console check is off
	known    map[string]*Rule   // the rules for the known commands
	logger   *zap.Logger
	drifted  *sync.Map // the commands whose Drift was logged

	blocks     []*caddyfile.Dispenser // of backend and consumers, until FinalizeUnmarshalCaddyfile
	positions  []caddyfile.Token      // of the rules in the Caddyfile
	guard      *Guard
	history    *history
	deliveries Deliveries // nil if the guard has no routes of its own
	server     *caddyhttp.Server
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

// Provision sets up the handler. It logs an error besides returning it, because Caddy puts
// the names of all modules on the way to this one in front of it.
func (h *Handler) Provision(ctx caddy.Context) error {
	h.logger = ctx.Logger()
	err := h.provision(ctx)
	if err != nil {
		h.logger.Error("tim_callback does not load: " + err.Error())
	}
	return err
}

func (h *Handler) provision(ctx caddy.Context) error {
	h.drifted = new(sync.Map)
	h.server, _ = ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	h.setDefaults()
	config, err := h.hash()
	if err != nil {
		return err
	}
	h.provisionRules()
	if err := h.provisionApps(); err != nil {
		return err
	}
	if err := h.provisionRoutes(ctx); err != nil {
		return err
	}
	if err := registerMetrics(ctx.GetMetricsRegistry()); err != nil {
		return err
	}
	h.initTokenCounters()
	if err := h.provisionDeliveries(ctx, config); err != nil {
		return err
	}
	h.load()
	return nil
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

// Validate rejects invalid settings, and warns of questionable ones.
func (h *Handler) Validate() error {
	if err := h.check(); err != nil {
		return err
	}
	h.warnOfRules()
	h.warnOfSharedTokens()
	h.logStartup()
	return nil
}

// check rejects invalid settings. Those that are not set are valid, so it can be called
// without Provision.
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
		return errors.New("console_check is on, but no app has a token: without a Sign, the console's check cannot be authenticated")
	}
	for i, app := range h.Apps {
		if err := app.check(h.Apps[:i]); err != nil {
			return err
		}
	}
	if h.Name != "" {
		if err := name.Check(h.Name); err != nil {
			return err
		}
	}
	for i, rule := range h.Rules {
		if err := rule.check(h.Rules[:i]); err != nil {
			return fmt.Errorf("on, rule %d: %w", i+1, err)
		}
	}
	return h.checkRoutes()
}

// ServeHTTP judges the callback, records the result, performs the action, and remembers the
// call.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	h.guard.inProgress.Add(1)
	defer h.guard.inProgress.Add(-1)
	c := h.judge(r)
	h.record(r, c)
	defer func() { // also if the handler aborts, as reverse_proxy does when an answer breaks off
		seen := c.remembered(h.logsAccess() || isWatched())
		h.history.add(&seen)
		c.body.Release()
	}()
	return h.act(w, r, next, c)
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddy.Validator             = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
)
