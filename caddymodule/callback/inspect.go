// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

import (
	"bytes"
	"math"
	"slices"
	"strconv"
	"sync"

	"github.com/go-json-experiment/json/jsontext"
)

// MaxDepth is how deep the objects and arrays of a payload may nest.
const MaxDepth = 16

// Inspect checks a callback's body against the schema of the command, which is
// the one that the query names, in one pass, and returns its envelope.
//
// The body must be one strict JSON object: UTF-8 without byte order mark,
// without comments, nothing after it, nested at most [MaxDepth] deep, no name
// twice in one object, also not in another case than a known field's, no NUL in a
// name, and no number beyond what a float64 holds. Required fields must be there,
// known fields must be of their type and in range, unknown fields pass. Its errors
// have the reason json, payload or mismatch.
func Inspect(body []byte, command string) (Event, error) {
	in := inspectors.Get().(*inspector)
	defer in.release()
	s := schemaOf(command)
	in.begin(body, command)
	if err := in.payload(s.object); err != nil {
		return Event{}, err
	}
	return in.event(s.classOf(command)), nil
}

// inspector is one pass over one body. It is reused, so that a pass allocates
// only what it returns.
type inspector struct {
	dec     *jsontext.Decoder
	buf     bytes.Buffer
	body    []byte
	command string

	envelope   [roleGroupType + 1]span // of text
	text       []byte                  // the envelope's strings, one after the other
	eventTime  int64
	msgSeqs    []uint32
	identified bool
	unquoted   []byte // scratch
	nul        bool   // a NUL stands somewhere, perhaps in a name
	last       int    // the size of what was read last, for the place of a fault
}

type span struct{ start, end int }

func (s span) of(text string) string { return text[s.start:s.end] }

var inspectors = sync.Pool{New: func() any { return &inspector{dec: new(jsontext.Decoder)} }}

func (in *inspector) begin(body []byte, command string) {
	in.body, in.command, in.last = body, command, 0
	in.buf = *bytes.NewBuffer(body) // the decoder reads a Buffer's bytes where they are
	in.dec.Reset(&in.buf)
	in.nul = bytes.Contains(body, []byte(`\u0000`)) // JSON has no other way to write one
}

func (in *inspector) release() {
	const large = 64 << 10 // do not keep what one huge payload needed
	if cap(in.text)+4*cap(in.msgSeqs)+cap(in.unquoted) > large {
		return
	}
	if len(in.body) > 4<<10 { // a smaller one may stay with the decoder till the next
		in.buf = bytes.Buffer{}
		in.dec.Reset(&in.buf)
	}
	in.body, in.command = nil, ""
	in.envelope, in.eventTime, in.identified = [len(in.envelope)]span{}, 0, false
	in.text, in.msgSeqs = in.text[:0], in.msgSeqs[:0]
	inspectors.Put(in)
}

func (in *inspector) event(class Class) Event {
	e := Event{
		Command: in.command, Class: class, EventTime: in.eventTime,
		body: in.body, identified: in.identified,
	}
	text := string(in.text) // one allocation for all strings
	e.GroupID = in.envelope[roleGroupID].of(text)
	e.TopicID = in.envelope[roleTopicID].of(text)
	e.Operator = in.envelope[roleOperator].of(text)
	e.GroupType = in.envelope[roleGroupType].of(text)
	if len(in.msgSeqs) > 0 {
		e.MsgSeqs = slices.Clone(in.msgSeqs)
	}
	return e
}

// payload reads the whole body.
func (in *inspector) payload(o *object) error {
	if kind := in.dec.PeekKind(); kind != '{' && kind != 0 {
		return in.fault(ReasonJSON, "want one JSON object")
	}
	if err := in.object(o); err != nil {
		return err
	}
	end := in.dec.InputOffset()
	if len(bytes.TrimLeft(in.body[end:], " \t\r\n")) > 0 {
		return &Rejection{Reason: ReasonJSON, Detail: "want nothing after the JSON object", Offset: end}
	}
	return nil
}

