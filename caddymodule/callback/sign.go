// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Sign returns the Sign parameter for a token and a RequestTime (Unix time in seconds,
// in decimal): the lower-case hex SHA-256 of their concatenation. See
// https://www.tencentcloud.com/document/product/1047/34354.
func Sign(token, requestTime string) string {
	sum := sha256.Sum256([]byte(token + requestTime))
	return hex.EncodeToString(sum[:])
}

// Verifier checks Sign and RequestTime of an app's callbacks against its tokens. It is
// safe for concurrent use.
//
// The Sign covers neither the body nor the command nor a nonce: all callbacks of the
// same second have the same Sign, so a repeated Sign does not indicate a replay.
type Verifier struct {
	tokens []string
	window time.Duration
	now    func() time.Time
}

// NewVerifier returns a Verifier that accepts a Sign made with any of the tokens,
// which allows rotating them, and a RequestTime at most window before or after the
// current time. The now function is the clock, usually time.Now. NewVerifier returns
// an error if there is no token, a token is empty, or the window is not positive.
func NewVerifier(tokens []string, window time.Duration, now func() time.Time) (*Verifier, error) {
	if len(tokens) == 0 {
		return nil, errors.New("no token: give at least one")
	}
	if slices.Contains(tokens, "") {
		return nil, errors.New("a token is empty")
	}
	if window <= 0 {
		return nil, fmt.Errorf("window is %s: want a positive duration such as 1m", window)
	}
	return &Verifier{tokens: tokens, window: window, now: now}, nil
}

// Verify checks Sign and RequestTime of the query. It returns the position of the
// token that made the Sign, from 1 in the order given to NewVerifier, and how far the
// local clock is ahead of RequestTime. With an error, both are 0, unless the callback
// is stale but correctly signed: this distinguishes a wrong clock from a forged
// request. The reason of an error is unsigned, stale or sign.
func (v *Verifier) Verify(q Query) (token int, skew time.Duration, err error) {
	if q.Sign == "" {
		return 0, 0, reject(ReasonUnsigned, "Sign", "the parameter is missing; switch authentication on in the console")
	}
	if q.RequestTime == "" {
		return 0, 0, reject(ReasonUnsigned, "RequestTime", "the parameter is missing; switch authentication on in the console")
	}
	requested, ok := parseRequestTime(q.RequestTime)
	if !ok {
		return 0, 0, reject(ReasonStale, "RequestTime", "want exactly 10 decimal digits, the Unix time in seconds")
	}
	now := v.now()
	if token = v.match(q.Sign, q.RequestTime); token > 0 {
		skew = now.Sub(time.Unix(requested, 0))
	}
	// Compare whole seconds, because RequestTime has no fraction: the result at the
	// edge of the window must not depend on the local clock's milliseconds.
	if off := time.Duration(now.Unix()-requested) * time.Second; off > v.window || off < -v.window {
		return token, skew, reject(ReasonStale, "RequestTime", "outside the window; check the clock of this machine")
	}
	if token == 0 {
		return 0, 0, reject(ReasonSign, "Sign", "matches no token of this app")
	}
	return token, skew, nil
}

// match returns the position of the token that made the Sign, or 0 if none did. It
// always compares with every token, in constant time, so that timing reveals nothing
// about the tokens.
func (v *Verifier) match(sign, requestTime string) (token int) {
	got, err := hex.DecodeString(sign)
	if err != nil || len(got) != sha256.Size {
		return 0
	}
	for i, t := range v.tokens {
		want := sha256.Sum256([]byte(t + requestTime))
		equal := subtle.ConstantTimeCompare(got, want[:])
		first := subtle.ConstantTimeEq(int32(token), 0)
		token = subtle.ConstantTimeSelect(equal&first, i+1, token)
	}
	return token
}

// parseRequestTime accepts exactly 10 ASCII digits. Accepting more would allow
// length-extension attacks on the Sign, because the hashed text begins with the
// secret.
func parseRequestTime(s string) (seconds int64, ok bool) {
	if len(s) != 10 {
		return 0, false
	}
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return 0, false
		}
		seconds = seconds*10 + int64(c-'0')
	}
	return seconds, true
}
