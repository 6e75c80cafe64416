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

// maxPath bounds a Rejection's Path, because names in it may be the caller's.
const maxPath = 200

const wantObject = "want one JSON object"

var tooDeep = "nested deeper than " + strconv.Itoa(MaxDepth)

// fault returns a Rejection for what begins at the offset. Its Path is up to
// locate.
func fault(at int, reason Reason, detail string) error {
	return &Rejection{Reason: reason, Detail: detail, Offset: int64(at)}
}

// wrongType returns a Rejection for a value that is none of the field's types.
func wrongType(at int, f *field) error {
	return fault(at, ReasonPayload, "want "+f.Type.String())
}

// asRejection returns the error as what every error of this package is.
func asRejection(err error) *Rejection {
	r, ok := errors.AsType[*Rejection](err)
	if !ok {
		return &Rejection{Reason: ReasonJSON, Detail: "not strict JSON"}
	}
	return r
}

// locate completes an inspector's Rejections, which are in the order of the body,
// with the pointers to their places: that of the value or the name that begins at
// the offset, or of the object or array that ends there. The Path of a field that
// is missing there is its name until then.
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

// syntaxFault returns a Rejection for the first place where the body is not
// strict JSON, or is too deep. It repeats nothing of the payload.
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

// decoderFault turns an error of the decoder into a Rejection.
func decoderFault(body []byte, offset int64, err error) *Rejection {
	r := &Rejection{Reason: ReasonJSON, Offset: offset}
	if se, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		pointer := se.JSONPointer
		if errors.Is(err, io.ErrUnexpectedEOF) || strings.Contains(se.Err.Error(), "after object name") {
			pointer = pointer.Parent() // a name without a colon may be a value that lost its quotes
		}
		r.Path, r.Offset = pathOf(pointer), se.ByteOffset
	}
	r.Detail = explain(body, r.Offset, err)
	return r
}

// explain says what is wrong at the offset.
func explain(body []byte, offset int64, err error) string {
	rest := body[min(offset, int64(len(body))):]
	switch {
	case errors.Is(err, jsontext.ErrDuplicateName):
		return "the name stands twice in the object"
	case len(bytes.TrimSpace(body)) == 0:
		return "the body is empty; want one JSON object"
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return "the JSON ends too early"
	case bytes.HasPrefix(body, []byte("\ufeff")):
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
