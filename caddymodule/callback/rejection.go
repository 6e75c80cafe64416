// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

import "fmt"

// Reason is the category of a Rejection, in one word. The set is closed, because it is
// used as a metric label.
type Reason string

// The reasons, in the order in which they are checked.
const (
	ReasonMethod   Reason = "method"    // not POST
	ReasonQuery    Reason = "query"     // malformed, duplicated or look-alike parameter
	ReasonApp      Reason = "app"       // SdkAppid missing or not configured
	ReasonUnsigned Reason = "unsigned"  // the app has tokens, and Sign or RequestTime is missing
	ReasonStale    Reason = "stale"     // RequestTime malformed or outside the window
	ReasonSign     Reason = "sign"      // Sign matches no token
	ReasonCommand  Reason = "command"   // CallbackCommand missing, or not allowed by any rule
	ReasonEncoding Reason = "encoding"  // Content-Encoding other than identity
	ReasonTooLarge Reason = "too_large" // the body is over the limit
	ReasonBody     Reason = "body"      // the body could not be read completely
	ReasonJSON     Reason = "json"      // the body is not one strict JSON object
	ReasonPayload  Reason = "payload"   // a field is missing, of the wrong type or out of range
	ReasonMismatch Reason = "mismatch"  // the body's CallbackCommand is not the query's
)

// Reasons returns all reasons, in the order in which they are checked.
func Reasons() []Reason {
	return []Reason{
		ReasonMethod, ReasonQuery, ReasonApp, ReasonUnsigned, ReasonStale, ReasonSign, ReasonCommand,
		ReasonEncoding, ReasonTooLarge, ReasonBody, ReasonJSON, ReasonPayload, ReasonMismatch,
	}
}

// Rejection is the error that says why a callback was refused. It never contains a
// payload value, a parameter's value, a token or a Sign, so it can be logged and shown
// to the caller.
type Rejection struct {
	Reason Reason

	// Where the fault is: the name of a query parameter, or a JSON pointer (RFC 6901)
	// into the body. Empty if the fault has no particular place.
	Path string

	// What is wrong and what is expected instead, as an English phrase.
	Detail string

	// The byte offset of the fault in the body; 0 if the fault is not in the body.
	Offset int64
}

// Error returns the reason, the detail and the path on one line, as [Printable] text.
func (r *Rejection) Error() string {
	if r.Path == "" {
		return fmt.Sprintf("%s: %s", r.Reason, r.Detail)
	}
	return fmt.Sprintf("%s: %s (%s)", r.Reason, r.Detail, Printable(r.Path))
}

func reject(reason Reason, path, detail string) *Rejection {
	return &Rejection{Reason: reason, Path: path, Detail: detail}
}
