// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

import (
	"bytes"
	"errors"
	"io"
	"math/bits"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// maxPath bounds a Rejection's Path, because names in it may be the caller's.
const maxPath = 200

// fault returns a Rejection for the value, or the name, that was read last.
func (in *inspector) fault(reason Reason, detail string) error {
	return &Rejection{Reason: reason, Path: pathOf(in.dec.StackPointer()), Detail: detail, Offset: in.dec.InputOffset() - int64(in.last)}
}

// wrong returns a Rejection for a value, not yet read, that is none of the
// field's types.
func (in *inspector) wrong(f *field) error {
	want := "want " + f.Type.String()
	before := in.dec.InputOffset()
	if _, err := in.dec.ReadToken(); err != nil { // moves on to the value, for its path
		return in.syntax(err)
	}
	in.last = len(in.since(before))
	return in.fault(ReasonPayload, want)
}

// missing returns a Rejection for the first of the required fields that the
// object at hand lacks.
func (in *inspector) missing(o *object, missing uint64) error {
	name := o.fields[bits.TrailingZeros64(missing)].Name
	_, _ = in.dec.ReadToken() // the closing brace: the pointer is then the object's own
	pointer := in.dec.StackPointer()
	return &Rejection{
		Reason: ReasonPayload, Path: pathOf(pointer.AppendToken(name)),
		Detail: "the field is missing", Offset: in.dec.InputOffset(),
	}
}

// syntax turns an error of the decoder into a Rejection that repeats nothing of
// the payload.
func (in *inspector) syntax(err error) error {
	if err == nil {
		return nil
	}
	r := &Rejection{Reason: ReasonJSON, Detail: "not strict JSON", Offset: in.dec.InputOffset()}
	if se, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		pointer := se.JSONPointer
		if errors.Is(err, io.ErrUnexpectedEOF) || strings.Contains(se.Err.Error(), "after object name") {
			pointer = pointer.Parent() // a name without a colon may be a value that lost its quotes
		}
		r.Path, r.Offset = pathOf(pointer), se.ByteOffset
	}
	r.Detail = in.explain(err, r.Offset)
	return r
}

// explain says what is wrong at the offset.
func (in *inspector) explain(err error, offset int64) string {
	rest := in.body[min(offset, int64(len(in.body))):]
	switch {
	case errors.Is(err, jsontext.ErrDuplicateName):
		return "the name stands twice in the object"
	case len(bytes.TrimSpace(in.body)) == 0:
		return "the body is empty; want one JSON object"
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return "the JSON ends too early"
	case bytes.HasPrefix(in.body, []byte("\ufeff")):
		return "a byte order mark stands before the JSON; send UTF-8 without one"
	case bytes.HasPrefix(rest, []byte("//")), bytes.HasPrefix(rest, []byte("/*")), bytes.HasPrefix(rest, []byte("#")):
		return "a comment is not JSON"
	case errors.Is(err, jsontext.ErrNonStringName):
		return "want a quoted name"
	case bytes.HasPrefix(rest, []byte(",")):
		return "a comma stands where JSON allows none, such as before a closing brace"
	}
	return "not strict JSON (RFC 8259, UTF-8)"
}

// pathOf cuts a pointer whose names are too long to show.
func pathOf(p jsontext.Pointer) string {
	if len(p) > maxPath {
		return strings.ToValidUTF8(string(p[:maxPath]), "") + "…" // no half a letter
	}
	return string(p)
}
