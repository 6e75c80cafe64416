// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

// Package answer writes answers, and holds that of a backend until it has been judged.
package answer

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strconv"

	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/timguard/timguard/caddymodule/callback"
	"github.com/timguard/timguard/caddymodule/internal/body"
)

// ErrorVar is the variable of a request by which a handler says why it has answered with an
// error, in words that may be shown to operators.
const ErrorVar = "tim_publish_error"

// Explain returns the error that a handler has left in the request's variable, instead of err,
// if there is one.
func Explain(r *http.Request, err error) error {
	if text, ok := caddyhttp.GetVar(r.Context(), ErrorVar).(string); ok && err != nil {
		return errors.New(text)
	}
	return err
}

// Held is an answer in memory. It implements [http.ResponseWriter] and [http.Flusher].
type Held struct {
	header http.Header
	status int
	body   bytes.Buffer
	buffer *body.Buffer // the initial memory of body
}

// Hold returns an empty answer with the header. The caller must call Free after the
// handlers that write the answer have returned.
func Hold(header http.Header) *Held {
	a := &Held{header: header, buffer: body.TakeBuffer(0, body.FirstRead)}
	a.body = *bytes.NewBuffer(a.buffer.Bytes[:0])
	return a
}

// Free frees the memory of the answer. A handler that writes after it has returned writes
// to other memory.
func (a *Held) Free() {
	a.body = bytes.Buffer{}
	a.buffer.Free()
}

// Header implements [http.ResponseWriter].
func (a *Held) Header() http.Header { return a.header }

// WriteHeader implements [http.ResponseWriter].
func (a *Held) WriteHeader(status int) {
	if a.status == 0 && status >= http.StatusOK { // the first final status
		a.status = status
	}
}

// Write implements [http.ResponseWriter]. It silently truncates an answer that is too long,
// because an error would make reverse_proxy panic.
func (a *Held) Write(p []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	left := callback.MaxAnswer + 1 - a.body.Len() // one more byte shows that it is too long
	a.body.Write(p[:min(left, len(p))])
	return len(p), nil
}

// Flush implements [http.Flusher]. It does nothing.
func (*Held) Flush() {}

// Answer returns the answer as package callback judges it.
func (a *Held) Answer() callback.BackendAnswer {
	return callback.BackendAnswer{
		Status: a.status, ContentType: a.header.Get("Content-Type"), ContentEncoding: a.header.Get("Content-Encoding"), Body: a.body.Bytes(),
	}
}

// Release writes the answer to w.
func (a *Held) Release(w http.ResponseWriter) {
	clear(w.Header())
	maps.Copy(w.Header(), a.header)
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body.Bytes()) // an error means that the caller is gone
}

// Write writes an answer in JSON to w.
func Write(w http.ResponseWriter, status int, answer []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(answer)))
	w.WriteHeader(status)
	_, _ = w.Write(answer) // an error means that the caller is gone
}

// Recover calls serve, and returns a panic of a handler in it, for which the HTTP
// server would close the connection, as an error.
func Recover(logger *zap.Logger, serve func() error) (err error) {
	defer func() {
		switch v := recover(); v {
		case nil:
		case http.ErrAbortHandler:
			err = errors.New("the answer was cut off")
		default: // the value may contain payload
			logger.Error("handler panicked", zap.String("type", fmt.Sprintf("%T", v)), zap.Stack("stack"))
			err = errors.New("a handler panicked")
		}
	}()
	return serve()
}

// Interface guards
var (
	_ http.ResponseWriter = (*Held)(nil)
	_ http.Flusher        = (*Held)(nil)
)
