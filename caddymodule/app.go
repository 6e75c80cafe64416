// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/timguard/timguard/caddymodule/callback"
	"github.com/timguard/timguard/caddymodule/internal/option"
)

// App is an app whose callbacks are accepted.
type App struct {
	// The SDKAppID of the app in Tencent's console: a decimal number, as a string. It
	// may be a placeholder, like the tokens.
	SdkAppID AppID `json:"sdk_app_id,omitempty"`

	// The authentication tokens of the app's callbacks in Tencent's console. A callback
	// is accepted if its Sign was made with any of them, so a token can be rotated
	// without downtime. Placeholders such as `{env.TOKEN}` and
	// `{file./run/secrets/token}` are replaced when the configuration is loaded, and
	// must have a value then.
	Tokens []string `json:"tokens,omitempty"`

	// Whether the app intentionally has no token. If so, requests from anybody who
	// knows the URL and the app's ID are accepted. Required if there are no tokens, so
	// that an empty variable cannot disable authentication.
	Unsigned bool `json:"unsigned,omitempty"`

	// These are unexported because Caddy's trace log prints exported fields.
	id       string
	verifier *callback.Verifier // nil if there are no tokens
	secrets  []string           // the tokens with placeholders replaced; the first one signs deliveries
}

// AppID is an SDKAppID in decimal, or a placeholder for one.
type AppID string

// UnmarshalJSON implements [json.Unmarshaler]. It accepts only strings; for a number,
// the error shows the string to write.
func (id *AppID) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] != '"' {
		if number := bytes.TrimSpace(b); appIDFormat.Match(number) {
			return fmt.Errorf("sdk_app_id is the number %s: write it as a string, \"%s\"", number, number)
		}
		return errors.New(`sdk_app_id: want a string, such as "1400000000"`)
	}
	return json.Unmarshal(b, (*string)(id))
}

var appIDFormat = regexp.MustCompile(`^[1-9]\d{0,19}$`)

// isPlaceholder reports whether s is a single placeholder.
func isPlaceholder(s string) bool { return len(s) > 2 && s[0] == '{' && s[len(s)-1] == '}' }

// check rejects invalid settings. earlier are the apps before this one. Errors do not
// contain text that may be a misplaced token.
func (a App) check(earlier []App) error {
	switch {
	case !appIDFormat.MatchString(string(a.SdkAppID)) && !isPlaceholder(string(a.SdkAppID)):
		return errors.New("app: want the SDKAppID of Tencent's console, in decimal, and then its tokens")
	case slices.ContainsFunc(earlier, func(e App) bool { return e.SdkAppID == a.SdkAppID }):
		return fmt.Errorf("app %s is given twice: write all its tokens after one app %s", a.SdkAppID, a.SdkAppID)
	case slices.Contains(a.Tokens, ""):
		return fmt.Errorf("app %s: a token is empty; if it comes from the environment, is the variable set?", a.SdkAppID)
	case len(a.Tokens) > 0 && a.Unsigned:
		return fmt.Errorf("app %s has a token and is unsigned: leave out one of them", a.SdkAppID)
	case len(a.Tokens) == 0 && !a.Unsigned:
		return fmt.Errorf("app %s has no token: write it after the ID, or the word unsigned to accept any request with this SdkAppid; "+
			"if the token comes from the environment, is the variable set?", a.SdkAppID)
	}
	return nil
}

// provision replaces placeholders and sets up the verifier. Errors may contain the name
// of a placeholder, but never a secret.
func (a *App) provision(window time.Duration) (err error) {
	if a.id, err = option.Expand(string(a.SdkAppID)); err != nil {
		return fmt.Errorf("app %s: %w", a.SdkAppID, err)
	}
	if a.id != string(a.SdkAppID) && !appIDFormat.MatchString(a.id) {
		return fmt.Errorf("app %s: the value is not an SDKAppID in decimal", a.SdkAppID)
	}
	if len(a.Tokens) == 0 {
		return nil
	}
	if a.secrets, err = resolveTokens(a.Tokens); err != nil {
		return fmt.Errorf("app %s: %w", a.id, err)
	}
	a.verifier, err = callback.NewVerifier(a.secrets, window, time.Now)
	return err
}

func resolveTokens(tokens []string) ([]string, error) {
	var resolved []string
	for i, token := range tokens {
		value, err := option.Expand(token)
		if err != nil {
			return nil, fmt.Errorf("token %d: %w", i+1, err)
		}
		if value == "" {
			return nil, fmt.Errorf("token %d is empty", i+1)
		}
		resolved = append(resolved, value)
	}
	return resolved, nil
}

// provisionApps sets up the apps, and the console check with all their tokens.
func (h *Handler) provisionApps() error {
	h.apps = make(map[string]*App, len(h.Apps))
	var tokens, unsigned []string
	for i := range h.Apps {
		a := &h.Apps[i]
		if err := a.provision(time.Duration(h.Window)); err != nil {
			return err
		}
		if h.apps[a.id] != nil {
			return fmt.Errorf("app %s is given twice: write all its tokens after one app %s", a.id, a.id)
		}
		h.apps[a.id] = a
		tokens = append(tokens, a.secrets...)
		if a.verifier == nil {
			unsigned = append(unsigned, a.id)
		}
	}
	if len(unsigned) > 0 {
		h.logger.Warn("apps without a token accept any callback from anybody who knows the URL; "+
			"enable authentication in the console and configure the token", zap.Strings("sdk_app_ids", unsigned))
	}
	return h.provisionConsoleCheck(tokens)
}

func (h *Handler) hasTokens() bool {
	return slices.ContainsFunc(h.Apps, func(a App) bool { return len(a.Tokens) > 0 })
}

// Interface guards
var _ json.Unmarshaler = (*AppID)(nil)
