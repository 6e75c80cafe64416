// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

import (
	"bytes"
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
// targets of the body; without any it forbids nothing. It is never longer than the
// request, so that nobody can make a guard multiply traffic: where the infos would
// make it so, it has none, and where targets are packed more densely than in any
// payload of Tencent's, it leaves out the last ones.
func Forbid(command string, body []byte, code int, info string) Answer {
	if codes := codesOf(command); code <= 1 && len(codes) > 0 {
		code = codes[0].From
	}
	if !strings.HasPrefix(command, "Sns.") {
		return Answer{ActionStatus: "OK", ErrorInfo: info, ErrorCode: code}
	}
	room := max(len(body), leastRequest)
	answer := forbidTargets(targets(body), code, info)
	if len(answer.JSON()) <= room {
		return answer
	}
	answer = forbidTargets(targets(body), code, "")
	size := len(OK().JSON()) + len(`,"ResultItem":[]`)
	for i, item := range answer.ResultItem {
		b, err := json.Marshal(item)
		if size += len(b) + len(","); size > room || err != nil {
			answer.ResultItem = answer.ResultItem[:i]
			break
		}
	}
	return answer
}

// leastRequest is how many bytes a request has whatever its body: a line with Sign
// and command, and headers.
const leastRequest = 512

func forbidTargets(targets []string, code int, info string) Answer {
	answer := OK()
	for _, target := range targets {
		answer.ResultItem = append(answer.ResultItem, ResultItem{ToAccount: target, ResultCode: code, ResultInfo: info})
	}
	return answer
}

// targets returns the users that a friend request is about, at most as many as a
// verdict of the body's length has room for. It reads what it can also of a body
// that [Inspect] rejects, because a target that the verdict leaves out is allowed.
func targets(body []byte) []string {
	const leastItem = len(`{"To_Account":"","ResultCode":38000,"ResultInfo":""},`)
	dec := jsontext.NewDecoder(bytes.NewBuffer(body), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	var accounts []string
	for len(accounts) <= max(len(body), leastRequest)/leastItem {
		token, err := dec.ReadToken()
		if err != nil { // also at the end
			break
		}
		isName := token.Kind() == '"' && token.String() == "To_Account"
		if !isName || !isTarget(dec.StackPointer()) || dec.PeekKind() != '"' {
			continue
		}
		if token, err = dec.ReadToken(); err == nil {
			accounts = append(accounts, strings.ToValidUTF8(token.String(), "\ufffd"))
		}
	}
	return accounts
}

// isTarget reports whether the pointer is to the user of an element of either
// command's list.
func isTarget(at jsontext.Pointer) bool {
	list := at.Parent().Parent()
	return at.LastToken() == "To_Account" && (list == "/FriendItem" || list == "/ResponseFriendItem")
}
