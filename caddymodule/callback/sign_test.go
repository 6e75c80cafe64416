// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

import (
	"crypto/sha256"
	"encoding"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"
)

const (
	vectorToken = "xxxxyyyy"
	vectorTime  = "1669872112"
	vectorSign  = "17773bc39a671d7b9aa835458704d2a6db81360a5940292b587d6d760d484061"
)

func verifier(t *testing.T, window time.Duration, now time.Time, tokens ...string) *Verifier {
	t.Helper()
	v, err := NewVerifier(tokens, window, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestSignReturnsTencentsTestVector(t *testing.T) {
	t.Parallel()
	if got := Sign(vectorToken, vectorTime); got != vectorSign {
		t.Errorf("got %s, want %s", got, vectorSign)
	}
	// The token of older pages is a misprint.
	if got := Sign("xxxyyy", vectorTime); !strings.HasPrefix(got, "e78a8547") {
		t.Errorf("got %s, want the true hash of the misprint", got)
	}
	// Longer than the room on the stack.
	long := strings.Repeat("k", 1000)
	if sum := sha256.Sum256([]byte(long + vectorTime)); Sign(long, vectorTime) != hex.EncodeToString(sum[:]) {
		t.Error("a long token is not hashed whole")
	}
}

func TestVerifyAcceptsTencentsTestVector(t *testing.T) {
	t.Parallel()
	v := verifier(t, time.Minute, vectorClock(), vectorToken)
	q, err := ParseQuery(sampleQuery)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // all callbacks of the same second have the same Sign
		token, skew, err := v.Verify(q)
		if err != nil || token != 1 || skew != 0 {
			t.Errorf("got token %d, skew %v, error %v", token, skew, err)
		}
	}
}

func TestVerifyAcceptsUpperCaseHex(t *testing.T) {
	t.Parallel()
	v := verifier(t, time.Minute, vectorClock(), vectorToken)
	for _, sign := range []string{strings.ToUpper(vectorSign), strings.ToUpper(vectorSign[:32]) + vectorSign[32:]} {
		if _, _, err := v.Verify(Query{Sign: sign, RequestTime: vectorTime}); err != nil {
			t.Errorf("%s: %v", sign, err)
		}
	}
}

func TestVerifyAcceptsPercentEncodedDigits(t *testing.T) {
	t.Parallel()
	q, err := ParseQuery("Sign=" + vectorSign + "&RequestTime=%31%36%36%39872112")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := verifier(t, time.Minute, vectorClock(), vectorToken).Verify(q); err != nil {
		t.Error(err)
	}
}

func TestVerifyReturnsThePositionOfTheToken(t *testing.T) {
	t.Parallel()
	v := verifier(t, time.Minute, vectorClock(), "new", vectorToken, "old", vectorToken)
	for token, want := range map[string]int{"new": 1, vectorToken: 2, "old": 3} {
		got, _, err := v.Verify(Query{Sign: Sign(token, vectorTime), RequestTime: vectorTime})
		if err != nil || got != want {
			t.Errorf("%s: got position %d, error %v; want %d", token, got, err, want)
		}
	}
}

func TestVerifyChecksEveryCallbackOfTheSameSecond(t *testing.T) {
	t.Parallel()
	now := vectorClock()
	v, err := NewVerifier([]string{"other", vectorToken}, time.Minute, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	const later = "1669872113"
	good := Query{Sign: vectorSign, RequestTime: vectorTime}
	verify := func(q Query, reason Reason) {
		t.Helper()
		token, _, err := v.Verify(q)
		if reason != "" {
			wantReason(t, err, reason)
		} else if err != nil || token != 2 {
			t.Errorf("got token %d, error %v; want token 2", token, err)
		}
	}
	for range 2 {
		verify(good, "")
		verify(Query{Sign: strings.ToUpper(vectorSign), RequestTime: vectorTime}, "")
		verify(Query{Sign: vectorSign, RequestTime: later}, ReasonSign)
		verify(Query{Sign: Sign("guess", vectorTime), RequestTime: vectorTime}, ReasonSign)
		verify(Query{Sign: vectorSign[:63], RequestTime: vectorTime}, ReasonSign)
		verify(Query{Sign: vectorSign + "0", RequestTime: vectorTime}, ReasonSign)
		verify(Query{Sign: Sign(vectorToken, later), RequestTime: later}, "")
	}
	now = now.Add(2 * time.Minute)
	verify(good, ReasonStale)
}

func TestVerifyChecksTheWindowInBothDirections(t *testing.T) {
	t.Parallel()
	const second = time.Second
	for name, test := range map[string]struct {
		window, ahead time.Duration
		ok            bool
	}{
		"now":                               {time.Minute, 0, true},
		"a second late":                     {time.Minute, second, true},
		"a second early":                    {time.Minute, -second, true},
		"late to the edge":                  {time.Minute, 60 * second, true},
		"early to the edge":                 {time.Minute, -60 * second, true},
		"late to the edge's last moment":    {time.Minute, 61*second - 1, true}, // RequestTime has no fraction
		"late over the edge":                {time.Minute, 61 * second, false},
		"early over the edge":               {time.Minute, -61 * second, false},
		"early over the edge by a moment":   {time.Minute, -60*second - 1, false},
		"a year late":                       {time.Minute, 365 * 24 * time.Hour, false},
		"a year early":                      {time.Minute, -365 * 24 * time.Hour, false},
		"a year early in a window of years": {2 * 365 * 24 * time.Hour, -365 * 24 * time.Hour, true},
		"the edge of a short window":        {second, second, true},
		"over the edge of a short window":   {second, 2 * second, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := verifier(t, test.window, vectorClock().Add(test.ahead), vectorToken)
			token, skew, err := v.Verify(Query{Sign: vectorSign, RequestTime: vectorTime})
			if !test.ok {
				wantRejection(t, err, ReasonStale, "RequestTime")
				return
			}
			if err != nil || token != 1 || skew != test.ahead {
				t.Errorf("got token %d, skew %v, error %v; want skew %v", token, skew, err, test.ahead)
			}
		})
	}
}

func TestVerifyRejects(t *testing.T) {
	t.Parallel()
	signed := func(requestTime string) Query { // with the token
		return Query{Sign: Sign(vectorToken, requestTime), RequestTime: requestTime}
	}
	for name, test := range map[string]struct {
		query  Query
		reason Reason
		path   string
	}{
		"neither":                   {Query{}, ReasonUnsigned, "Sign"},
		"no Sign":                   {Query{RequestTime: vectorTime}, ReasonUnsigned, "Sign"},
		"no RequestTime":            {Query{Sign: vectorSign}, ReasonUnsigned, "RequestTime"},
		"another RequestTime":       {Query{Sign: vectorSign, RequestTime: "1669872113"}, ReasonSign, "Sign"},
		"the misprinted token":      {Query{Sign: Sign("xxxyyy", vectorTime), RequestTime: vectorTime}, ReasonSign, "Sign"},
		"no token at all":           {Query{Sign: Sign("", vectorTime), RequestTime: vectorTime}, ReasonSign, "Sign"},
		"a Sign one digit short":    {Query{Sign: vectorSign[:63], RequestTime: vectorTime}, ReasonSign, "Sign"},
		"a Sign one digit long":     {Query{Sign: vectorSign + "0", RequestTime: vectorTime}, ReasonSign, "Sign"},
		"a Sign twice":              {Query{Sign: vectorSign + vectorSign, RequestTime: vectorTime}, ReasonSign, "Sign"},
		"the first digit wrong":     {Query{Sign: "0" + vectorSign[1:], RequestTime: vectorTime}, ReasonSign, "Sign"},
		"the last digit wrong":      {Query{Sign: vectorSign[:63] + "0", RequestTime: vectorTime}, ReasonSign, "Sign"},
		"a Sign that is not hex":    {Query{Sign: "g" + vectorSign[1:], RequestTime: vectorTime}, ReasonSign, "Sign"},
		"a Sign of zeros":           {Query{Sign: strings.Repeat("0", 64), RequestTime: vectorTime}, ReasonSign, "Sign"},
		"milliseconds":              {signed(vectorTime + "000"), ReasonStale, "RequestTime"},
		"a leading zero":            {signed("0" + vectorTime), ReasonStale, "RequestTime"},
		"a leading space":           {signed(" " + vectorTime), ReasonStale, "RequestTime"},
		"a leading sign":            {signed("+" + vectorTime), ReasonStale, "RequestTime"},
		"a sign for a digit":        {signed("-669872112"), ReasonStale, "RequestTime"},
		"nine digits":               {signed(vectorTime[:9]), ReasonStale, "RequestTime"},
		"a fraction":                {signed(vectorTime + ".0"), ReasonStale, "RequestTime"},
		"hexadecimal":               {signed("0x6388383"), ReasonStale, "RequestTime"},
		"an underscore":             {signed("1669872_12"), ReasonStale, "RequestTime"},
		"a letter within":           {signed("166987211a"), ReasonStale, "RequestTime"},
		"digits that are not ASCII": {signed("\u0661\u0666\u0666\u0669\u0668"), ReasonStale, "RequestTime"},
		"a stale and wrong Sign":    {Query{Sign: vectorSign[:63] + "0", RequestTime: "1669870000"}, ReasonStale, "RequestTime"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := verifier(t, time.Minute, vectorClock(), "another", vectorToken)
			token, _, err := v.Verify(test.query)
			wantRejection(t, err, test.reason, test.path)
			if token != 0 {
				t.Errorf("a refused query has token %d", token)
			}
		})
	}
}

