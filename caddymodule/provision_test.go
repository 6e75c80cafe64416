// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/timguard/timguard/caddymodule/internal/guardtest"
)

func provision(t *testing.T, h *Handler) error {
	t.Helper()
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	t.Cleanup(cancel)
	if err := h.Provision(ctx); err != nil {
		return err
	}
	return h.Validate()
}

func TestJSONConfigIsValidated(t *testing.T) {
	t.Parallel()
	const app = `"apps":[{"sdk_app_id":"1400000000","tokens":["token"]}]`
	for config, want := range map[string]string{
		`{}`:                              "no app",
		`{"apps":[{}]}`:                   "want the SDKAppID",
		`{"apps":[{"sdk_app_id":"abc"}]}`: "want the SDKAppID",
		`{"apps":[{"sdk_app_id":"1"},{"sdk_app_id":"1"}]}`:                                                  "given twice",
		`{"apps":[{"sdk_app_id":"1","tokens":[""]}]}`:                                                       "token 1",
		`{"apps":[{"sdk_app_id":"1","tokens":["a","{env.TIMGUARD_TEST_UNSET}"]}]}`:                          "token 2",
		`{"apps":[{"sdk_app_id":"{env.TIMGUARD_TEST_UNSET}"}]}`:                                             "TIMGUARD_TEST_UNSET",
		`{"apps":[{"sdk_app_id":"1","unsigned":true}],"console_check":true}`:                                "console_check",
		`{` + app + `,"mode":"off"}`:                                                                        "enforce or report",
		`{` + app + `,"rejections":"errors"}`:                                                               "answer or handle_errors",
		`{` + app + `,"window":-1}`:                                                                         "positive duration",
		`{` + app + `,"max_body":-1}`:                                                                       "positive size",
		`{` + app + `,"max_body":9223372036854775807}`:                                                      "cannot be unlimited",
		`{` + app + `,"name":"two words"}`:                                                                  "name",
		`{` + app + `,"rules":[{}]}`:                                                                        "rule 1",
		`{` + app + `,"rules":[{"commands":["A"],"action":"forward"},{"commands":["A*B"],"action":"ack"}]}`: "rule 2",
		`{` + app + `,"rules":[{"commands":["A"],"action":"allow"}]}`:                                       "action",
		`{` + app + `,"rules":[{"commands":["group.callbackafterrecallmsg"],"action":"ack"}]}`:              "did you mean Group.CallbackAfterRecallMsg?",
		`{"apps":[{"sdk_app_id":"1"}]}`:                                                                     "unsigned",
		`{"apps":[{"sdk_app_id":"1","tokens":[]}]}`:                                                         "has no token",
		`{"apps":[{"sdk_app_id":"1","tokens":["a"],"unsigned":true}]}`:                                      "leave out one",
		`{"apps":[{"sdk_app_id":"1","tokens":["{env.TIMGUARD_TEST_UNSET}"]}]}`:                              "of the running server",
		`{` + app + `,"rules":[{"commands":["A"],"action":"console_check"}]}`:                               "action",
		`{` + app + `,"rules":[{"commands":["Group.CallbackAfterRecalMsg"],"action":"ack"}]}`:               "did you mean Group.CallbackAfterRecallMsg?",
		`{` + app + `,"rules":[{"commands":["afer"],"action":"ack"}]}`:                                      "did you mean after?",
		`{` + app + `,"rules":[{"commands":["Befroe"],"action":"forward"}]}`:                                "did you mean before?",
		`{` + app + `,"rules":[{"commands":["A"],"action":"ack","deadline":1}]}`:                            "forward does",
		`{` + app + `,"rules":[{"commands":[""],"action":"ack"}]}`:                                          "empty",
	} {
		t.Run(config, func(t *testing.T) {
			t.Parallel()
			h := new(Handler)
			if err := json.Unmarshal([]byte(config), h); err != nil {
				t.Fatal(err)
			}
			if err := provision(t, h); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("error %v, want one with %q", err, want)
			}
		})
	}
}

func TestDefaultsOfAProvisionedHandler(t *testing.T) {
	t.Parallel()
	h := provisioned(t, &Handler{Apps: []App{{SdkAppID: guardtest.App, Unsigned: true}}})
	if h.Window != caddy.Duration(60e9) || h.MaxBody != 1<<20 || h.Mode != modeEnforce || h.Rejections != rejectionsAnswer || h.Name != "default" || h.anyToken != nil {
		t.Errorf("defaults %+v", h)
	}
	if h = provisioned(t, &Handler{Apps: []App{{SdkAppID: guardtest.App, Tokens: []string{"x"}}}}); h.anyToken == nil {
		t.Error("console_check is off with a token, want it on")
	}
}

// `caddy validate` and `caddy adapt --validate` must work while the server is running
// and uses the ports.
func TestValidateNeedsNoNetwork(t *testing.T) {
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	var config caddy.Config
	if err := json.Unmarshal([]byte(`{"admin":{"disabled":true},"apps":{"http":{"servers":{"s":{"listen":["`+listener.Addr().String()+
		`"],"routes":[{"handle":[{"handler":"tim_callback","apps":[{"sdk_app_id":"1","tokens":["token"]}]}]}]}}}}}`), &config); err != nil {
		t.Fatal(err)
	}
	if err := caddy.Validate(&config); err != nil {
		t.Error(err)
	}
}

func FuzzUnmarshalCaddyfile(f *testing.F) {
	f.Setenv("TIM_TOKEN", "token")
	for _, seed := range []string{
		"tim_callback",
		"tim_callback 1400000000",
		"tim_callback 1 2 {\n app 3 a b\n}",
		"tim_callback {\n app 1400000000 {env.TIM_TOKEN} {file./nonexistent}\n}",
		"tim_callback 1 {\n on Group.CallbackAfterRecallMsg C2C.* forward\n on * reject\n}",
		"tim_callback 1 {\n mode report\n window 90s\n max_body 64KiB\n strip_auth\n console_check off\n rejections handle_errors\n name a-1\n}",
		"tim_callback 1 {\n on\n}",
		"tim_callback 1 {\n on \"\" ack\n window 0\n max_body 0\n}",
		"tim_callback 1 {\n max_body 18446744073709551615\n window 9999999h\n}",
		"tim_callback 1 {\n on before forbid 120001 \"no\"\n on after forward {\n deadline 1s\n fallback allow\n }\n}",
		"tim_callback 1 {\n app {x} {}\n",
		"tim_callback 1 }{\n",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, "{file.") || strings.Contains(text, "{$") {
			return // it would read files of this machine
		}
		h := new(Handler)
		if h.UnmarshalCaddyfile(caddyfile.NewTestDispenser(text)) != nil {
			return
		}
		config, err := json.Marshal(h)
		if err != nil {
			t.Fatal(err)
		}
		again := new(Handler)
		if err := json.Unmarshal(config, again); err != nil {
			t.Fatal(err)
		}
		if second, err := json.Marshal(again); err != nil || !bytes.Equal(second, config) {
			t.Errorf("JSON %s\nbecame %s, error %v", config, second, err)
		}
		_ = provision(t, again)
	})
}
