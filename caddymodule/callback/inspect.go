// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

import (
	"bytes"
	"math"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// MaxDepth is how deep the objects and arrays of a payload may nest.
const MaxDepth = 16

// Inspect checks a callback's body against the schema of the command, which is
// the one that the query names, and returns its envelope.
//
// The body must be one strict JSON object: UTF-8 without byte order mark,
// without comments, nothing after it, nested at most [MaxDepth] deep, no name
// twice in one object, also not in another case than a known field's, no NUL in a
// name, and no number beyond what a float64 holds. Required fields must be there,
// known fields must be of their type and in range, unknown fields pass. Its errors
// have the reason json, payload or mismatch.
//
// Whether it is strict JSON is judged before everything else. Only a plain body is
// judged in one pass: one that holds nothing but names that the schema knows and
// describes, strings of printable ASCII without escapes, and integers, such as a
// recall. Any other, good or bad, jsontext reads first, which takes longer than all
// the rest, and the pass that follows relies on that.
func Inspect(body []byte, command string) (Event, error) {
	s := schemaOf(command)
	in := inspector{scanner: scanner{body: body}, command: command}
	if in.payload(s.object) != nil {
		return inspectStrictly(body, command, s)
	}
	return in.event(s.classOf(command)), nil
}

// inspectStrictly is [Inspect] for a body that is not plain.
func inspectStrictly(body []byte, command string, s *schema) (Event, error) {
	if !jsontext.Value(body).IsValid() {
		return Event{}, syntaxFault(body)
	}
	in := inspector{scanner: scanner{body: body, valid: true}, command: command}
	if err := in.payload(s.object); err != nil {
		return Event{}, locate(err, body)
	}
	return in.event(s.classOf(command)), nil
}

// inspector is one pass over one body.
type inspector struct {
	scanner

	command    string
	envelope   [roleGroupType + 1][]byte
	eventTime  int64
	msgSeqs    []uint32
	identified bool
}

func (in *inspector) event(class Class) Event {
	e := Event{
		Command: in.command, Class: class, EventTime: in.eventTime, MsgSeqs: in.msgSeqs,
		body: in.body, identified: in.identified,
	}
	var length int
	for _, text := range in.envelope {
		length += len(text)
	}
	var all strings.Builder // one allocation for all strings
	all.Grow(length)
	e.GroupID = in.text(&all, roleGroupID)
	e.TopicID = in.text(&all, roleTopicID)
	e.Operator = in.text(&all, roleOperator)
	e.GroupType = in.text(&all, roleGroupType)
	return e
}

// text appends what was noted for the role, and returns it.
func (in *inspector) text(all *strings.Builder, r role) string {
	start := all.Len()
	all.Write(in.envelope[r])
	return all.String()[start:]
}

// payload reads the whole body.
func (in *inspector) payload(o *object) error {
	if in.next() != '{' {
		return fault(in.at, ReasonJSON, wantObject)
	}
	if err := in.object(o); err != nil {
		return err
	}
	return in.finish()
}

// object reads an object with known fields.
func (in *inspector) object(o *object) error {
	if err := in.open(); err != nil {
		return err
	}
	var seen uint64
	hint := 0
	for first := true; in.more('}', first); first = false {
		i, err := in.name(o, hint)
		if err != nil {
			return err
		}
		if i < 0 {
			if err := in.skip(); err != nil {
				return err
			}
			continue
		}
		if seen&(1<<i) != 0 { // given twice, which strict JSON cannot be
			return errNotPlain
		}
		seen |= 1 << i
		if err := in.value(&o.fields[i]); err != nil {
			return err
		}
		hint = i + 1
	}
	if missing := o.required &^ seen; missing != 0 {
		return in.missing(o, missing)
	}
	return in.close('}')
}

// name reads a name with its colon and returns the index of its field, -1 for an
// unknown one.
func (in *inspector) name(o *object, hint int) (int, error) {
	if i := o.find(in.body[in.at:], hint); i >= 0 {
		in.at += len(o.fields[i].quoted)
		return i, nil
	}
	if !in.valid {
		return 0, errNotPlain
	}
	start := in.at
	quoted, escaped, _ := in.string()
	in.colon()
	name := content(quoted, escaped)
	if i := o.named(name); i >= 0 {
		return i, nil
	}
	if i := o.fold(name); i >= 0 {
		return 0, fault(start, ReasonPayload, "the name looks like "+o.table[i].Name+" but is not; write it exactly")
	}
	return -1, in.checkName(start, name)
}

// checkName refuses a name that PHP refuses as an object's, and with it the whole
// payload, and that others cut at its NUL.
func (in *inspector) checkName(start int, name []byte) error {
	if bytes.IndexByte(name, 0) >= 0 {
		return fault(start, ReasonJSON, "a NUL in the name")
	}
	return nil
}

// checkNumber refuses a number that no float64 holds: parsers read it as infinite,
// or refuse the whole payload for it.
func (in *inspector) checkNumber(start int, raw []byte) error {
	if len(raw) <= 300 && !bytes.ContainsAny(raw, "eE") { // a float64 holds it
		return nil
	}
	if _, err := strconv.ParseFloat(string(raw), 64); err != nil {
		return fault(start, ReasonJSON, "the number is beyond what a float64 holds")
	}
	return nil
}

// skip reads a value of which nothing is known.
func (in *inspector) skip() error {
	if !in.valid {
		return errNotPlain
	}
	for depth := in.depth; ; {
		var err error
		kind := in.next()
		start := in.at
		switch kind {
		case '{', '[':
			err = in.open()
		case '}', ']':
			err = in.close(kind)
		case ',', ':':
			in.at++
		case '"':
			if quoted, escaped, _ := in.string(); escaped && in.next() == ':' {
				err = in.checkName(start, content(quoted, true))
			}
		default:
			if raw := in.literal(); startsNumber(kind) {
				err = in.checkNumber(start, raw)
			}
		}
		if err != nil || in.depth == depth {
			return err
		}
	}
}

// value reads the value of a known field.
func (in *inspector) value(f *field) error {
	switch kind := in.next(); {
	case kind == '"' && f.types&(String|Digits|anyType) != 0:
		return in.stringValue(f)
	case startsNumber(kind) && f.types&(Integer|Uint32|anyType) != 0:
		return in.integer(f)
	case kind == '{' && f.object != nil && f.types&Object != 0:
		return in.object(f.object)
	case kind == '[' && f.types&(Array|Strings|Objects) != 0:
		return in.array(f)
	case f.types&anyType != 0, kind == '{' && f.types&Object != 0:
		return in.skip()
	}
	return wrong(in.at, f)
}

func (in *inspector) stringValue(f *field) error {
	start := in.at
	quoted, escaped, err := in.string()
	if err != nil {
		return err
	}
	if f.role == roleNone && f.types&String != 0 && f.min == 0 {
		return nil
	}
	text := content(quoted, escaped)
	switch {
	case int64(len(text)) < f.min:
		return fault(start, ReasonPayload, "the string is empty")
	case f.role == roleCommand && string(text) != in.command:
		return fault(start, ReasonMismatch, "is not the CallbackCommand of the query")
	case f.types&(String|anyType) != 0:
		in.note(f, text)
		return nil
	}
	n, ok := parseInteger(text)
	if !ok || n < 0 {
		return wrong(start, f)
	}
	in.noteInteger(f, n)
	return nil
}

func (in *inspector) integer(f *field) error {
	start := in.at
	raw := in.literal()
	n, ok := parseInteger(raw)
	if !in.valid && (!ok || len(raw) > 1 && raw[0] < '1') { // perhaps no number at all
		return errNotPlain
	}
	if !ok && f.types&anyType != 0 {
		return in.checkNumber(start, raw)
	}
	if detail := f.refuses(n, ok); detail != "" {
		return fault(start, ReasonPayload, detail)
	}
	in.noteInteger(f, n)
	return nil
}

func (in *inspector) array(f *field) error {
	if err := in.open(); err != nil {
		return err
	}
	n := int64(0)
	for ; in.more(']', n == 0); n++ {
		if err := in.element(f); err != nil {
			return err
		}
	}
	if n < f.min {
		return fault(in.at, ReasonPayload, "want at least "+strconv.FormatInt(f.min, 10)+" in the array")
	}
	return in.close(']')
}

func (in *inspector) element(f *field) error {
	switch kind := in.next(); {
	case f.types&Objects != 0 && kind == '{' && f.object != nil:
		return in.object(f.object)
	case f.types&Array != 0, f.types&Objects != 0 && kind == '{', f.types&Strings != 0 && kind == '"':
		return in.skip()
	}
	return wrong(in.at, f)
}

// content returns what stands between the quotes of a string.
func content(quoted []byte, escaped bool) []byte {
	if !escaped {
		return quoted[1 : len(quoted)-1]
	}
	text, _ := jsontext.AppendUnquote(nil, quoted) // it is valid
	return text
}

// note keeps a string for the Event.
func (in *inspector) note(f *field, text []byte) {
	switch f.role {
	case roleNone, roleMsgSeq, roleCommand:
	case roleEventTime: // of a command without a schema
		if n, ok := parseInteger(text); ok && n >= 0 {
			in.noteInteger(f, n)
		}
	case roleIdentity:
		in.identified = in.identified || len(text) > 0
	default:
		in.envelope[f.role] = text
	}
}

// noteInteger keeps a number for the Event.
func (in *inspector) noteInteger(f *field, n int64) {
	switch f.role {
	case roleEventTime:
		in.eventTime = n
		in.identified = true
	case roleMsgSeq:
		if n >= 0 && n <= math.MaxUint32 {
			in.msgSeqs = append(in.msgSeqs, uint32(n))
		}
		in.identified = true
	case roleIdentity:
		in.identified = true
	}
}

// refuses says why the field does not take the integer, n if it is one; empty if
// it does.
func (f *field) refuses(n int64, ok bool) string {
	switch {
	case !ok:
		return "want an integer without fraction or exponent, nearer to 0 than 2^53, so that every parser reads it alike"
	case f.types&Uint32 != 0 && (n < 0 || n > math.MaxUint32):
		return "out of range: want an integer from " + strconv.FormatInt(f.min, 10) + " to 4294967295"
	case f.min != 0 && n < f.min:
		return "out of range: want an integer not below " + strconv.FormatInt(f.min, 10)
	}
	return ""
}

// maxInteger is the largest integer that parsers with nothing but float64, such
// as JavaScript's, tell from its neighbors (RFC 7493, section 2.2).
const maxInteger = 1<<53 - 1

// startsNumber reports whether a value that begins so is a number.
func startsNumber(c byte) bool { return c == '-' || '0' <= c && c <= '9' }

// parseInteger reads the digits of a JSON number or string, with a sign.
func parseInteger(text []byte) (n int64, ok bool) {
	digits := bytes.TrimPrefix(text, []byte("-"))
	negative := len(digits) < len(text)
	if len(digits) == 0 || len(digits) > 19 || negative && digits[0] == '0' {
		return 0, false
	}
	var u uint64 // 19 digits always fit
	for _, c := range digits {
		if c < '0' || c > '9' {
			return 0, false
		}
		u = u*10 + uint64(c-'0')
	}
	if u > maxInteger {
		return 0, false
	}
	if negative {
		return -int64(u), true
	}
	return int64(u), true
}
