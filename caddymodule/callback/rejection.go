// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

import "fmt"

// Reason is the one word that says why a callback was refused. The set is
// closed: it is a metric label and a placeholder value.
type Reason string

// The reasons, in the order in which they are checked.
const (
	ReasonMethod   Reason = "method"    // not POST
	ReasonQuery    Reason = "query"     // malformed, duplicated or look-alike parameter
	ReasonApp      Reason = "app"       // SdkAppid missing or not one of ours
	ReasonUnsigned Reason = "unsigned"  // the app has tokens, and Sign or RequestTime is missing
	ReasonStale    Reason = "stale"     // RequestTime malformed or outside the window
	ReasonSign     Reason = "sign"      // Sign matches no token
	ReasonCommand  Reason = "command"   // CallbackCommand missing, or no rule lets it in
	ReasonEncoding Reason = "encoding"  // Content-Encoding other than identity
	ReasonTooLarge Reason = "too_large" // the body is over the limit
	ReasonBody     Reason = "body"      // the body could not be read whole
	ReasonJSON     Reason = "json"      // the body is not one strict JSON object
	ReasonPayload  Reason = "payload"   // a field is missing, of the wrong type or out of range
	ReasonMismatch Reason = "mismatch"  // the body's CallbackCommand is not the query's
)

// Reasons lists every Reason in the order in which they are checked.
func Reasons() []Reason {
	return []Reason{
		ReasonMethod, ReasonQuery, ReasonApp, ReasonUnsigned, ReasonStale, ReasonSign, ReasonCommand,
		ReasonEncoding, ReasonTooLarge, ReasonBody, ReasonJSON, ReasonPayload, ReasonMismatch,
	}
}

// Rejection says why a callback was refused. Every error that this package
// returns is a *Rejection.
//
// No part of it holds a payload value, a parameter's value, a token or a Sign,
// so it can be logged and shown to the caller.
type Rejection struct {
	Reason Reason

	// Where the fault is: a query parameter's name, or a JSON pointer (RFC 6901)
	// into the body. Empty when the fault has no place of its own.
	Path string

	// What is wrong and what is expected instead, in one English phrase.
	Detail string

	// The number of bytes of the body before the fault. 0 for faults that are
	// not in the body.
	Offset int64
}

// Error returns the reason, the detail and the path on one line, [Printable].
func (r *Rejection) Error() string {
	if r.Path == "" {
		return fmt.Sprintf("%s: %s", r.Reason, r.Detail)
	}
	return fmt.Sprintf("%s: %s (%s)", r.Reason, r.Detail, Printable(r.Path))
}

func reject(reason Reason, path, detail string) *Rejection {
	return &Rejection{Reason: reason, Path: path, Detail: detail}
}
