// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

import "bytes"

// scanner reads a body that jsontext has validated as strict JSON.
type scanner struct {
	body  []byte
	at    int // the offset of the next byte to read
	depth int // the number of open objects and arrays
}

// next skips white space and returns the byte that follows without reading it, or 0 at
// the end.
func (s *scanner) next() byte {
	for ; s.at < len(s.body); s.at++ {
		if c := s.body[s.at]; c > ' ' {
			return c
		}
	}
	return 0
}

// open reads the opening brace or bracket of an object or array.
func (s *scanner) open() error {
	if s.depth == MaxDepth {
		return fault(s.at, ReasonJSON, tooDeep)
	}
	s.at++
	s.depth++
	return nil
}

// more moves to the next member or element and returns true. At the end of the object
// or array, it reads the closing brace or bracket and returns false.
func (s *scanner) more() bool {
	switch s.next() {
	case '}', ']':
		s.at++
		s.depth--
		return false
	case ',':
		s.at++
		s.next()
	}
	return true
}

// colon reads the colon between a name and its value.
func (s *scanner) colon() {
	s.next()
	s.at++
}

// string reads a string and returns it, including the quotes.
func (s *scanner) string() []byte {
	start := s.at
	for s.at++; ; {
		s.at += bytes.IndexByte(s.body[s.at:], '"') + 1
		if s.body[s.at-2] != '\\' {
			return s.body[start:s.at]
		}
		inside := s.body[start+1 : s.at-1]
		if backslashes := len(inside) - len(bytes.TrimRight(inside, `\`)); backslashes%2 == 0 {
			return s.body[start:s.at] // the quote is not escaped
		}
	}
}

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