// object reads an object with known fields.
func (in *inspector) object(o *object) error {
	if err := in.open(); err != nil {
		return err
	}
	var seen uint64
	for next := 0; in.dec.PeekKind() != '}'; {
		i, err := in.name(o, next)
		if err != nil {
			return err
		}
		if i < 0 {
			if err := in.skip(); err != nil {
				return err
			}
			continue
		}
		seen |= 1 << i
		if err := in.value(&o.fields[i]); err != nil {
			return err
		}
		next = i + 1
	}
	if missing := o.required &^ seen; missing != 0 {
		return in.missing(o, missing)
	}
	_, err := in.dec.ReadToken()
	return in.syntax(err)
}

// open reads the begin of an object or array.
func (in *inspector) open() error {
	if _, err := in.dec.ReadToken(); err != nil {
		return in.syntax(err)
	}
	in.last = 1
	if in.dec.StackDepth() > MaxDepth {
		return in.fault(ReasonJSON, "nested deeper than "+strconv.Itoa(MaxDepth))
	}
	return nil
}

// name reads a name and returns the index of its field, -1 for an unknown one.
func (in *inspector) name(o *object, hint int) (int, error) {
	quoted, err := in.dec.ReadValue()
	if err != nil {
		return 0, in.syntax(err)
	}
	if i := o.find(quoted, hint); i >= 0 {
		return i, nil
	}
	in.last = len(quoted)
	name := in.content(quoted)
	i := o.fold(name)
	if i >= 0 && o.fields[i].Name != string(name) {
		return 0, in.fault(ReasonPayload, "the name looks like "+o.fields[i].Name+" but is not; write it exactly")
	}
	return i, in.checkName(name)
}

// checkName refuses a name that PHP refuses as an object's, and with it the whole
// payload, and that others cut at its NUL.
func (in *inspector) checkName(name []byte) error {
	if in.nul && bytes.IndexByte(name, 0) >= 0 {
		return in.fault(ReasonJSON, "a NUL in the name")
	}
	return nil
}

// checkNumber refuses a number that no float64 holds: parsers read it as infinite,
// or refuse the whole payload for it.
func (in *inspector) checkNumber(raw []byte) error {
	if _, err := strconv.ParseFloat(string(raw), 64); err != nil {
		return in.fault(ReasonJSON, "the number is beyond what a float64 holds")
	}
	return nil
}

// skip reads a value of which nothing is known.
func (in *inspector) skip() error {
	for depth := in.dec.StackDepth(); ; {
		before := in.dec.InputOffset()
		token, err := in.dec.ReadToken()
		if err != nil {
			return in.syntax(err)
		}
		now := in.dec.StackDepth()
		if now > MaxDepth {
			in.last = 1
			return in.fault(ReasonJSON, "nested deeper than "+strconv.Itoa(MaxDepth))
		}
		if err := in.skipped(token.Kind(), before); err != nil {
			return err
		}
		if now == depth {
			return nil
		}
	}
}

// skipped checks a token, read from the offset on, of a value of which nothing is
// known.
func (in *inspector) skipped(kind jsontext.Kind, before int64) error {
	switch {
	case kind == '0':
		raw := in.since(before)
		in.last = len(raw)
		return in.checkNumber(raw)
	case kind == '"' && in.nul:
		if parent, n := in.dec.StackIndex(in.dec.StackDepth()); parent == '{' && n%2 == 1 {
			raw := in.since(before)
			in.last = len(raw)
			return in.checkName(in.content(raw))
		}
	}
	return nil
}

// since returns the token that was read from the offset on.
func (in *inspector) since(before int64) []byte {
	return bytes.TrimLeft(in.body[before:in.dec.InputOffset()], " \t\r\n,:")
}

// value reads the value of a known field.
func (in *inspector) value(f *field) error {
	if f.Type&^(String|Digits|Integer|Uint32) == 0 {
		return in.scalar(f)
	}
	switch kind := in.dec.PeekKind(); {
	case kind == '{' && f.object != nil && f.Type&Object != 0:
		return in.object(f.object)
	case kind == '[' && f.Type&(Array|Strings|Objects) != 0:
		return in.array(f)
	case kind == '{' && f.Type&(Object|anyType) == 0, kind == '[' && f.Type&anyType == 0:
		return in.wrong(f)
	case kind == '{', kind == '[', kind == 0:
		return in.skip()
	}
	return in.scalar(f)
}

