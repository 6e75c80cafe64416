// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

import (
	"bytes"
	"errors"
)

// scanner moves over JSON. Of a body that is not known to be valid it reads only
// what is plain, which is then valid, and returns errNotPlain for anything else.
type scanner struct {
	body  []byte
	valid bool // the body is known to be strict JSON

	at    int // the offset of what is read next
	depth int // of open objects and arrays
}

// errNotPlain says that jsontext has to read the body first.
var errNotPlain = errors.New("not plain")

// next moves over white space and returns the byte that follows, 0 at the end.
func (s *scanner) next() byte {
	if s.at < len(s.body) && s.body[s.at] > ' ' { // nearly always, and inlined
		return s.body[s.at]
	}
	return s.skipSpace()
}

func (s *scanner) skipSpace() byte {
	for ; s.at < len(s.body); s.at++ {
		switch c := s.body[s.at]; c {
		case ' ', '\t', '\r', '\n':
		default:
			return c
		}
	}
	return 0
}

// open reads the begin of an object or array.
func (s *scanner) open() error {
	if s.depth == MaxDepth {
		return fault(s.at, ReasonJSON, tooDeep)
	}
	s.at++
	s.depth++
	return nil
}

// more moves to the next member or element, if there is one.
func (s *scanner) more(end byte, first bool) bool {
	switch c := s.next(); {
	case c == end:
		return false
	case first:
		return true
	case c == ',':
		s.at++
		s.next()
		return true
	}
	return false
}

// close reads the end of an object or array.
func (s *scanner) close(end byte) error {
	if s.next() != end {
		return errNotPlain
	}
	s.at++
	s.depth--
	return nil
}

// finish reads the end of the body.
func (s *scanner) finish() error {
	s.next()
	if s.at < len(s.body) {
		return errNotPlain
	}
	return nil
}

// colon reads what stands between a name and its value.
func (s *scanner) colon() {
	s.next()
	s.at++
}

// string reads a string and returns it with its quotes, and whether there are
// escapes in it.
func (s *scanner) string() (quoted []byte, escaped bool, err error) {
	rest := s.body[s.at:]
	if s.valid {
		n, escaped := stringEnd(rest)
		s.at += n
		return rest[:n], escaped, nil
	}
	for i, c := range rest[1:] {
		if plainText[c] {
			continue
		}
		if c != '"' {
			break
		}
		s.at += i + 2
		return rest[:i+2], false, nil
	}
	return nil, false, errNotPlain
}

// stringEnd returns how long the string is that the text begins with, and whether
// there are escapes in it.
func stringEnd(text []byte) (end int, escaped bool) {
	for end = 1; ; {
		n := bytes.IndexByte(text[end:], '"')
		before := text[end : end+n]
		end += n + 1
		if bytes.IndexByte(before, '\\') < 0 {
			return end, escaped
		}
		escaped = true
		if backslashes := n - len(bytes.TrimRight(before, `\`)); backslashes%2 == 0 {
			return end, true
		}
	}
}

// plainText holds the bytes that stand for themselves in a string and cannot be
// part of a longer letter.
var plainText = func() (plain [256]bool) {
	for c := byte(' '); c <= '~'; c++ {
		plain[c] = c != '"' && c != '\\'
	}
	return plain
}()

// literal reads a number, true, false or null, and returns it.
func (s *scanner) literal() []byte {
	start := s.at
	for ; s.at < len(s.body); s.at++ {
		switch s.body[s.at] {
		case ',', '}', ']', ' ', '\t', '\r', '\n':
			return s.body[start:s.at]
		}
	}
	return s.body[start:]
}
