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
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/timguard/timguard/caddymodule/callback"
	"github.com/timguard/timguard/caddymodule/outbox"
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
// `{http.tim_callback.reason}` | Why the callback was refused, or in report mode would have been
// `{http.tim_callback.path}` | Where the fault is: a parameter's name, or a JSON pointer into the body
//
// The access log carries the same values in the object `tim_callback`.
type Handler struct {
	// The apps whose callbacks are let in. At least one.
	Apps []App `json:"app,omitempty"`

	// What is done with which commands. The first rule that names a command
	// counts, and a command that none names is refused. Default: forward
	// Group.CallbackAfterRecallMsg.
	Rules []Rule `json:"on,omitempty"`

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

	apps         map[string]*app
	anyToken     *callback.Verifier // every app's tokens; nil without any
	consoleCheck bool
	rules        ruleSet
	delivery     *Delivery         // nil if nothing is stored
	server       *caddyhttp.Server // that it is part of, and deliveries go through
	logger       *zap.Logger
}

// App is an app whose callbacks are let in.
type App struct {
	// SDKAppID of the app in Tencent's console, in decimal.
	SdkAppID string `json:"sdk_app_id,omitempty"`

	// The authentication tokens of the app's callbacks in Tencent's console. Any of
	// them may have made a callback's Sign, so that a token can be rotated.
	// Placeholders such as `{env.TOKEN}` and `{file./run/secrets/token}` are
	// replaced when the configuration loads, and must have a value then. Without
	// tokens anybody who knows the URL and the app's ID is let in.
	Tokens []string `json:"tokens,omitempty"`
}

// app is an App with its secrets, which must stay unexported: Caddy's trace log
// prints exported fields.
type app struct {
	id        string
	verifier  *callback.Verifier // nil without tokens
	token     string             // the first one, which signs deliveries
	tokenUses []prometheus.Counter
	done      map[string]func() prometheus.Counter // by command; of what its rule does
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
	if err := h.check(); err != nil {
		return err
	}
	h.rules = newRuleSet(h.Rules)
	h.rules.warn(h.logger)
	if err := h.provisionApps(); err != nil {
		return err
	}
	if err := registerMetrics(ctx.GetMetricsRegistry()); err != nil {
		return err
	}
	if err := h.provisionDelivery(ctx); err != nil {
		return err
	}
	h.countTokens() // last, because what is counted stays when a configuration fails
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

// check reports values that cannot be meant.
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
	if h.Name != "" {
		if err := outbox.CheckGuard(h.Name); err != nil {
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

func (h *Handler) hasTokens() bool {
	return slices.ContainsFunc(h.Apps, func(a App) bool { return len(a.Tokens) > 0 })
}

var appIDFormat = regexp.MustCompile(`^[1-9]\d{0,19}$`)

func (h *Handler) provisionApps() error {
	repl := caddy.NewReplacer()
	h.apps = make(map[string]*app, len(h.Apps))
	var all []string
	for i, a := range h.Apps {
		id, err := repl.ReplaceOrErr(a.SdkAppID, true, true)
		if err != nil {
			return fmt.Errorf("app %s: %w", a.SdkAppID, err)
		}
		if !appIDFormat.MatchString(id) {
			return fmt.Errorf("app %d: want the SDKAppID of Tencent's console, in decimal", i+1) // the value may be a token
		}
		if h.apps[id] != nil {
			return fmt.Errorf("app %s is given twice: write all its tokens after one app %s", id, id)
		}
		tokens, err := resolveTokens(repl, a.Tokens)
		if err != nil {
			return fmt.Errorf("app %s: %w", id, err)
		}
		h.apps[id] = &app{id: id, done: doneCounters(id, h.rules.known)}
		if len(tokens) == 0 {
			h.logger.Warn("app has no token: whoever knows the URL and the SdkAppid can post any callback; "+
				"switch authentication on in the console and give the token", zap.String("sdk_app_id", id))
			continue
		}
		if h.apps[id].verifier, err = callback.NewVerifier(tokens, time.Duration(h.Window), time.Now); err != nil {
			return fmt.Errorf("app %s: %w", id, err)
		}
		h.apps[id].token = tokens[0]
		h.apps[id].tokenUses = make([]prometheus.Counter, len(tokens))
		all = append(all, tokens...)
	}
	return h.provisionConsoleCheck(all)
}

// resolveTokens replaces placeholders. Its errors name the placeholder, which is
// the place of a secret, never a secret.
func resolveTokens(repl *caddy.Replacer, tokens []string) ([]string, error) {
	var resolved []string
	for i, token := range tokens {
		value, err := repl.ReplaceOrErr(token, true, true)
		if err != nil && isPlaceholder(token) {
			return nil, fmt.Errorf("token %d has no value: %w; is the variable set, or the file readable?", i+1, err)
		}
		if err != nil { // the error would show a part of what may be the token
			return nil, fmt.Errorf("token %d: what stands in braces in it has no value; write \\{ for a brace of its own", i+1)
		}
		if value == "" {
			return nil, fmt.Errorf("token %d is empty", i+1)
		}
		resolved = append(resolved, value)
	}
	return resolved, nil
}

func (h *Handler) provisionConsoleCheck(tokens []string) (err error) {
	h.consoleCheck = len(tokens) > 0
	if h.ConsoleCheck != nil {
		h.consoleCheck = *h.ConsoleCheck
	}
	if h.consoleCheck {
		h.anyToken, err = callback.NewVerifier(tokens, time.Duration(h.Window), time.Now)
	}
	return err
}

// ServeHTTP judges the callback and does what its rule says.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if delivery := h.deliveryOf(r); delivery != nil {
		return h.passOn(w, r, next, delivery)
	}
	c := h.inspect(r)
	h.record(r, c)
	switch c.action {
	case actionForward:
		return h.forward(w, r, next, c)
	case actionDeliver:
		return h.deliver(w, r, next, c)
	}
	c.closeUnread(w, r)
	switch {
	case c.action == actionReject:
		return h.reject(w, c)
	case c.fellBack():
		h.verdict(w, r, c)
	case c.action == actionForbid:
		h.forbid(w, c, c.rule.Code, c.rule.Info)
	default:
		writeAnswer(w, http.StatusOK, okAnswer)
	}
	return nil
}

func (h *Handler) forward(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, c *call) error {
	h.prepare(r, c)
	if h.Mode == modeEnforce && c.rule.Fallback != nil {
		return h.forwardOrFallback(w, r, next, c)
	}
	return next.ServeHTTP(w, r)
}

// prepare makes the request what is forwarded of it.
func (h *Handler) prepare(r *http.Request, c *call) {
	c.body.giveBack(r)
	delete(r.Header, attemptHeader) // only a delivery has it
	if h.StripAuth {
		stripAuth(r)
	}
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
)
