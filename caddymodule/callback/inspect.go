// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

import (
	"bytes"
	"cmp"
	"math"
	"math/bits"
	"slices"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"
)

// MaxDepth is the maximum nesting depth of objects and arrays in a payload. It is that of
// PHP's json_decode. A merged message nests up to 100 others, each of 5 levels.
const MaxDepth = 512

// Inspect checks a callback's body against the schema of the command, which is the
// CallbackCommand of the query, and returns the event that it describes.
//
// The body must be a single strict JSON object: UTF-8 without a byte order mark, no
// comments, no trailing data, no duplicate names. Nesting is limited to [MaxDepth];
// names must not contain NUL, and numbers must fit in a float64. Required fields must
// be present, and known fields must be of their type and in range. A CallbackCommand at
// the top level must be the query's, whether or not the command's payload has one.
//
// Unknown fields are ignored, except for names by which some backend would read another
// payload: look-alikes of a protocol name (such as groupid) in every object that the
// protocol describes; parameters of the query at the top level; and names with a meaning
// to JavaScript or to Java's JSON libraries (such as __proto__ and @type) at any depth.
// The reason of an error is json, payload or mismatch.
func Inspect(body []byte, command string) (e Event, err error) {
	in := inspector{scanner: scanner{body: body}, command: command}
	if faults := in.inspect(); len(faults) > 0 {
		return e, faults[0]
	}
	in.describe(&e)
	return e, nil
}

// Faults returns everything that [Inspect] rejects in the body, in the order of the
// body, or nil if the body is valid. A fault with the reason json is always the last
// one, because what follows it cannot be parsed.
func Faults(body []byte, command string) []*Rejection {
	in := inspector{scanner: scanner{body: body}, command: command, all: true}
	return in.inspect()
}

// inspector checks a body in one pass.
type inspector struct {
	scanner

	command    string
	class      Class
	envelope   [roleMsgKey + 1][]byte
	from, to   accounts
	sdkAppID   []byte
	eventTime  int64
	msgSeqs    []uint32
	recurs     bool // Command.Recurs
	identified bool
	drift      *Drift
	others     []*spellings // the protocol's names in the open objects that their schemas lack

	all    bool // collect all faults instead of stopping at the first
	faults []*Rejection
}

// collect records a fault and reports whether to continue after it.
func (in *inspector) collect(err error) bool {
	r := asRejection(err)
	if !in.all || r.Reason == ReasonJSON {
		return false
	}
	in.faults = append(in.faults, r)
	return true
}

// resume records the fault of the value at the offset and skips the value, or returns
// the fault if inspection ends with it.
func (in *inspector) resume(at, depth int, err error) error {
	if !in.collect(err) {
		return err
	}
	in.at, in.depth = at, depth
	return in.skip()
}

// inspect reads the whole body and returns its faults, or only the first one.
func (in *inspector) inspect() []*Rejection {
	if !jsontext.Value(in.body).IsValid() {
		return []*Rejection{syntaxFault(in.body)}
	}
	if err := in.payload(); err != nil {
		in.faults = append(in.faults, asRejection(err))
	}
	if len(in.faults) > 0 {
		locate(in.body, in.faults)
	}
	return in.faults
}

func (in *inspector) payload() error {
	if in.next() != '{' {
		return fault(in.at, ReasonJSON, wantObject)
	}
	var o *object
	o, in.class, in.recurs = schemaOf(in.command)
	return in.object(o)
}

// object reads an object that the protocol describes.
func (in *inspector) object(o *object) error {
	if err := in.open(); err != nil {
		return err
	}
	var seen uint64
	others := len(in.others)
	hint := 0
	for in.more() {
		start := in.at
		quoted := in.string()
		in.colon()
		at, depth := in.at, in.depth
		name := quoted[1 : len(quoted)-1]
		i := o.find(name, hint)
		if i < 0 { // the name may contain escapes
			name = content(quoted)
			i = o.find(name, hint)
		}
		var err error
		if i >= 0 {
			seen |= 1 << i
			hint = i + 1
			err = in.value(&o.fields[i])
		} else if err = in.checkName(o, start, name, others); err == nil {
			in.noteUnknown(o, name)
			err = in.unknown(name)
		}
		if err == nil {
			continue
		}
		if err := in.resume(at, depth, err); err != nil {
			return err
		}
	}
	in.others = in.others[:others]
	if absent := o.usual &^ seen; absent != 0 {
		in.noteMissing(o, absent)
	}
	return in.missing(o, o.required&^seen)
}

