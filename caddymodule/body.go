// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/timguard/timguard/caddymodule/callback"
)

// body is what the guard has read of a request's body.
type body struct {
	bytes []byte
	whole bool // bytes is all there is
	err   error
	took  time.Duration // to arrive

	room   *room    // that bytes is in; nil if it is in memory of its own
	reader inMemory // of bytes, for the handlers that follow
}

// longestBlank is the longest body that the console's URL check can have: two
// braces and some white space.
const longestBlank = 16

// read reads the whole body, of at most limit bytes.
func (b *body) read(r *http.Request, limit int64) error {
	if !isIdentity(r.Header["Content-Encoding"]) {
		return &callback.Rejection{Reason: callback.ReasonEncoding, Detail: "want a body without Content-Encoding"}
	}
	if r.ContentLength > limit {
		return tooLarge(limit)
	}
	if err := b.readUpTo(r, limit); err != nil {
		return err
	}
	if !b.whole {
		return tooLarge(limit)
	}
	return nil
}

// readUpTo reads until the body ends or is longer than limit.
func (b *body) readUpTo(r *http.Request, limit int64) error {
	if r.Body == nil {
		b.whole = true
		return nil
	}
	start := time.Now()
	b.err = b.readFrom(r, limit)
	b.took = time.Since(start)
	b.whole = b.err == nil && int64(len(b.bytes)) <= limit
	if b.err != nil {
		return unreadable(b.err)
	}
	return nil
}

// readFrom reads what was declared, or until the end or one byte over limit.
func (b *body) readFrom(r *http.Request, limit int64) error {
	want := limit + 1
	if r.ContentLength >= 0 {
		want = min(want, r.ContentLength)
	}
	for int64(len(b.bytes)) < want {
		have := len(b.bytes)
		if have == cap(b.bytes) {
			b.grow(want)
		}
		n, err := r.Body.Read(b.bytes[have:min(int64(cap(b.bytes)), want)])
		b.bytes = b.bytes[:have+n]
		if err != nil && (err != io.EOF || r.ContentLength > int64(len(b.bytes))) {
			return err
		}
		if err == io.EOF {
			return nil
		}
	}
	return nil
}

// grow moves what has come of the wanted bytes to a larger room.
func (b *body) grow(want int64) {
	smaller := b.room
	b.room = takeRoom(len(b.bytes), want)
	b.bytes = append(b.room.bytes[:0], b.bytes...)
	smaller.free()
}

// keep moves the body to memory of its own, which those who get it may read for as
// long as they want: a proxy may still send it when its backend has answered.
func (b *body) keep() {
	b.bytes = bytes.Clone(b.bytes)
	b.room.free()
	b.room = nil
}

// release ends the use of the body's room, if it was not kept or restored.
func (b *body) release() {
	if b.room != nil {
		b.bytes = nil
		b.room.free()
		b.room = nil
	}
}

// isBlank reports whether the body is empty or {}, white space aside. Of a body that
// was not read yet it reads no more than it takes to know.
func (b *body) isBlank(r *http.Request) bool {
	if !b.touched() && r.ContentLength <= longestBlank && isIdentity(r.Header["Content-Encoding"]) {
		_ = b.readUpTo(r, longestBlank) // a body that cannot be read is not blank
	}
	text := bytes.TrimSpace(b.bytes)
	inside, braces := bytes.CutPrefix(text, []byte("{"))
	return b.whole && (len(text) == 0 || braces && string(bytes.TrimSpace(inside)) == "}")
}

// touched reports whether any of the body was asked for.
func (b *body) touched() bool { return b.whole || b.err != nil || b.bytes != nil }

// restore gives the request a body like the one that was read, for handlers that
// get the request. Of one that is in memory it also sets the length: otherwise the
// proxy behind would send it chunked, wait for a 100 Continue that already came, or
// could not send it again over a fresh connection.
func (b *body) restore(r *http.Request) {
	if r.Body == nil || !b.touched() {
		return
	}
	b.room = nil // nobody knows how long the handlers read in it
	if !b.whole {
		r.Body = rest{io.MultiReader(bytes.NewReader(b.bytes), &failing{r.Body, b.err}), r.Body}
		return
	}
	b.reader.Reset(b.bytes)
	r.Body = &b.reader
	r.GetBody = b.again
	r.ContentLength = int64(len(b.bytes))
	r.TransferEncoding = nil
	r.Header["Content-Length"] = []string{strconv.Itoa(len(b.bytes))} // HTTP/2 may bring several
	delete(r.Header, "Expect")
}

// again is a [http.Request.GetBody].
func (b *body) again() (io.ReadCloser, error) {
	again := new(inMemory)
	again.Reset(b.bytes)
	return again, nil
}

// inMemory is a body that needs no closing.
type inMemory struct{ bytes.Reader }

// Close does nothing.
func (*inMemory) Close() error { return nil }

// rest is a body of which a part was read.
type rest struct {
	io.Reader
	io.Closer
}

// failing repeats the error that ended an earlier read.
type failing struct {
	io.Reader
	err error
}

func (f *failing) Read(p []byte) (int, error) {
	if f.err != nil {
		return 0, f.err
	}
	return f.Reader.Read(p)
}

func tooLarge(limit int64) error {
	return &callback.Rejection{
		Reason: callback.ReasonTooLarge, Detail: "want a body of at most " + strconv.FormatInt(limit, 10) + " bytes",
	}
}

// unreadable explains an error of reading. The size may also have been limited
// by a request_body directive before this one.
func unreadable(err error) error {
	if limit, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return tooLarge(limit.Limit)
	}
	detail := "the body ended before it was whole"
	if isTimeout(err) {
		detail = "the body did not arrive in time"
	}
	return &callback.Rejection{Reason: callback.ReasonBody, Detail: detail}
}

func isTimeout(err error) bool {
	timeout, ok := errors.AsType[net.Error](err)
	return ok && timeout.Timeout()
}

func isIdentity(encodings []string) bool {
	return !slices.ContainsFunc(encodings, func(e string) bool { return e != "" && !strings.EqualFold(e, "identity") })
}
