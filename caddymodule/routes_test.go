// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"encoding/json"
	"strings"
	"testing"
)

// anywhere is a backend in JSON.
const anywhere = `{"routes":[{"handle":[{"handler":"static_response"}]}]}`

func TestCopyIsChecked(t *testing.T) {
	t.Parallel()
	for rules, want := range map[string]string{
		`{"commands":["after"],"action":"forward","copy":["archive","search-2"]}`:                                    "",
		`{"commands":["after"],"action":"ack","copy":["archive"]}`:                                                   "",
		`{"commands":["after"],"action":"deliver","copy":["archive"]}`:                                               "",
		`{"commands":["after"],"action":"reject","copy":[]}`:                                                         "",
		`{"commands":["New.CallbackAfterSomething"],"action":"ack","copy":["archive"]}`:                              "",
		`{"commands":["before"],"action":"forward"},{"commands":["*"],"action":"forward","copy":["archive"]}`:        "",
		`{"commands":["after"],"action":"reject","copy":["archive"]}`:                                                "reject takes no copy; forward, ack or deliver does",
		`{"commands":["before"],"action":"forbid","copy":["archive"]}`:                                               "forbid takes no copy; forward, ack or deliver does",
		`{"commands":["after"],"action":"ack","copy":["archive","archive"]}`:                                         "copy names archive twice",
		`{"commands":["after"],"action":"ack","copy":["an archive"]}`:                                                `copy: name "an archive"`,
		`{"commands":["after"],"action":"ack","copy":["` + strings.Repeat("a", 65) + `"]}`:                           "copy: name",
		`{"commands":["*"],"action":"ack","copy":["archive"]}`:                                                       "copy is only for after-callbacks, but Group.CallbackBeforeCreateGroup is a before-callback",
		`{"commands":["New.CallbackBeforeSomething"],"action":"forward","copy":["archive"]}`:                         "copy is only for after-callbacks, but New.CallbackBeforeSomething is a before-callback",
		`{"commands":["before"],"action":"forward","fallback":{"verdict":"allow"},"copy":["archive"]}`:               "copy is only for after-callbacks",
		`{"commands":["after"],"action":"forward","deadline":1000000000,"copy":["archive"]}`:                         "deadline has no effect without a fallback",
		`{"commands":["after"],"action":"forward","fallback":{"verdict":"deliver"},"copy":["archive","two  words"]}`: "copy: name",
	} {
		h := new(Handler)
		if err := json.Unmarshal([]byte(`{"apps":[{"sdk_app_id":"1400000000","unsigned":true}],"rules":[`+rules+`],"backend":`+anywhere+`,"consumers":[{"name":"archive",`+anywhere[1:]+`,{"name":"search-2",`+anywhere[1:]+`]}`), h); err != nil {
			t.Fatal(err)
		}
		switch err := h.check(); {
		case want == "" && err != nil:
			t.Errorf("%s: %v", rules, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: error %v, want %q", rules, err, want)
		}
	}
}

// A rule that copies is about after-callbacks alone, as each that stores is: also
// those that only their names tell.
func TestCopyIsForAfterCallbacksOnly(t *testing.T) {
	t.Parallel()
	rule := Rule{Commands: []string{"New.*"}, Action: actionForward, Copy: []string{"archive"}}
	for command, want := range map[string]bool{"New.CallbackAfterSomething": true, "New.CallbackBeforeSomething": false} {
		if got := rule.applies(command); got != want {
			t.Errorf("it names %s: %t, want %t", command, got, want)
		}
	}
}
