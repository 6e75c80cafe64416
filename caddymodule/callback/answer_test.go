// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

import "testing"

func TestAnswersHaveAllThreeFields(t *testing.T) {
	t.Parallel()
	for want, answer := range map[string]Answer{
		`{"ActionStatus":"OK","ErrorInfo":"","ErrorCode":0}`:                      OK(),
		`{"ActionStatus":"FAIL","ErrorInfo":"payload: /GroupId","ErrorCode":1}`:   Fail("payload: /GroupId"),
		`{"ActionStatus":"FAIL","ErrorInfo":"","ErrorCode":1}`:                    Fail(""),
		`{"ActionStatus":"OK","ErrorInfo":"\"quoted\" <b> \n","ErrorCode":10100}`: {ActionStatus: "OK", ErrorInfo: "\"quoted\" <b> \n", ErrorCode: 10100},
	} {
		if got := string(answer.JSON()); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestAnswersAreJSONWhateverTheirText(t *testing.T) {
	t.Parallel()
	const want = `{"ActionStatus":"FAIL","ErrorInfo":"","ErrorCode":1}`
	if got := string(Fail("\xff").JSON()); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
