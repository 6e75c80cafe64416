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

// MaxAnswer is how long an answer to a delivered callback may be. Tencent's largest
// replaces a message's body, which is at most 12 kB.
const MaxAnswer = 1 << 20

// CheckAccepted returns an error unless the answer accepts a delivered callback: a
// status from 200 to 299, and no ActionStatus FAIL in the body, which means "again,
// please". It finds a FAIL also behind a byte order mark or a warning of PHP, before
// trailing text, and in a gzip encoding. An answer that cannot be read is no
// acceptance. Status 0 is that of no answer at all.
func CheckAccepted(status int, contentEncoding string, body []byte) error {
	switch {
	case status == 0:
		return errors.New("no handler answered")
	case status < 200 || status > 299:
		return fmt.Errorf("the answer has the status %d", status)
	case len(body) > MaxAnswer:
		return fmt.Errorf("the answer cannot be read: it is longer than %d bytes", MaxAnswer)
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

func decode(contentEncoding string, body []byte) ([]byte, error) {
	switch encoding := strings.ToLower(strings.TrimSpace(contentEncoding)); {
	case encoding == "" || encoding == "identity" || len(body) == 0:
		return body, nil
	case encoding != "gzip" && encoding != "x-gzip":
		return nil, errors.New("want it without a Content-Encoding, or as gzip")
	}
	reader, err := gzip.NewReader(bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(reader, MaxAnswer+1))
	if err == nil && len(text) > MaxAnswer {
		err = fmt.Errorf("it is longer than %d bytes", MaxAnswer)
	}
	return text, err
}

// fail fits an ActionStatus FAIL in a text that is not JSON.
var fail = regexp.MustCompile(`"ActionStatus"\s*:\s*"FAIL"`)

// maxTries bounds how often it is tried to read JSON in a text that is none.
const maxTries = 64

// saysFail reports whether an object in the text has the ActionStatus FAIL. What
// stands inside an object's members is not the answer's.
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
		var said struct{ ActionStatus string }
		if json.Unmarshal(object, &said, lenient) == nil && said.ActionStatus == "FAIL" {
			return true
		}
		rest = rest[dec.InputOffset():]
	}
	return fail.Match(rest) || broken && fail.Match(text)
}
