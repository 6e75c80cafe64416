// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net/http"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/timguard/timguard/caddymodule/callback"
)

// HeldAnswer buffers an answer until it has been checked. It implements
// [http.ResponseWriter] and [http.Flusher].
type HeldAnswer struct {
	header http.Header
	status int
	body   bytes.Buffer
	buffer *buffer // the initial memory of body; may be nil
}

// NewHeldAnswer returns an empty answer with the header.
func NewHeldAnswer(header http.Header) *HeldAnswer { return &HeldAnswer{header: header} }

// holdAnswer returns an answer that can be released to w. The caller must call forget
// after the handlers that write the answer have returned.
func holdAnswer(w http.ResponseWriter) *HeldAnswer {
	a := NewHeldAnswer(w.Header().Clone())
	a.buffer = takeBuffer(0, firstRead)
	a.body = *bytes.NewBuffer(a.buffer.bytes[:0])
	return a
}

// forget frees the answer's buffer. It also resets the body, so that a handler that
// writes after it has returned cannot write to another answer.
func (a *HeldAnswer) forget() {
	a.body = bytes.Buffer{}
	a.buffer.free()
}

// Header implements http.ResponseWriter.
func (a *HeldAnswer) Header() http.Header { return a.header }

// WriteHeader implements http.ResponseWriter.
func (a *HeldAnswer) WriteHeader(status int) {
	if a.status == 0 && status >= http.StatusOK { // the first final status
		a.status = status
	}
}

// Write implements http.ResponseWriter. It silently truncates an answer that is too long,
// because an error would make reverse_proxy panic.
func (a *HeldAnswer) Write(p []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	left := callback.MaxAnswer + 1 - a.body.Len() // one more byte shows that it is too long
	a.body.Write(p[:min(left, len(p))])
	return len(p), nil
}

// Flush implements http.Flusher. It does nothing.
func (*HeldAnswer) Flush() {}

// CheckAccepted returns an error unless the answer accepts a delivered callback.
func (a *HeldAnswer) CheckAccepted() error {
	return callback.CheckAccepted(a.status, a.header.Get("Content-Encoding"), a.body.Bytes())
}

// checkValid returns an error unless Tencent would accept the answer, which must be HTTP
// 200 with a JSON object.
func (a *HeldAnswer) checkValid() error {
	value := jsontext.Value(a.body.Bytes())
	switch {
	case len(value) > callback.MaxAnswer:
		return errors.New("the answer is too long")
	case a.status == 0:
		return errors.New("no handler answered")
	case a.status != http.StatusOK:
		return fmt.Errorf("the answer has the status %d", a.status)
	case value.Kind() != '{' || !value.IsValid(jsontext.AllowDuplicateNames(true)):
		return errors.New("the answer is not a JSON object")
	}
	return nil
}

// release writes the answer to w.
func (a *HeldAnswer) release(w http.ResponseWriter) {
	clear(w.Header())
	maps.Copy(w.Header(), a.header)
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body.Bytes()) // an error means that the caller is gone
}
