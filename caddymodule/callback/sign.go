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

// Sign returns what Tencent sends as Sign for the token and the RequestTime
// (Unix seconds in decimal): lower-case hex SHA-256 of the two, without a
// separator. See https://www.tencentcloud.com/document/product/1047/34354.
func Sign(token, requestTime string) string {
	sum := sha256.Sum256([]byte(token + requestTime))
	return hex.EncodeToString(sum[:])
}

// Verifier checks Sign and RequestTime of one app's callbacks against its
// tokens. It is safe for concurrent use.
//
// Sign covers neither the body nor the command nor a nonce: every callback of
// one second carries the same Sign, so that a repeated Sign is not a replay.
type Verifier struct {
	tokens []string
	window time.Duration
	now    func() time.Time
}

// NewVerifier returns a Verifier that accepts a Sign made with any of the
// tokens, so that a token can be rotated, and a RequestTime at most window
// before or after now, which is the clock (time.Now outside of tests). It
// returns an error if there is no token, a token is empty, or the window is not
// positive.
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

// Verify checks the query's Sign and RequestTime. It returns the position of the
// token that made the Sign, counted from 1 in the order given to NewVerifier,
// and how far the local clock is ahead of RequestTime. Both are also returned
// with the error for a callback that is stale but correctly signed, so that a
// wrong clock can be told from a forged call; otherwise they are 0. Its errors
// have the reason unsigned, stale or sign.
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
	// Whole seconds, because RequestTime has no fraction: a call at the edge of the
	// window must not depend on the local clock's milliseconds.
	if off := time.Duration(now.Unix()-requested) * time.Second; off > v.window || off < -v.window {
		return token, skew, reject(ReasonStale, "RequestTime", "outside the window; check that this machine's clock is right")
	}
	if token == 0 {
		return 0, 0, reject(ReasonSign, "Sign", "matches no token of this app")
	}
	return token, skew, nil
}

// match returns the position of the token that made the Sign, 0 if none did. It
// compares with every token, whichever matches, so that the time it takes tells
// nothing about the tokens.
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

// parseRequestTime accepts exactly 10 ASCII digits. Anything longer would let
// somebody who saw one Sign append to the hashed text: SHA-256 with the secret
// in front can be extended.
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
