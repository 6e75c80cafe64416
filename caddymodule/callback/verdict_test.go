// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

import (
	"strings"
	"testing"
)

func TestForbidCanBeSaidToEveryBeforeCommandOnly(t *testing.T) {
	t.Parallel()
	for _, c := range Commands() {
		err := CheckForbid(c.Name, 0)
		if (err == nil) != (c.Class == Before) {
			t.Errorf("%s: %v", c.Name, err)
		}
		if c.Class == After {
			continue
		}
		for _, r := range c.Codes {
			if CheckForbid(c.Name, r.From) != nil || CheckForbid(c.Name, r.To) != nil || r.From > r.To {
				t.Errorf("%s: an end of %v is refused", c.Name, r)
			}
		}
		for _, code := range []int{-1, 3, 10099, 10201, 37999, 39001, 120000, 130001} {
			if err := CheckForbid(c.Name, code); err == nil || !strings.Contains(err.Error(), c.Codes[0].String()) {
				t.Errorf("%s: code %d: %v", c.Name, code, err)
			}
		}
	}
}

func TestForbidForbids(t *testing.T) {
	t.Parallel()
	for _, c := range Commands() {
		if c.Class != Before {
			continue
		}
		for _, code := range []int{0, 1} {
			answer := Forbid(c.Name, Sample(c.Name), code, "no")
			forbids := answer.ErrorCode != 0
			for _, item := range answer.ResultItem {
				forbids = item.ResultCode == 38000 && item.ToAccount != "" && item.ResultInfo == "no"
			}
			if !forbids || answer.ActionStatus != "OK" {
				t.Errorf("%s: %s forbids nothing", c.Name, answer.JSON())
			}
		}
	}
}

func TestFriendRequestsAreForbiddenTargetByTarget(t *testing.T) {
	t.Parallel()
	const body = `{"FriendItem":[{"To_Account":"a\"b","X":1},{"To_Account":"c"}]}`
	const want = `{"ActionStatus":"OK","ErrorInfo":"","ErrorCode":0,"ResultItem":[` +
		`{"To_Account":"a\"b","ResultCode":38001,"ResultInfo":"no"},{"To_Account":"c","ResultCode":38001,"ResultInfo":"no"}]}`
	if got := string(Forbid("Sns.CallbackPrevFriendAdd", []byte(body), 38001, "no").JSON()); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
