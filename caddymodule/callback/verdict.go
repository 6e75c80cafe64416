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

// CodeRange is an inclusive range of ErrorCodes.
type CodeRange struct {
	From int `json:"from"`
	To   int `json:"to"`
}

// The codes that forbid an action. See the documentation of each command, and
// https://www.tencentcloud.com/document/product/1047/34354.
var (
	forbidCode  = CodeRange{1, 1}
	discardCode = CodeRange{2, 2}           // silently; the sender sees success
	ownCodes    = CodeRange{120001, 130000} // chosen by the app, passed to its client with ErrorInfo
	groupCodes  = CodeRange{10100, 10200}   // the same, for group callbacks
	snsCodes    = CodeRange{38000, 39000}   // for a ResultItem
	giftCodes   = CodeRange{102100, 102200} // the same as ownCodes, for gifts
)

// unknownCodes are the codes for before-callbacks that are not in the table.
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

// CheckForbid returns an error if the command cannot be forbidden with the code. Codes
// 0 and 1 stand for the command's default code. The error says which codes are valid.
func CheckForbid(command string, code int) error {
	codes := codesOf(command)
	if len(codes) == 0 {
		return fmt.Errorf("%s is an after-callback, which cannot be forbidden", command)
	}
	if code == 0 || code == 1 || slices.ContainsFunc(codes, func(r CodeRange) bool { return r.From <= code && code <= r.To }) {
		return nil
	}
	var want []string
	for _, r := range codes {
		want = append(want, r.String())
	}
	return fmt.Errorf("code %d is not valid for %s: want %s", code, command, strings.Join(want, ", "))
}

// String formats the range as "1" or "10100-10200".
func (r CodeRange) String() string {
	if r.From == r.To {
		return fmt.Sprint(r.From)
	}
	return fmt.Sprintf("%d-%d", r.From, r.To)
}

// Forbid returns the answer that forbids the action of a before-callback. It must be
// sent with HTTP 200: to Tencent, any other status is no answer. Codes 0 and 1 stand
// for the command's default code. The info is shown to the end user if the code is one
// of the app's own.
//
// Friend requests are forbidden target by target, so the answer lists the targets of
// the body; if there are none, it forbids nothing. The answer is never longer than the
// request, so that it cannot be used to amplify traffic: if necessary, the infos are
// dropped, and then the last targets. The latter does not happen with genuine
// payloads.
func Forbid(command string, body []byte, code int, info string) Answer {
	if codes := codesOf(command); code <= 1 && len(codes) > 0 {
		code = codes[0].From
	}
	if !strings.HasPrefix(command, "Sns.") {
		return Answer{ActionStatus: "OK", ErrorInfo: info, ErrorCode: code}
	}
	all, limit := targets(body), max(len(body), minRequest)
	answer := forbidTargets(all, code, info, limit)
	if len(answer.ResultItem) < len(all) {
		answer = forbidTargets(all, code, "", limit)
	}
	return answer
}

// minRequest is the approximate size in bytes of a request without its body.
const minRequest = 512

// forbidTargets forbids as many of the targets as fit in an answer of the size.
func forbidTargets(targets []string, code int, info string, size int) Answer {
	answer := OK()
	size -= len(answer.JSON()) + len(`,"ResultItem":[]`)
	for _, target := range targets {
		item := ResultItem{ToAccount: target, ResultCode: code, ResultInfo: info}
		b, err := json.Marshal(item)
		if size -= len(b) + len(","); size < 0 || err != nil {
			break
		}
		answer.ResultItem = append(answer.ResultItem, item)
	}
	return answer
}

// targets returns the target accounts of a friend request, at most as many as fit in
// an answer of the length of the body. It also reads as much as it can of a body that
// [Inspect] rejects, because Tencent allows the targets that the answer leaves out.
func targets(body []byte) []string {
	const minItem = len(`{"To_Account":"","ResultCode":38000,"ResultInfo":""},`)
	dec := jsontext.NewDecoder(bytes.NewBuffer(body), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	var accounts []string
	for len(accounts) <= max(len(body), minRequest)/minItem {
		token, err := dec.ReadToken()
		if err != nil { // including io.EOF
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

// isTarget reports whether the pointer refers to the To_Account of a friend request.
func isTarget(at jsontext.Pointer) bool {
	list := at.Parent().Parent()
	return at.LastToken() == "To_Account" && (list == "/FriendItem" || list == "/ResponseFriendItem")
}