// The Sign distinguishes a wrong clock from a forged request.
func TestVerifyReturnsTheSkewOnlyIfTheSignIsCorrect(t *testing.T) {
	t.Parallel()
	for ahead, sign := range map[time.Duration]string{
		time.Hour: vectorSign, -time.Hour: vectorSign, 2 * time.Hour: vectorSign[:63] + "0", time.Second: vectorSign[:63] + "0",
	} {
		v := verifier(t, time.Minute, vectorClock().Add(ahead), "another", vectorToken)
		token, skew, err := v.Verify(Query{Sign: sign, RequestTime: vectorTime})
		switch {
		case err == nil:
			t.Errorf("ahead by %v: accepted", ahead)
		case sign == vectorSign && (token != 2 || skew != ahead), sign != vectorSign && (token != 0 || skew != 0):
			t.Errorf("ahead by %v: got token %d, skew %v, error %v", ahead, token, skew, err)
		}
	}
}

// If RequestTime could be longer, anybody who saw a Sign could make another one
// without the token, by length extension.
func TestVerifyRejectsALengthExtendedRequestTime(t *testing.T) {
	t.Parallel()
	const tokenLength, extension = len(vectorToken), "9"
	requestTime := vectorTime + "\x80" + strings.Repeat("\x00", 64-8-1-tokenLength-len(vectorTime))
	requestTime += string(binary.BigEndian.AppendUint64(nil, uint64(8*(tokenLength+len(vectorTime))))) + extension

	state := []byte("sha\x03")
	sum, err := hex.DecodeString(vectorSign)
	if err != nil {
		t.Fatal(err)
	}
	state = append(append(state, sum...), make([]byte, 64)...)
	state = binary.BigEndian.AppendUint64(state, 64)
	h := sha256.New()
	if err := h.(encoding.BinaryUnmarshaler).UnmarshalBinary(state); err != nil {
		t.Fatal(err)
	}
	h.Write([]byte(extension))
	forged := hex.EncodeToString(h.Sum(nil))
	if forged != Sign(vectorToken, requestTime) {
		t.Fatal("the extension is not what the token makes, so this test shows nothing")
	}

	v := verifier(t, time.Minute, vectorClock(), vectorToken)
	_, _, err = v.Verify(Query{Sign: forged, RequestTime: requestTime})
	wantRejection(t, err, ReasonStale, "RequestTime")
	_, err = ParseQuery("Sign=" + forged + "&RequestTime=" + url.QueryEscape(requestTime))
	wantRejection(t, err, ReasonQuery, "RequestTime")
}

func TestNewVerifierRejectsInvalidSettings(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		tokens []string
		window time.Duration
	}{
		"no token":          {nil, time.Minute},
		"an empty token":    {[]string{"a", ""}, time.Minute},
		"no window":         {[]string{"a"}, 0},
		"a negative window": {[]string{"a"}, -time.Minute},
	} {
		if _, err := NewVerifier(test.tokens, test.window, time.Now); err == nil {
			t.Errorf("%s is accepted", name)
		} else if _, is := errors.AsType[*Rejection](err); is {
			t.Errorf("%s: %v is no fault of a callback", name, err)
		}
	}
}
