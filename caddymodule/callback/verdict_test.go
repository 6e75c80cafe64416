// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

import (
	"strings"
	"testing"
)

func TestOnlyBeforeCommandsCanBeForbidden(t *testing.T) {
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

func TestForbid(t *testing.T) {
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

func TestForbidIsNeverLongerThanTheRequest(t *testing.T) {
	t.Parallel()
	const megabyte = 1 << 20
	long := strings.Repeat("no ", 100)
	for name, body := range map[string]string{
		"empty targets":          `{"FriendItem":[` + strings.Repeat("{},", megabyte/3) + `{}]}`,
		"one-letter targets":     `{"FriendItem":[` + strings.Repeat(`{"To_Account":"a"},`, megabyte/19) + `{"To_Account":"b"}]}`,
		"several in an element":  `{"FriendItem":[{` + strings.Repeat(`"To_Account":"a",`, megabyte/17) + `"x":1}]}`,
		"the other list":         `{"ResponseFriendItem":[` + strings.Repeat(`{"To_Account":""},`, 1000) + `{}]}`,
		"broken after them":      `{"FriendItem":[` + strings.Repeat(`{"To_Account":"a"},`, 1000),
		"targets of the sample":  string(Sample("Sns.CallbackPrevFriendAdd")),
		"targets worth escaping": `{"FriendItem":[` + strings.Repeat("{\"To_Account\":\"\xff\\u0001\"},", 1000) + `{}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, info := range []string{"", "closed", long} {
				answer := Forbid("Sns.CallbackPrevFriendAdd", []byte(body), 0, info).JSON()
				if len(answer) > max(len(body), minRequest) {
					t.Errorf("%d bytes of answer to %d bytes of request", len(answer), len(body))
				}
			}
		})
	}
}

func TestForbidKeepsAllTargetsOfGenuineFriendRequests(t *testing.T) {
	t.Parallel()
	item := `{"To_Account":"id1","Remark":"remark1","TagName":"` + "\u540c\u5b66" + `","ResponseAction":"Response_Action_AgreeAndAdd"}`
	body := `{"CallbackCommand":"Sns.CallbackPrevFriendResponse","Requester_Account":"id","From_Account":"id","ResponseFriendItem":[` +
		strings.Repeat(item+",", 99) + item + `]}`
	if answer := Forbid("Sns.CallbackPrevFriendResponse", []byte(body), 0, "closed"); len(answer.ResultItem) != 100 || answer.ResultItem[99].ResultInfo != "closed" {
		t.Errorf("%d targets are forbidden, want 100, with the info", len(answer.ResultItem))
	}
}