// missing rejects the object that has just been read if any bit is set. Each bit is a
// required field that the object does not have.
func (in *inspector) missing(o *object, fields uint64) error {
	for ; fields != 0; fields &= fields - 1 {
		name := o.fields[bits.TrailingZeros64(fields)].Name
		err := &Rejection{Reason: ReasonPayload, Path: name, Detail: "the field is missing", Offset: int64(in.at - 1)}
		if !in.collect(err) {
			return err
		}
	}
	return nil
}

// checkName rejects a name that is not a field of the object but that some parser would
// take for a protocol name. The protocol itself spells a few names in several ways. An
// object may use one spelling of each; those that it has used begin at index others of
// in.others.
//
// In an object that Tencent has not documented, a look-alike may be the true name. There,
// it is only rejected if it looks like a name by which the guard or a backend tells who and
// what a callback is about, or if the object has the other name as well.
func (in *inspector) checkName(o *object, start int, name []byte, others int) error {
	if err := checkAnyName(start, name); err != nil {
		return err
	}
	var buf [64]byte // fits all usual names
	form := appendNormalized(buf[:0], name)
	if in.depth == 1 && isQueryName(name, form) {
		return fault(start, ReasonPayload, "the name belongs to the query; some backends would read it here instead")
	}
	for i := range o.fields {
		if o.fields[i].normalized == string(form) {
			return lookAlike(start, o.fields[i].Name)
		}
	}
	known := protocolNames[string(form)]
	switch {
	case known == nil:
		return nil
	case (o.complete || known.hasRole) && !known.has(name), slices.Contains(in.others[others:], known):
		return lookAlike(start, known.all[0])
	}
	in.others = append(in.others, known)
	return nil
}

// checkAnyName rejects names that are dangerous in any object: PHP rejects payloads
// with a name that begins with NUL, other parsers truncate the name there; JavaScript
// code that copies an object sets its prototype; and fastjson, Jackson and Json.NET may
// read another type, or another part of the payload, because of a name such as @type or
// $ref.
func checkAnyName(start int, name []byte) error {
	switch {
	case bytes.IndexByte(name, 0) >= 0:
		return fault(start, ReasonJSON, "NUL in the name")
	case len(name) > 0 && (name[0] == '@' || name[0] == '$'):
		return fault(start, ReasonPayload, "some JSON libraries of Java and .NET treat a name that begins with "+string(name[0])+" as an instruction")
	}
	switch string(name) {
	case "__proto__", "constructor", "prototype":
		return fault(start, ReasonPayload, "JavaScript treats this name as a part of the object's prototype")
	}
	return nil
}

func lookAlike(start int, known string) error {
	return fault(start, ReasonPayload, "the name looks like "+known+"; use that exact spelling")
}

// value reads the value of a known field.
func (in *inspector) value(f *field) error {
	kind := in.next()
	switch {
	case kind == '"' && f.Type&(String|Digits|anyType) != 0:
		return in.stringValue(f)
	case startsNumber(kind) && f.Type&(Integer|Uint32|anyType) != 0:
		return in.number(f)
	case kind == '{' && f.object != nil && f.Type&Object != 0:
		return in.object(f.object)
	case kind == '[' && f.Type&(Array|Strings|Objects) != 0:
		return in.array(f)
	case f.Type&anyType != 0:
		return in.unknown([]byte(f.Name))
	case kind == '{' && f.Type&Object != 0:
		return in.skip()
	}
	return wrongType(in.at, f)
}

func (in *inspector) stringValue(f *field) error {
	start := in.at
	quoted := in.string()
	if f.role == roleNone && f.Type&String != 0 && f.Min == 0 {
		return nil
	}
	text := content(quoted)
	switch {
	case int64(len(text)) < f.Min:
		return fault(start, ReasonPayload, "the string is empty")
	case f.role == roleCommand && string(text) != in.command:
		return fault(start, ReasonMismatch, "does not match the CallbackCommand of the query")
	case f.Type&(String|anyType) != 0:
		in.note(f, text)
		return nil
	}
	n, ok := parseInteger(text)
	if !ok || n < 0 {
		return wrongType(start, f)
	}
	in.noteInteger(f, n)
	return nil
}

