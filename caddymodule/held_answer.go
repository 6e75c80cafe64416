// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net/http"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// maxAnswer bounds what is held of an answer. Tencent's largest replaces a
// message's body, which is at most 12 kB.
const maxAnswer = 1 << 20

// heldAnswer is an answer that is kept until it is known to be good.
type heldAnswer struct {
	header http.Header
	status int
	body   bytes.Buffer
	cut    bool // there was more than is held
}

func (a *heldAnswer) Header() http.Header { return a.header }

func (a *heldAnswer) WriteHeader(status int) {
	if a.status == 0 && status >= http.StatusOK { // the first one that is final
		a.status = status
	}
}

// Write drops what is too much, without an error: a proxy that cannot pass an
// answer on panics.
func (a *heldAnswer) Write(p []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	if room := maxAnswer - a.body.Len(); len(p) > room {
		a.cut = true
		a.body.Write(p[:room])
		return len(p), nil
	}
	return a.body.Write(p)
}

// Flush does nothing: the answer is held. Proxies call it.
func (*heldAnswer) Flush() {}

// invalid says why the answer is none that Tencent would take: HTTP 200 with a
// JSON object.
func (a *heldAnswer) invalid() error {
	value := jsontext.Value(a.body.Bytes())
	switch {
	case a.cut:
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

// refusal says why the answer does not accept a stored callback: a 2xx that some
// handler wrote, and that does not say FAIL, does.
func (a *heldAnswer) refusal() error {
	if a.status == 0 {
		return errors.New("no handler answered")
	}
	if a.status < 200 || a.status > 299 {
		return fmt.Errorf("the answer has the status %d", a.status)
	}
	var said struct{ ActionStatus string }
	lenient := json.JoinOptions(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	if err := json.Unmarshal(a.body.Bytes(), &said, lenient); err == nil && said.ActionStatus == "FAIL" {
		return errors.New("the answer says FAIL")
	}
	return nil
}

// release passes the answer on.
func (a *heldAnswer) release(w http.ResponseWriter) {
	clear(w.Header())
	maps.Copy(w.Header(), a.header)
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body.Bytes()) // a caller that has gone needs no answer
}
