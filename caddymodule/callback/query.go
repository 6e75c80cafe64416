// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

import (
	"net/url"
	"strconv"
	"strings"
	"unicode"
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
// PHP and Node drop those that follow.
const MaxParameters = 1000

// The protocol's names in their exact case, by the index that ParseQuery uses.
var parameters = [...]string{"SdkAppid", "CallbackCommand", "contenttype", "ClientIP", "OptPlatform", "Sign", "RequestTime"}

// ParseQuery reads the protocol's parameters from the raw query of a callback's
// URL (without the question mark). Parameters may stand in any order, and names
// that are not the protocol's pass unread.
//
// It refuses what two parsers could read in two ways, because the endpoint
// behind may be written in anything: a protocol name given twice, a name that
// another stack would take for one (of another case, with brackets, dots or
// spaces), a bad percent escape, a semicolon, more than [MaxParameters], and in a
// protocol parameter's value control bytes, invalid UTF-8 and letters that are
// not percent-encoded. Its errors have the reason query.
func ParseQuery(raw string) (Query, error) {
	var p queryParser
	start, equals, odd, pairs := 0, -1, false, 0
	for i := 0; i <= len(raw); i++ {
		i += plainBytes(raw[i:])
		meaning := ends
		if i < len(raw) {
			meaning = byteMeanings[raw[i]]
		}
		switch meaning {
		case cuts:
			return Query{}, reject(ReasonQuery, "", "a semicolon, a control byte or a byte that must be percent-encoded in the query")
		case isOdd:
			odd = true
		case divides:
			if equals < 0 {
				equals = i
			}
		case ends:
			pairs++
			if pairs > MaxParameters {
				return Query{}, reject(ReasonQuery, "", "more than "+strconv.Itoa(MaxParameters)+" parameters")
			}
			if equals < 0 {
				equals = i
			}
			if err := p.pair(raw[start:equals], raw[min(equals+1, i):i], odd); err != nil {
				return Query{}, err
			}
			start, equals, odd = i+1, -1, false
		}
	}
	return Query{
		SdkAppID: p.values[0], CallbackCommand: p.values[1], ContentType: p.values[2], ClientIP: p.values[3],
		OptPlatform: p.values[4], Sign: p.values[5], RequestTime: p.values[6],
	}, nil
}

// What a byte of a raw query means to ParseQuery.
const (
	plainByte uint8 = iota
	isOdd           // an escape, or not ASCII: the pair needs a second look
	divides         // name and value
	ends            // the pair
	cuts            // some servers and languages split or cut at it, or drop it
)

var byteMeanings = func() (m [256]uint8) {
	for c := range m {
		switch {
		case c <= ' ', c == ';', c == '#', c == 0x7f:
			m[c] = cuts
		case c == '%', c == '+', c >= utf8.RuneSelf:
			m[c] = isOdd
		case c == '=':
			m[c] = divides
		case c == '&':
			m[c] = ends
		}
	}
	return m
}()

// plainBytes returns how many plain bytes the text begins with, which are most of
// them.
func plainBytes(text string) int {
	for i, c := range []byte(text) {
		if byteMeanings[c] != plainByte {
			return i
		}
	}
	return len(text)
}

type queryParser struct {
	values [len(parameters)]string
	seen   [len(parameters)]bool
}

func (p *queryParser) pair(name, value string, odd bool) (err error) {
	raw := value
	if odd {
		if name, value, err = unescape(name, value); err != nil {
			return err
		}
	}
	i, exact := protocolName(name)
	if i < 0 {
		return nil
	}
	known := parameters[i]
	if !exact {
		return reject(ReasonQuery, known, "a parameter's name looks like "+known+" but is not; write it exactly, or rename your own parameter")
	}
	if p.seen[i] {
		return reject(ReasonQuery, known, "given more than once")
	}
	if odd && !plain(value) {
		return reject(ReasonQuery, known, "control byte or invalid UTF-8 in the value")
	}
	if odd && !isASCII(raw) { // Node's HTTP server and Python's WSGI take each byte for a letter
		return reject(ReasonQuery, known, "a letter that must be percent-encoded in the value")
	}
	p.seen[i] = true
	p.values[i] = value
	return nil
}

func unescape(name, value string) (string, string, error) {
	n, err := url.QueryUnescape(name)
	if err != nil {
		return "", "", reject(ReasonQuery, "", "a parameter's name has a bad percent escape")
	}
	v, err := url.QueryUnescape(value)
	if err != nil {
		return "", "", reject(ReasonQuery, "", "a parameter's value has a bad percent escape")
	}
	return n, v, nil
}

// plain reports whether the value is UTF-8 without control bytes.
func plain(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] == 0x7f {
			return false
		}
	}
	return utf8.ValidString(s)
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// protocolName returns the index of the parameter that the name is, or that
// some other stack would take it for; -1 if there is none.
func protocolName(name string) (index int, exact bool) {
	switch name { // in the order of parameters
	case "SdkAppid":
		return 0, true
	case "CallbackCommand":
		return 1, true
	case "contenttype":
		return 2, true
	case "ClientIP":
		return 3, true
	case "OptPlatform":
		return 4, true
	case "Sign":
		return 5, true
	case "RequestTime":
		return 6, true
	}
	folded := lookAlike(name)
	for i, known := range parameters {
		if strings.EqualFold(known, folded) {
			return i, false
		}
	}
	return -1, false
}

// lookAlike returns what is left of a parameter's name when everything is undone
// that a stack may do to it: PHP cuts at the first NUL or bracket, others drop
// brackets; undress does the rest.
func lookAlike(name string) string {
	if i := strings.IndexAny(name, "[\x00"); i > 0 {
		name = name[:i]
	}
	return undress(strings.Trim(name, "[]\x00"))
}

// undress returns what is left of a parameter's or a field's name without what
// some stacks drop: PHP turns spaces and dots into underscores, JavaScript's
// URLSearchParams drops a question mark that stands first, others trim, or drop
// separators and what is not UTF-8. It also turns dotless and dotted i into the
// one that Java takes them for; [strings.EqualFold] knows the other letters, such
// as U+017F, that fold to an ASCII one.
func undress(name string) string {
	return strings.Map(func(r rune) rune {
		switch r {
		case '.', '_', '-', '?', '\ufeff', '\u200b', utf8.RuneError:
			return -1
		case 'ı', 'İ':
			return 'i'
		}
		if unicode.IsSpace(r) {
			return -1
		}
		return r
	}, name)
}