func (in *inspector) number(f *field) error {
	start := in.at
	raw := in.literal()
	n, ok := parseInteger(raw)
	if !ok && f.Type&anyType != 0 {
		return checkNumber(start, raw)
	}
	if detail := f.rangeFault(n, ok); detail != "" {
		return fault(start, ReasonPayload, detail)
	}
	if f.role == roleSdkAppID {
		in.sdkAppID = raw
	}
	in.noteInteger(f, n)
	return nil
}

func (in *inspector) array(f *field) error {
	if err := in.open(); err != nil {
		return err
	}
	n := int64(0)
	for ; in.more(); n++ {
		at, depth := in.at, in.depth
		if err := in.element(f); err != nil {
			if err := in.resume(at, depth, err); err != nil {
				return err
			}
		}
	}
	if n < f.Min {
		return fault(in.at-1, ReasonPayload, "want at least "+strconv.FormatInt(f.Min, 10)+" elements in the array")
	}
	return nil
}

func (in *inspector) element(f *field) error {
	switch kind := in.next(); {
	case f.Type&Objects != 0 && kind == '{' && f.object != nil:
		return in.object(f.object)
	case f.role != roleNone && f.Type&Strings != 0 && kind == '"':
		in.note(f, content(in.string()))
		return nil
	case f.Type&Array != 0, f.Type&Objects != 0 && kind == '{', f.Type&Strings != 0 && kind == '"':
		return in.skip()
	}
	return wrongType(in.at, f)
}

// unknown reads the value of a field that is not in the schema. If it is an object or
// array that another command defines, the names in it are checked as protocol names.
func (in *inspector) unknown(name []byte) error {
	if o := containers[string(name)]; o != nil {
		return in.contained(o)
	}
	return in.skip()
}

// contained reads an object of the form o, or arrays of such objects.
func (in *inspector) contained(o *object) error {
	switch in.next() {
	case '{':
		return in.object(o)
	case '[':
		if err := in.open(); err != nil {
			return err
		}
		for in.more() {
			if err := in.contained(o); err != nil {
				return err
			}
		}
		return nil
	}
	return in.skip()
}

// skip reads a value without a schema.
func (in *inspector) skip() error {
	for depth := in.depth; ; {
		var err error
		kind := in.next()
		start := in.at
		switch kind {
		case '{', '[':
			err = in.open()
		case '}', ']':
			in.at++
			in.depth--
		case ',', ':':
			in.at++
		case '"':
			if quoted := in.string(); in.next() == ':' {
				err = checkAnyName(start, content(quoted))
			}
		default:
			if raw := in.literal(); startsNumber(kind) {
				err = checkNumber(start, raw)
			}
		}
		if err != nil && !in.collect(err) {
			return err
		}
		if in.depth == depth {
			return nil
		}
	}
}

// checkNumber rejects a number that does not fit in a float64: some parsers read it
// as infinity, others reject the whole payload.
func checkNumber(start int, raw []byte) error {
	if len(raw) <= 300 && !bytes.ContainsAny(raw, "eE") { // fits in a float64
		return nil
	}
	if _, err := strconv.ParseFloat(string(raw), 64); err != nil {
		return fault(start, ReasonJSON, "the number does not fit in a float64")
	}
	return nil
}

// content returns the unescaped content of a quoted string.
func content(quoted []byte) []byte {
	if bytes.IndexByte(quoted, '\\') < 0 {
		return quoted[1 : len(quoted)-1]
	}
	text, _ := jsontext.AppendUnquote(nil, quoted) // quoted is known to be valid
	return text
}

// note records a string for the Event.
func (in *inspector) note(f *field, text []byte) {
	switch f.role {
	case roleNone, roleMsgSeq, roleCommand, roleSdkAppID:
	case roleEventTime: // of a command without a schema
		if n, ok := parseInteger(text); ok && n >= 0 {
			in.noteInteger(f, n)
		}
	case roleIdentity:
		in.identified = in.identified || len(text) > 0
	case roleFrom:
		in.from.add(text)
	case roleTo:
		in.to.add(text)
	default:
		if len(in.envelope[f.role]) == 0 { // there may be several in nested objects
			in.envelope[f.role] = text
		}
	}
}

