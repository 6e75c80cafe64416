// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// MaxAnswer is the maximum size in bytes of a backend's answer. Tencent's largest
// answer replaces a message body, which is at most 12 kB.
const MaxAnswer = 1 << 20

// CheckAccepted returns an error unless the answer accepts a delivered callback: its
// status must be 2xx, and its body must not say ActionStatus FAIL, which asks for
// another attempt. A FAIL is also found after a byte order mark or a PHP warning,
// before trailing text, and in a gzip-encoded body. An answer that cannot be decoded
// is not accepted. Status 0 means that there was no answer.
func CheckAccepted(status int, contentEncoding string, body []byte) error {
	switch {
	case status == 0:
		return errors.New("no handler answered")
	case status < 200 || status > 299:
		return fmt.Errorf("the answer has the status %d", status)
	case len(body) > MaxAnswer:
		return fmt.Errorf("the answer cannot be read: %w", errTooLong)
	}
	text, err := decode(contentEncoding, body)
	if err != nil {
		return fmt.Errorf("the answer cannot be read: %w", err)
	}
	if saysFail(text) {
		return errors.New("the answer says FAIL")
	}
	return nil
}

var errTooLong = fmt.Errorf("longer than %d bytes", MaxAnswer)

func decode(contentEncoding string, body []byte) ([]byte, error) {
	switch encoding := strings.ToLower(strings.TrimSpace(contentEncoding)); {
	case encoding == "" || encoding == "identity" || len(body) == 0:
		return body, nil
	case encoding != "gzip" && encoding != "x-gzip":
		return nil, errors.New("want no Content-Encoding, or gzip")
	}
	reader, err := gzip.NewReader(bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(reader, MaxAnswer+1))
	if err == nil && len(text) > MaxAnswer {
		err = errTooLong
	}
	return text, err
}

// failPattern matches an ActionStatus FAIL in text that is not valid JSON.
var failPattern = regexp.MustCompile(`"ActionStatus"\s*:\s*"FAIL"`)

// maxTries limits the number of positions at which saysFail tries to parse an object.
const maxTries = 64

// saysFail reports whether a top-level object in the text has the ActionStatus FAIL.
// Nested objects do not count.
func saysFail(text []byte) bool {
	lenient := json.JoinOptions(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	rest, broken := text, false
	for range maxTries {
		start := bytes.IndexByte(rest, '{')
		if start < 0 {
			break
		}
		rest = rest[start:]
		dec := jsontext.NewDecoder(bytes.NewReader(rest), lenient)
		object, err := dec.ReadValue()
		if err != nil {
			rest, broken = rest[1:], true
			continue
		}
		var answer struct{ ActionStatus string }
		if json.Unmarshal(object, &answer, lenient) == nil && answer.ActionStatus == "FAIL" {
			return true
		}
		rest = rest[dec.InputOffset():]
	}
	return failPattern.Match(rest) || broken && failPattern.Match(text)
}
