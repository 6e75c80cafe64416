// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

import (
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Query holds the protocol's parameters in a callback's URL. Absent ones are empty.
// See https://www.tencentcloud.com/document/product/1047/34354.
type Query struct {
	SdkAppID        string // SdkAppid: the app, in decimal
	CallbackCommand string // CallbackCommand: what happened
	ContentType     string // contenttype: "json" in any letter case; not the header
	ClientIP        string // ClientIP: the address of the end user, not of the caller
	OptPlatform     string // OptPlatform: the end user's platform, such as Android or RESTAPI
	Sign            string // Sign: see the function of the same name
	RequestTime     string // RequestTime: Unix time in seconds, exactly as signed
}

// MaxParameters is the maximum number of parameters in a query, including empty ones.
// PHP and Node ignore any parameters after the first 1000.
const MaxParameters = 1000

// parameters are the exact names of the protocol's parameters.
var parameters = [...]string{"SdkAppid", "CallbackCommand", "contenttype", "ClientIP", "OptPlatform", "Sign", "RequestTime"}

// parametersByForm maps the normalized names of the parameters to their exact names.
var parametersByForm = func() map[string]string {
	forms := make(map[string]string)
	for _, name := range parameters {
		forms[normalizeName(name)] = name
	}
	return forms
}()

// ParseQuery parses the protocol's parameters in the raw query of a callback's URL
// (without the question mark). Parameters may be in any order, and unknown ones are
// ignored.
//
// It rejects queries that web stacks parse differently, because the endpoint may be
// written in any language: a protocol parameter given twice, a name that another
// stack would take for one (in another case, or with brackets, dots or spaces), an
// invalid percent escape, a semicolon, more than [MaxParameters], and, in the value of
// a protocol parameter, control bytes, invalid UTF-8 and unescaped non-ASCII
// characters. The reason of an error is query.
func ParseQuery(raw string) (Query, error) {
	plain, ok := scanQuery(raw)
	if !ok {
		return Query{}, reject(ReasonQuery, "", "the query contains a semicolon, a control byte, or a byte that must be percent-encoded")
	}
	if strings.Count(raw, "&") >= MaxParameters {
		return Query{}, reject(ReasonQuery, "", "more than "+strconv.Itoa(MaxParameters)+" parameters")
	}
	var q Query
	var seen [len(parameters)]bool
	for pair := range strings.SplitSeq(raw, "&") {
		name, value, _ := strings.Cut(pair, "=")
		rawValue := value
		if !plain {
			var err error
			if name, value, err = unescape(name, value); err != nil {
				return Query{}, err
			}
		}
		i := slices.Index(parameters[:], name)
		if i < 0 {
			if err := checkForeign(name); err != nil {
				return Query{}, err
			}
			continue
		}
		if seen[i] {
			return Query{}, reject(ReasonQuery, name, "given more than once")
		}
		seen[i] = true
		if !plain {
			if err := checkValue(name, rawValue, value); err != nil {
				return Query{}, err
			}
		}
		*q.parameter(name) = value
	}
	return q, nil
}

// scanQuery reports whether the raw query is ASCII without escapes, as most are, so that
// it need not be decoded. It is not ok if it has a byte that some servers and languages
// drop, or at which they split or truncate it.
func scanQuery(raw string) (plain, ok bool) {
	plain = true
	for _, c := range []byte(raw) {
		switch {
		case c <= ' ', c == ';', c == '#', c == 0x7f:
			return false, false
		case c == '%', c == '+', c >= utf8.RuneSelf:
			plain = false
		}
	}
	return plain, true
}

func unescape(rawName, rawValue string) (name, value string, err error) {
	if name, err = url.QueryUnescape(rawName); err != nil {
		return "", "", reject(ReasonQuery, "", "the name of a parameter has an invalid percent escape")
	}
	if value, err = url.QueryUnescape(rawValue); err != nil {
		return "", "", reject(ReasonQuery, "", "the value of a parameter has an invalid percent escape")
	}
	return name, value, nil
}

// parameter returns a pointer to the field for the protocol parameter of that name.
func (q *Query) parameter(name string) *string {
	switch name {
	case "SdkAppid":
		return &q.SdkAppID
	case "CallbackCommand":
		return &q.CallbackCommand
	case "contenttype":
		return &q.ContentType
	case "ClientIP":
		return &q.ClientIP
	case "OptPlatform":
		return &q.OptPlatform
	case "Sign":
		return &q.Sign
	default:
		return &q.RequestTime
	}
}

// checkValue rejects a value of a protocol parameter that web stacks decode
// differently.
func checkValue(name, raw, value string) error {
	if strings.ContainsFunc(raw, isBeyondASCII) { // Node's HTTP server and Python's WSGI decode raw bytes as Latin-1
		return reject(ReasonQuery, name, "the value contains a character that must be percent-encoded")
	}
	if strings.ContainsFunc(value, isControl) || !utf8.ValidString(value) {
		return reject(ReasonQuery, name, "the value contains a control byte or invalid UTF-8")
	}
	return nil
}

func isBeyondASCII(r rune) bool { return r >= utf8.RuneSelf }

func isControl(r rune) bool { return r < ' ' || r == 0x7f }

// checkForeign rejects the name of a parameter that does not belong to the protocol
// but that another stack would take for one that does: a name with the same
// normalized form, or one whose first part in the notations name[], [name][x] and
// name.x has that form.
func checkForeign(name string) error {
	if isMethodName(name) {
		return reject(ReasonQuery, "_method", "some frameworks take this parameter as the method of the request")
	}
	known := parametersByForm[normalizeName(name)]
	for part := range strings.FieldsFuncSeq(name, func(r rune) bool { return strings.ContainsRune("[].\x00", r) }) {
		if first := normalizeName(part); known == "" && first != "" {
			known = parametersByForm[first]
			break
		}
	}
	if known != "" {
		return reject(ReasonQuery, known, "the name of a parameter looks like "+known+"; use that exact spelling, or rename your own parameter")
	}
	return nil
}

// WithoutAuth returns the raw query without the parameters Sign and RequestTime. It does
// not modify or reorder the others.
func WithoutAuth(raw string) string {
	var kept []string
	for pair := range strings.SplitSeq(raw, "&") {
		name, _, _ := strings.Cut(pair, "=")
		if decoded, err := url.QueryUnescape(name); err == nil && (decoded == "Sign" || decoded == "RequestTime") {
			continue
		}
		kept = append(kept, pair)
	}
	return strings.Join(kept, "&")
}
