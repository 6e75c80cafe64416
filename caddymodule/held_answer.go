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

// HeldAnswer is an answer that is kept until it is known to be good. It is an
// [http.ResponseWriter] and an [http.Flusher].
type HeldAnswer struct {
	header http.Header
	status int
	body   bytes.Buffer
	room   *room // that body begins in; may be nil
}

// NewHeldAnswer returns an answer that has the headers already.
func NewHeldAnswer(header http.Header) *HeldAnswer { return &HeldAnswer{header: header} }

// holdAnswer returns one that is to be passed on to w. It must be forgotten, after
// the handlers that write it have returned.
func holdAnswer(w http.ResponseWriter) *HeldAnswer {
	a := NewHeldAnswer(w.Header().Clone())
	a.room = takeRoom(0, firstRead)
	a.body = *bytes.NewBuffer(a.room.bytes[:0])
	return a
}

// forget ends the use of the answer's room. A handler that goes on writing after it
// has returned does so in no other's answer.
func (a *HeldAnswer) forget() {
	a.body = bytes.Buffer{}
	a.room.free()
}

// Header implements http.ResponseWriter.
func (a *HeldAnswer) Header() http.Header { return a.header }

// WriteHeader implements http.ResponseWriter.
func (a *HeldAnswer) WriteHeader(status int) {
	if a.status == 0 && status >= http.StatusOK { // the first one that is final
		a.status = status
	}
}

// Write implements http.ResponseWriter. It drops what is too much, without an
// error: a proxy that cannot pass an answer on panics.
func (a *HeldAnswer) Write(p []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	room := callback.MaxAnswer + 1 - a.body.Len() // one more, so that it shows
	a.body.Write(p[:min(room, len(p))])
	return len(p), nil
}

// Flush implements http.Flusher. It does nothing: the answer is held.
func (*HeldAnswer) Flush() {}

// CheckAccepted returns an error unless the answer accepts a delivered callback.
func (a *HeldAnswer) CheckAccepted() error {
	return callback.CheckAccepted(a.status, a.header.Get("Content-Encoding"), a.body.Bytes())
}

// checkValid returns an error unless Tencent would take the answer: HTTP 200 with a
// JSON object.
func (a *HeldAnswer) checkValid() error {
	value := jsontext.Value(a.body.Bytes())
	switch {
	case len(value) > callback.MaxAnswer:
		return errors.New("the answer is too long for one in Tencent's form")
	case a.status == 0:
		return errors.New("no handler answered")
	case a.status != http.StatusOK:
		return fmt.Errorf("the answer has the status %d", a.status)
	case value.Kind() != '{' || !value.IsValid(jsontext.AllowDuplicateNames(true)):
		return errors.New("the answer is not a JSON object")
	}
	return nil
}

// release passes the answer on.
func (a *HeldAnswer) release(w http.ResponseWriter) {
	clear(w.Header())
	maps.Copy(w.Header(), a.header)
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body.Bytes()) // a caller that has gone needs no answer
}
