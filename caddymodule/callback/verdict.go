// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

import (
	"fmt"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// CodeRange is a range of ErrorCodes, both ends included.
type CodeRange struct {
	From int `json:"from"`
	To   int `json:"to"`
}

// The codes that forbid. See the page of each command, and
// https://www.tencentcloud.com/document/product/1047/34354.
var (
	forbidCode  = CodeRange{1, 1}
	discardCode = CodeRange{2, 2}           // silently; the sender sees success
	ownCodes    = CodeRange{120001, 130000} // an app's own, shown to its client with ErrorInfo
	groupCodes  = CodeRange{10100, 10200}   // an app's own for group callbacks
	snsCodes    = CodeRange{38000, 39000}   // of a ResultItem
)

// unknownCodes are what can be said of a command that is not in the table.
var unknownCodes = []CodeRange{forbidCode}

func codesOf(command string) []CodeRange {
	if c, ok := Lookup(command); ok {
		return c.Codes
	}
	if ClassOf(command) == Before {
		return unknownCodes
	}
	return nil
}

// CheckForbid reports whether the command can be forbidden with the code; 0 and
// 1 stand for the command's plain refusal. The error says what could be written
// instead.
func CheckForbid(command string, code int) error {
	codes := codesOf(command)
	if len(codes) == 0 {
		return fmt.Errorf("%s tells what has happened: it cannot be forbidden", command)
	}
	if code == 0 || code == 1 || slices.ContainsFunc(codes, func(r CodeRange) bool { return r.From <= code && code <= r.To }) {
		return nil
	}
	var want []string
	for _, r := range codes {
		want = append(want, r.String())
	}
	return fmt.Errorf("code %d is not one of %s's: want %s", code, command, strings.Join(want, ", "))
}

// String returns the range as "1" or "10100-10200".
func (r CodeRange) String() string {
	if r.From == r.To {
		return fmt.Sprint(r.From)
	}
	return fmt.Sprintf("%d-%d", r.From, r.To)
}

// Forbid is the verdict that forbids what a before-callback asks for: HTTP 200
// with a code that is not 0, because Tencent takes any other status for no
// answer. The codes 0 and 1 stand for the command's plain refusal. The info is shown
// to the end user where the code is the app's own.
//
// Friend requests are forbidden target by target, so that the verdict repeats the
// targets of the body; without any it forbids nothing.
func Forbid(command string, body []byte, code int, info string) Answer {
	if codes := codesOf(command); code <= 1 && len(codes) > 0 {
		code = codes[0].From
	}
	if !strings.HasPrefix(command, "Sns.") {
		return Answer{ActionStatus: "OK", ErrorInfo: info, ErrorCode: code}
	}
	answer := OK()
	for _, target := range targets(body) {
		answer.ResultItem = append(answer.ResultItem, ResultItem{ToAccount: target, ResultCode: code, ResultInfo: info})
	}
	return answer
}

// targets returns the users that a friend request is about. It reads what it
// can also of a body that [Inspect] refuses, because a target that the verdict
// leaves out is allowed.
func targets(body []byte) []string {
	lenient := json.JoinOptions(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	var payload struct {
		FriendItem         []jsontext.Value
		ResponseFriendItem []jsontext.Value
	}
	_ = json.Unmarshal(body, &payload, lenient)
	var accounts []string
	for _, item := range slices.Concat(payload.FriendItem, payload.ResponseFriendItem) {
		var target struct {
			ToAccount string `json:"To_Account"`
		}
		if json.Unmarshal(item, &target, lenient) == nil {
			accounts = append(accounts, target.ToAccount)
		}
	}
	return accounts
}
