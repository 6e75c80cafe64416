// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

import (
	"bytes"
	"errors"
	"io"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// maxPath limits the length of a Rejection's Path, whose names the caller controls.
const maxPath = 200

const wantObject = "want one JSON object"

var tooDeep = "nested deeper than " + strconv.Itoa(MaxDepth)

// fault returns a Rejection for the value or name at the offset. Its Path is set by
// locate.
func fault(at int, reason Reason, detail string) error {
	return &Rejection{Reason: reason, Detail: detail, Offset: int64(at)}
}

// wrongType returns a Rejection for a value of a type that the field does not allow.
func wrongType(at int, f *field) error {
	return fault(at, ReasonPayload, "want "+f.Type.String())
}

// asRejection converts the error to a Rejection.
func asRejection(err error) *Rejection {
	r, ok := errors.AsType[*Rejection](err)
	if !ok {
		return &Rejection{Reason: ReasonJSON, Detail: "not strict JSON"}
	}
	return r
}

// locate sets the Paths of Rejections, which must be in the order of the body: the
// pointer to the value or name that begins at the offset, or to the object or array
// that ends there. The Path of a missing field must be its name, which is appended to
// that pointer.
func locate(body []byte, faults []*Rejection) {
	dec := jsontext.NewDecoder(bytes.NewBuffer(body), jsontext.AllowDuplicateNames(true))
	for _, r := range faults {
		for dec.InputOffset() <= r.Offset {
			if _, err := dec.ReadToken(); err != nil {
				break
			}
		}
		pointer := dec.StackPointer()
		if r.Path != "" {
			pointer = pointer.AppendToken(r.Path)
		}
		r.Path = pathOf(pointer)
	}
}

// syntaxFault returns a Rejection for the first position where the body is not
// strict JSON or is nested too deep. It does not quote the payload.
func syntaxFault(body []byte) *Rejection {
	dec := jsontext.NewDecoder(bytes.NewBuffer(body))
	for {
		_, err := dec.ReadToken()
		switch end := dec.InputOffset(); {
		case err != nil:
			return decoderFault(body, end, err)
		case dec.StackDepth() > MaxDepth:
			return &Rejection{Reason: ReasonJSON, Path: pathOf(dec.StackPointer()), Detail: tooDeep, Offset: end - 1}
		case dec.StackDepth() == 0 && len(bytes.TrimLeft(body[end:], " \t\r\n")) > 0:
			if body[end-1] != '}' {
				return &Rejection{Reason: ReasonJSON, Detail: wantObject}
			}
			return &Rejection{Reason: ReasonJSON, Detail: "want nothing after the JSON object", Offset: end}
		}
	}
}

// decoderFault converts an error of the decoder to a Rejection.
func decoderFault(body []byte, offset int64, err error) *Rejection {
	r := &Rejection{Reason: ReasonJSON, Offset: offset}
	if se, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		pointer := se.JSONPointer
		if errors.Is(err, io.ErrUnexpectedEOF) || strings.Contains(se.Err.Error(), "after object name") {
			pointer = pointer.Parent() // the name may be a value with misplaced quotes
		}
		r.Path, r.Offset = pathOf(pointer), se.ByteOffset
	}
	r.Detail = explain(body, r.Offset, err)
	return r
}

// explain describes the syntax error at the offset.
func explain(body []byte, offset int64, err error) string {
	rest := body[min(offset, int64(len(body))):]
	switch {
	case errors.Is(err, jsontext.ErrDuplicateName):
		return "duplicate name in the object"
	case len(bytes.TrimSpace(body)) == 0:
		return "the body is empty; want one JSON object"
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return "the JSON is cut off"
	case bytes.HasPrefix(body, []byte("\ufeff")):
		return "the JSON begins with a byte order mark; send UTF-8 without one"
	case bytes.HasPrefix(rest, []byte("//")), bytes.HasPrefix(rest, []byte("/*")), bytes.HasPrefix(rest, []byte("#")):
		return "a comment is not JSON"
	case errors.Is(err, jsontext.ErrNonStringName):
		return "want a quoted name"
	case bytes.HasPrefix(rest, []byte(",")):
		return "misplaced comma, such as before a closing brace"
	}
	return "not strict JSON (RFC 8259, UTF-8)"
}

// pathOf returns the pointer as a Path, truncated to maxPath.
func pathOf(p jsontext.Pointer) string {
	if len(p) > maxPath {
		return strings.ToValidUTF8(string(p[:maxPath]), "") + "…" // drops a character that was cut in half
	}
	return string(p)
}