// noteInteger records a number for the Event. A time of 0 does not identify an event.
// Only a top-level EventTime is the Event's; push events have one in nested objects,
// in seconds.
func (in *inspector) noteInteger(f *field, n int64) {
	switch f.role {
	case roleEventTime:
		in.identified = in.identified || n > 0
		if in.depth == 1 {
			in.eventTime = n
		}
	case roleMsgSeq:
		if n >= 0 && n <= math.MaxUint32 {
			in.msgSeqs = append(in.msgSeqs, uint32(n))
		}
		in.identified = in.identified || !in.recurs
	case roleIdentity:
		in.identified = true
	}
}

// noteUnknown notes a name that the object's documentation lacks.
func (in *inspector) noteUnknown(o *object, name []byte) {
	if o.complete {
		d := in.driftToNote()
		d.Unknown = appendName(d.Unknown, Printable(string(name)))
	}
}

// noteMissing notes fields that Tencent documents as always present.
func (in *inspector) noteMissing(o *object, fields uint64) {
	for ; fields != 0; fields &= fields - 1 {
		d := in.driftToNote()
		d.Missing = appendName(d.Missing, o.fields[bits.TrailingZeros64(fields)].Name)
	}
}

func (in *inspector) driftToNote() *Drift {
	if in.drift == nil {
		in.drift = new(Drift)
	}
	return in.drift
}

func appendName(names []string, name string) []string {
	if len(names) == maxDrift || slices.Contains(names, name) {
		return names
	}
	return append(names, name)
}

// describe sets the Event of a payload that has been read completely. Its strings share
// one piece of memory.
func (in *inspector) describe(e *Event) {
	e.Command, e.Class, e.EventTime, e.MsgSeqs, e.Drift, e.SdkAppID = in.command, in.class, in.eventTime, in.msgSeqs, in.drift, string(in.sdkAppID)
	e.identified = in.identified || !in.recurs && len(in.envelope[roleMsgKey]) > 0
	var buf [128]byte
	text := buf[:0]
	for _, part := range in.envelope[:] {
		text = append(text, part...)
	}
	from := len(text)
	text = in.from.appendTo(text)
	to := len(text)
	text = in.to.appendTo(text)
	pair := len(text)
	if len(in.envelope[roleTopicID])+len(in.envelope[roleGroupID])+len(in.envelope[roleRoomID])+len(in.envelope[roleChannel]) == 0 {
		text = appendPair(text, &in.from, &in.to, in.envelope[roleOperator])
	}
	all := string(text)
	rest := all
	next := func(r role) (part string) {
		n := len(in.envelope[r])
		part, rest = rest[:n], rest[n:]
		return part
	}
	e.GroupID, e.TopicID, e.RoomID = next(roleGroupID), next(roleTopicID), next(roleRoomID)
	official := next(roleChannel)
	e.Operator, e.GroupType, e.MsgKey = next(roleOperator), next(roleGroupType), next(roleMsgKey)
	e.From, e.To = all[from:to], all[to:pair]
	e.Conversation = cmp.Or(e.TopicID, e.GroupID, e.RoomID, official, all[pair:])
}

// rangeFault describes why the field does not accept a number, or returns "" if it
// does. ok is whether the number is an integer n.
func (f *field) rangeFault(n int64, ok bool) string {
	switch {
	case !ok:
		return "want an integer without fraction or exponent, between -2^53 and 2^53, which every parser reads alike"
	case f.role == roleEventTime && n < 0:
		return "out of range: want a time that is not negative"
	case f.Type&Uint32 != 0 && (n < 0 || n > math.MaxUint32):
		return "out of range: want an integer from " + strconv.FormatInt(f.Min, 10) + " to 4294967295"
	case f.Min != 0 && n < f.Min:
		return "out of range: want an integer of at least " + strconv.FormatInt(f.Min, 10)
	}
	return ""
}

// maxInteger is the largest integer that parsers with only float64, such as
// JavaScript's, represent exactly (RFC 7493, section 2.2).
const maxInteger = 1<<53 - 1

// startsNumber reports whether c is the first byte of a number.
func startsNumber(c byte) bool { return c == '-' || '0' <= c && c <= '9' }

// parseInteger parses a JSON number, or the content of a string, as an integer of at
// most maxInteger in magnitude.
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
