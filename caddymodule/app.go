// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2"

	"github.com/timguard/timguard/caddymodule/callback"
)

// App is an app whose callbacks are let in.
type App struct {
	// SDKAppID of the app in Tencent's console: a decimal number, as a string.
	SdkAppID AppID `json:"sdk_app_id,omitempty"`

	// The authentication tokens of the app's callbacks in Tencent's console. Any of
	// them may have made a callback's Sign, so that a token can be rotated.
	// Placeholders such as `{env.TOKEN}` and `{file./run/secrets/token}` are
	// replaced when the configuration loads, and must have a value then.
	Tokens []string `json:"tokens,omitempty"`

	// Whether the app has no token on purpose. Then anybody who knows the URL and
	// the app's ID is let in. An app that has neither tokens nor this does not load.
	Unsigned bool `json:"unsigned,omitempty"`

	// Unexported, because Caddy's trace log prints exported fields.
	id       string
	verifier *callback.Verifier // nil without tokens
	secrets  []string           // the tokens, without placeholders; the first signs deliveries
}

// AppID is an SDKAppID, or a placeholder of one.
type AppID string

// UnmarshalJSON reads a string. It rejects a number by saying what to write.
func (id *AppID) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] != '"' {
		if number := bytes.TrimSpace(b); appIDFormat.Match(number) {
			return fmt.Errorf("sdk_app_id is the number %s: write it as a string, \"%s\"", number, number)
		}
		return fmt.Errorf("sdk_app_id: want a string, such as \"1400000000\"")
	}
	return json.Unmarshal(b, (*string)(id))
}

var appIDFormat = regexp.MustCompile(`^[1-9]\d{0,19}$`)

// isPlaceholder reports whether the whole text is one placeholder.
func isPlaceholder(s string) bool { return len(s) > 2 && s[0] == '{' && s[len(s)-1] == '}' }

// check rejects settings that make no sense, given the apps before it. What it
// says repeats no text that may be a token in the wrong place.
func (a App) check(earlier []App) error {
	switch {
	case !appIDFormat.MatchString(string(a.SdkAppID)) && !isPlaceholder(string(a.SdkAppID)):
		return fmt.Errorf("app %d: want the SDKAppID of Tencent's console, in decimal", len(earlier)+1)
	case slices.ContainsFunc(earlier, func(e App) bool { return e.SdkAppID == a.SdkAppID }):
		return fmt.Errorf("app %s is given twice: write all its tokens after one app %s", a.SdkAppID, a.SdkAppID)
	case slices.Contains(a.Tokens, ""):
		return fmt.Errorf("app %s: a token is empty; if it comes from the environment, is the variable set?", a.SdkAppID)
	case len(a.Tokens) > 0 && a.Unsigned:
		return fmt.Errorf("app %s has a token and is unsigned: leave out one of them", a.SdkAppID)
	case len(a.Tokens) == 0 && !a.Unsigned:
		return fmt.Errorf("app %s has no token: write it after the ID, or the word unsigned to let in every call that names the app; "+
			"if the token comes from the environment, is the variable set?", a.SdkAppID)
	}
	return nil
}

// provision replaces placeholders. Its errors name the placeholder, which is the
// place of a secret, never a secret.
func (a *App) provision(window time.Duration) (err error) {
	repl := caddy.NewReplacer()
	if a.id, err = repl.ReplaceOrErr(string(a.SdkAppID), true, true); err != nil {
		return fmt.Errorf("app %s: %w%s", a.SdkAppID, err, ofRunningServer)
	}
	if a.id != string(a.SdkAppID) && !appIDFormat.MatchString(a.id) {
		return fmt.Errorf("app %s: its value is no SDKAppID, which is decimal", a.SdkAppID)
	}
	if len(a.Tokens) == 0 {
		return nil
	}
	if a.secrets, err = resolveTokens(repl, a.Tokens); err != nil {
		return fmt.Errorf("app %s: %w", a.id, err)
	}
	a.verifier, err = callback.NewVerifier(a.secrets, window, time.Now)
	return err
}

// ofRunningServer ends errors about a placeholder without a value.
const ofRunningServer = "; what counts are the environment and the files of the running server: " +
	"a reload cannot bring it a new variable"

func resolveTokens(repl *caddy.Replacer, tokens []string) ([]string, error) {
	var resolved []string
	for i, token := range tokens {
		value, err := repl.ReplaceOrErr(token, true, true)
		if err != nil && isPlaceholder(token) {
			return nil, fmt.Errorf("token %d has no value: %w%s", i+1, err, ofRunningServer)
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

// provisionApps prepares the apps, and the verifier of all their tokens.
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
		h.logger.Warn("apps have no token: whoever knows the URL and an SdkAppid can post any callback; "+
			"switch authentication on in the console and give the token", zap.Strings("sdk_app_ids", unsigned))
	}
	return h.provisionConsoleCheck(tokens)
}

func (h *Handler) hasTokens() bool {
	return slices.ContainsFunc(h.Apps, func(a App) bool { return len(a.Tokens) > 0 })
}
