// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"mime"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// MaxAnswer is the maximum size in bytes of a backend's answer. Tencent's largest
// answer replaces a message body, which is at most 12 kB.
const MaxAnswer = 1 << 20

// The ways to judge whether a backend has accepted a callback. Each requires a 2xx status.
const (
	// AcceptSound takes what endpoints usually answer: JSON that does not say ActionStatus
	// FAIL, which asks for another attempt; nothing; or a plain word such as ok. It takes
	// no HTML, and nothing that is cut off or that two readers would read differently.
	AcceptSound = "sound"

	// AcceptAnswer takes only one JSON object that does not say FAIL, as Tencent asks for.
	AcceptAnswer = "answer"

	// Accept2xx takes everything.
	Accept2xx = "2xx"
)

// Acceptance says which answers of a backend accept a callback.
type Acceptance struct {
	form    string // a constant above, or "" if there is a pointer
	pointer jsontext.Pointer
	values  []string // one of which must be at the pointer
}

// NewAcceptance returns an Acceptance of one of the forms above or, if the form is a JSON
// pointer (RFC 6901), of answers whose JSON has one of the values there. A value stands
// for a string as well as for a number, true, false or null.
func NewAcceptance(form string, values ...string) (Acceptance, error) {
	isPointer := strings.HasPrefix(form, "/")
	switch {
	case isPointer && len(values) == 0:
		return Acceptance{}, fmt.Errorf("accept %s: want the values that the answer must have there, such as accept %s 0", form, form)
	case isPointer && !jsontext.Pointer(form).IsValid():
		return Acceptance{}, fmt.Errorf("accept %s: want a JSON pointer, in which ~ is written ~0", form)
	case isPointer:
		return Acceptance{pointer: jsontext.Pointer(form), values: values}, nil
	case !slices.Contains([]string{AcceptSound, AcceptAnswer, Accept2xx}, form):
		return Acceptance{}, fmt.Errorf("accept %q: want sound, answer, 2xx, or a JSON pointer such as /code and its values", form)
	case len(values) > 0:
		return Acceptance{}, fmt.Errorf("accept %s takes no values, but got %q", form, values[0])
	}
	return Acceptance{form: form}, nil
}

// BackendAnswer is the answer of a backend. Status 0 means that there was none.
type BackendAnswer struct {
	Status          int
	ContentType     string
	ContentEncoding string
	Body            []byte
}

// FormError is the error of an answer that has the right status, but not the right form:
// other answers of the same backend will probably not have it either.
type FormError struct{ what, accept string }

// Error names what came, and the Acceptance that would take it.
func (e *FormError) Error() string { return e.what + "; accept " + e.accept + " would take it" }

func badForm(what string) error { return &FormError{"the answer is " + what, Accept2xx} }

// Check returns an error that names what came unless the answer accepts the callback. The
// error is a [*FormError] if it is about the form of the answer.
func (a Acceptance) Check(answer BackendAnswer) error {
	err := a.check(answer)
	form, ok := errors.AsType[*FormError](err)
	if ok && form.accept == Accept2xx && a.form != AcceptSound && sound.check(answer) == nil {
		form.accept = AcceptSound
	}
	return err
}

var sound = Acceptance{form: AcceptSound}

// loopDetected is the HTTP status of that name.
const loopDetected = 508

func (a Acceptance) check(answer BackendAnswer) error {
	switch {
	case answer.Status == 0:
		return errors.New("no handler answered")
	case answer.Status == loopDetected:
		return errors.New("the answer has the status 508, with which a guard refuses what its backend leads back to it")
	case answer.Status < 200 || answer.Status > 299:
		return fmt.Errorf("the answer has the status %d", answer.Status)
	case a.form == Accept2xx:
		return nil
	case len(answer.Body) > MaxAnswer:
		return badForm(fmt.Sprintf("longer than %d bytes", MaxAnswer))
	}
	text, err := answer.text()
	if err != nil {
		return err
	}
	if a.pointer != "" {
		return a.checkPointer(text)
	}
	return checkText(text, a.form == AcceptAnswer, strings.HasPrefix(answer.ContentType, "text/html"))
}

// text returns the decoded body, without a byte order mark and white space around it.
func (a BackendAnswer) text() ([]byte, error) {
	text, err := a.unpacked()
	if err != nil {
		return nil, err
	}
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	switch {
	case isASCII(text):
	case !a.isInUTF8():
		return nil, badForm("in another charset than UTF-8")
	case !utf8.Valid(text):
		return nil, badForm("not text in UTF-8")
	}
	return bytes.TrimSpace(text), nil
}

// isInUTF8 reports whether the answer does not say that it is in another charset.
func (a BackendAnswer) isInUTF8() bool {
	_, params, _ := mime.ParseMediaType(a.ContentType)
	return slices.Contains([]string{"", "utf-8", "utf8", "us-ascii", "ascii"}, strings.ToLower(params["charset"]))
}

func isASCII(text []byte) bool {
	return !slices.ContainsFunc(text, func(c byte) bool { return c == 0 || c >= utf8.RuneSelf })
}

var gzipMagic = []byte{0x1f, 0x8b}

