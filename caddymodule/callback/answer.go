// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

import "github.com/go-json-experiment/json"

// Answer is the response body that Tencent expects to a callback, with HTTP 200. The
// first three fields are always present. For after-callbacks it is an
// acknowledgement; for before-callbacks ErrorCode is the verdict. See
// https://www.tencentcloud.com/document/product/1047/34354.
type Answer struct {
	// "OK" when the callback was processed, "FAIL" when it was not.
	ActionStatus string `json:"ActionStatus"`

	// Text for the end user where ErrorCode is one of the app's own codes.
	ErrorInfo string `json:"ErrorInfo"`

	// 0 allows; 1 forbids; 2 discards silently (send-message commands only);
	// or one of the app's own codes, in the range of the command's family.
	ErrorCode int `json:"ErrorCode"`

	// The verdict on each target of a friend request. Tencent ignores the ErrorCode
	// of such an answer.
	ResultItem []ResultItem `json:"ResultItem,omitempty"`
}

// ResultItem is the verdict on one target of Sns.CallbackPrevFriendAdd
// (https://trtc.io/document/43468) or Sns.CallbackPrevFriendResponse
// (https://trtc.io/document/43467).
type ResultItem struct {
	ToAccount  string `json:"To_Account"`
	ResultCode int    `json:"ResultCode"` // 0 allows, 38000 to 39000 forbid
	ResultInfo string `json:"ResultInfo"`
}

// OK is the answer that acknowledges an after-callback and allows a
// before-callback.
func OK() Answer { return Answer{ActionStatus: "OK"} }

// Fail is the answer of an endpoint that refused or could not process the
// callback. It is not a verdict: what it means to Tencent is the Silence of the
// command.
func Fail(info string) Answer {
	return Answer{ActionStatus: "FAIL", ErrorInfo: info, ErrorCode: 1}
}

// JSON returns the answer as a response body, in the field order of Tencent's
// documentation.
func (a Answer) JSON() []byte {
	b, err := json.Marshal(a)
	if err != nil { // only invalid UTF-8 fails
		a.ErrorInfo = ""
		b, _ = json.Marshal(a)
	}
	return b
}