// scalar reads a value that should be a string or a number.
func (in *inspector) scalar(f *field) error {
	raw, err := in.dec.ReadValue()
	if err != nil {
		return in.syntax(err)
	}
	in.last = len(raw)
	switch kind := raw.Kind(); {
	case kind == '"' && f.Type&(String|Digits|anyType) != 0:
		return in.stringValue(f, raw)
	case kind == '0' && f.Type&(Integer|Uint32|anyType) != 0:
		return in.integer(f, raw)
	case f.Type&anyType != 0:
		return nil
	}
	return in.fault(ReasonPayload, "want "+f.Type.String())
}

func (in *inspector) stringValue(f *field, raw []byte) error {
	if f.role == roleNone && f.Type&String != 0 && f.Min == 0 {
		return nil
	}
	text := in.content(raw)
	if int64(len(text)) < f.Min {
		return in.fault(ReasonPayload, "the string is empty")
	}
	if f.Type&(String|anyType) != 0 {
		return in.note(f, text)
	}
	n, ok := parseInteger(text)
	if !ok || n < 0 {
		return in.fault(ReasonPayload, "want "+f.Type.String())
	}
	in.noteInteger(f, n)
	return nil
}

func (in *inspector) integer(f *field, raw []byte) error {
	n, ok := parseInteger(raw)
	switch {
	case f.Type&anyType != 0:
		if !ok {
			return in.checkNumber(raw)
		}
	case !ok:
		return in.fault(ReasonPayload, "want an integer without fraction or exponent, nearer to 0 than 2^53, so that every parser reads it alike")
	case f.Type&Uint32 != 0 && (n < 0 || n > math.MaxUint32):
		return in.fault(ReasonPayload, "out of range: want an integer from "+strconv.FormatInt(f.Min, 10)+" to 4294967295")
	case f.Min != 0 && n < f.Min:
		return in.fault(ReasonPayload, "out of range: want an integer not below "+strconv.FormatInt(f.Min, 10))
	}
	in.noteInteger(f, n)
	return nil
}

func (in *inspector) array(f *field) error {
	if err := in.open(); err != nil {
		return err
	}
	n := int64(0)
	for ; in.dec.PeekKind() != ']'; n++ {
		if err := in.element(f); err != nil {
			return err
		}
	}
	if n < f.Min {
		in.last = 0
		return in.fault(ReasonPayload, "want at least "+strconv.FormatInt(f.Min, 10)+" in the array")
	}
	_, err := in.dec.ReadToken()
	return in.syntax(err)
}

func (in *inspector) element(f *field) error {
	kind := in.dec.PeekKind()
	switch {
	case kind == 0 || f.Type&Array != 0:
		return in.skip()
	case f.Type&Objects != 0 && kind == '{' && f.object != nil:
		return in.object(f.object)
	case f.Type&Objects != 0 && kind == '{', f.Type&Strings != 0 && kind == '"':
		return in.skip()
	}
	return in.wrong(f)
}

// content returns what stands between the quotes of a string. It is valid until
// the next call.
func (in *inspector) content(quoted []byte) []byte {
	if bytes.IndexByte(quoted, '\\') < 0 {
		return quoted[1 : len(quoted)-1]
	}
	in.unquoted, _ = jsontext.AppendUnquote(in.unquoted[:0], quoted) // the decoder has checked it
	return in.unquoted
}

// note keeps a string for the Event.
func (in *inspector) note(f *field, text []byte) error {
	switch f.role {
	case roleNone, roleMsgSeq:
	case roleEventTime: // of a command without a schema
		if n, ok := parseInteger(text); ok && n >= 0 {
			in.noteInteger(f, n)
		}
	case roleIdentity:
		in.identified = in.identified || len(text) > 0
	case roleCommand:
		if string(text) != in.command {
			return in.fault(ReasonMismatch, "is not the CallbackCommand of the query")
		}
	default:
		start := len(in.text)
		in.text = append(in.text, text...)
		in.envelope[f.role] = span{start, len(in.text)}
	}
	return nil
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

// maxInteger is the largest integer that parsers with nothing but float64, such
// as JavaScript's, tell from its neighbors (RFC 7493, section 2.2).
const maxInteger = 1<<53 - 1

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