// unpacked returns the body without its Content-Encoding. Some servers compress without
// saying so.
func (a BackendAnswer) unpacked() ([]byte, error) {
	encoding := strings.ToLower(strings.TrimSpace(a.ContentEncoding))
	switch {
	case len(a.Body) == 0:
		return nil, nil
	case bytes.HasPrefix(a.Body, gzipMagic), encoding == "gzip", encoding == "x-gzip":
	case encoding == "", encoding == "identity":
		return a.Body, nil
	default:
		return nil, badForm("compressed, but not by gzip")
	}
	var text []byte
	reader, err := gzip.NewReader(bytes.NewReader(a.Body))
	if err == nil {
		text, err = io.ReadAll(io.LimitReader(reader, MaxAnswer+1))
	}
	if err != nil || len(text) > MaxAnswer {
		return nil, badForm("gzip that cannot be unpacked")
	}
	return text, nil
}

// checkText implements the forms sound and, if strict is true, answer. PHP calls every answer
// HTML, so html is only what an answer of no other form is taken for.
func checkText(text []byte, strict, html bool) error {
	switch value := jsontext.Value(text); {
	case len(text) == 0 && strict:
		return badForm("empty")
	case len(text) == 0:
		return nil
	case value.IsValid():
		return checkJSON(value, strict)
	case failPattern.Match(text):
		return errSaysFail
	case text[0] == '{' || text[0] == '[' || text[0] == '"':
		return brokenJSON(text)
	case isPlainWord(string(text)) && strict:
		return badForm("a plain word")
	case isPlainWord(string(text)):
		return nil
	case html || text[0] == '<':
		return badForm("an HTML page")
	}
	return badForm("text that is not JSON")
}

// checkJSON checks a valid JSON value.
func checkJSON(value jsontext.Value, strict bool) error {
	kind := value.Kind()
	switch {
	case saysFail(value):
		return errSaysFail
	case strict && kind != '{':
		return badForm("JSON, but no object")
	case kind == 'f': // PHP encodes the result of a function that has failed as false
		return badForm("false")
	}
	return nil
}

var errSaysFail = errors.New("the answer says FAIL")

// saysFail reports whether the value is an object with the ActionStatus FAIL, or an array
// with such an object, or either in a string, since some backends encode their answer
// twice.
func saysFail(value jsontext.Value) bool {
	switch value.Kind() {
	case '"':
		inner, _ := jsontext.AppendUnquote(nil, value) // value is valid
		return failPattern.Match(inner)
	case '[':
		var elements []jsontext.Value
		return json.Unmarshal(value, &elements) == nil && slices.ContainsFunc(elements, saysFail)
	case '{':
		var answer struct{ ActionStatus any }
		if json.Unmarshal(value, &answer) != nil {
			return false
		}
		status, _ := answer.ActionStatus.(string)
		return strings.EqualFold(status, "FAIL")
	}
	return false
}

// brokenJSON says what is wrong with text that begins like JSON.
func brokenJSON(text []byte) error {
	dec := jsontext.NewDecoder(bytes.NewReader(text))
	switch _, err := dec.ReadValue(); {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return badForm("JSON that is cut off")
	case errors.Is(err, jsontext.ErrDuplicateName):
		return badForm("JSON that has a name twice")
	case err == nil:
		return badForm("JSON with text behind it")
	}
	return badForm("JSON with a syntax error")
}

// failPattern matches an ActionStatus FAIL in text that is not valid JSON.
var failPattern = regexp.MustCompile(`"ActionStatus"\s*:\s*"FAIL"`)

// plainWord matches one word, with or without a mark at its end. It does not match a
// sentence, such as that of a maintenance page.
var plainWord = regexp.MustCompile(`^[A-Za-z0-9_-]{1,32}[.!]?$`)

// failures are words by which a backend says that it has not accepted a callback.
var failures = []string{
	"fail", "failed", "failure", "error", "err", "exception", "false", "no", "not_ok", "nok", "busy", "denied", "forbidden", "unauthorized",
	"invalid", "unavailable", "maintenance", "timeout", "retry", "reject", "rejected", "none", "undefined", "nil",
}

// isPlainWord reports whether the text is a single word that does not mean a failure.
func isPlainWord(text string) bool {
	if text == "成功" || text == "收到" {
		return true
	}
	return plainWord.MatchString(text) && !slices.Contains(failures, strings.ToLower(strings.TrimRight(text, ".!")))
}

// checkPointer checks the value at the pointer.
func (a Acceptance) checkPointer(text []byte) error {
	value := jsontext.Value(text)
	switch {
	case !value.IsValid() && failPattern.Match(text):
		return errSaysFail
	case !value.IsValid():
		return badForm("not JSON")
	}
	got, found := valueAt(value, a.pointer)
	switch {
	case !found && saysFail(value):
		return errSaysFail
	case !found:
		return badForm(fmt.Sprintf("JSON without a value at %s", a.pointer))
	case slices.Contains(a.values, got):
		return nil
	case len(got) > 20 || !plainWord.MatchString(got): // it may be anything
		return badForm(fmt.Sprintf("JSON with another value at %s", a.pointer))
	}
	return &FormError{fmt.Sprintf("%s is %s", a.pointer, got), fmt.Sprintf("%s %s", a.pointer, got)}
}

// valueAt returns the string, number or literal at the pointer as text.
func valueAt(value jsontext.Value, at jsontext.Pointer) (text string, found bool) {
	dec := jsontext.NewDecoder(bytes.NewReader(value))
	for {
		token, err := dec.ReadToken()
		if err != nil {
			return "", false
		}
		kind, n := dec.StackIndex(dec.StackDepth())
		isName := kind == '{' && n%2 == 1
		if !isName && dec.StackPointer() == at {
			isScalar := !strings.ContainsRune("{}[]", rune(token.Kind()))
			return token.String(), isScalar
		}
	}
}
