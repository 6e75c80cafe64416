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

// Query holds the protocol's parameters of a callback's URL. Absent ones are
// empty. See https://www.tencentcloud.com/document/product/1047/34354.
type Query struct {
	SdkAppID        string // SdkAppid: the app, in decimal
	CallbackCommand string // CallbackCommand: what happened
	ContentType     string // contenttype: "json" in any case; a parameter, not the header
	ClientIP        string // ClientIP: the end user's address; data, not the peer's
	OptPlatform     string // OptPlatform: where the end user acted; an open set
	Sign            string // Sign: see the function of that name
	RequestTime     string // RequestTime: Unix seconds, as they were signed
}

// MaxParameters is how many parameters a query may have, empty ones included.
// PHP and Node ignore those that follow.
const MaxParameters = 1000

// parameters are the protocol's parameters in their exact case.
var parameters = [...]string{"SdkAppid", "CallbackCommand", "contenttype", "ClientIP", "OptPlatform", "Sign", "RequestTime"}

// parametersByForm holds the parameters by their normalized form.
var parametersByForm = func() map[string]string {
	forms := make(map[string]string)
	for _, name := range parameters {
		forms[normalizeName(name)] = name
	}
	return forms
}()

// A byte of a raw query that is none of these means itself.
const (
	escapes uint8 = 1 << iota // it begins an escape, is one, or is not ASCII
	splits                    // some servers and languages split or cut the query there, or drop it
)

var queryBytes = func() (kinds [256]uint8) {
	for c := range kinds {
		switch {
		case c <= ' ', c == ';', c == '#', c == 0x7f:
			kinds[c] = splits
		case c == '%', c == '+', c >= utf8.RuneSelf:
			kinds[c] = escapes
		}
	}
	return kinds
}()

// ParseQuery reads the protocol's parameters from the raw query of a callback's
// URL (without the question mark). Parameters may stand in any order, and names
// that are not the protocol's pass unread.
//
// It rejects what two parsers could read in two ways, because the endpoint
// behind may be written in anything: a protocol name given twice, a name that
// another stack would take for one (of another case, with brackets, dots or
// spaces), a bad percent escape, a semicolon, more than [MaxParameters], and in a
// protocol parameter's value control bytes, invalid UTF-8 and letters that are
// not percent-encoded. Its errors have the reason query.
func ParseQuery(raw string) (Query, error) {
	var has uint8
	for _, c := range []byte(raw) {
		has |= queryBytes[c]
	}
	if has&splits != 0 {
		return Query{}, reject(ReasonQuery, "", "a semicolon, a control byte or a byte that must be percent-encoded in the query")
	}
	if strings.Count(raw, "&") >= MaxParameters {
		return Query{}, reject(ReasonQuery, "", "more than "+strconv.Itoa(MaxParameters)+" parameters")
	}
	var q Query
	var seen [len(parameters)]bool
	plain := has&escapes == 0 // as most are
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

func unescape(rawName, rawValue string) (name, value string, err error) {
	if name, err = url.QueryUnescape(rawName); err != nil {
		return "", "", reject(ReasonQuery, "", "a parameter's name has a bad percent escape")
	}
	if value, err = url.QueryUnescape(rawValue); err != nil {
		return "", "", reject(ReasonQuery, "", "a parameter's value has a bad percent escape")
	}
	return name, value, nil
}

// parameter returns where the protocol's parameter of that name is kept.
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

// checkValue rejects a value of a protocol parameter that languages decode
// differently.
func checkValue(name, raw, value string) error {
	if strings.ContainsFunc(raw, isBeyondASCII) { // Node's HTTP server and Python's WSGI take each byte for a letter
		return reject(ReasonQuery, name, "a letter that must be percent-encoded in the value")
	}
	if strings.ContainsFunc(value, isControl) || !utf8.ValidString(value) {
		return reject(ReasonQuery, name, "control byte or invalid UTF-8 in the value")
	}
	return nil
}

func isBeyondASCII(r rune) bool { return r >= utf8.RuneSelf }

func isControl(r rune) bool { return r < ' ' || r == 0x7f }

// checkForeign rejects a parameter that is not the protocol's, but that another
// stack would take for one: by its name without separators and case, or by the
// name's first part in the notations name[], [name][x] and name.x.
func checkForeign(name string) error {
	known := parametersByForm[normalizeName(name)]
	for part := range strings.FieldsFuncSeq(name, func(r rune) bool { return strings.ContainsRune("[].\x00", r) }) {
		if first := normalizeName(part); known == "" && first != "" {
			known = parametersByForm[first]
			break
		}
	}
	if known != "" {
		return reject(ReasonQuery, known, "a parameter's name looks like "+known+" but is not; write it exactly, or rename your own parameter")
	}
	return nil
}
