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

// body is the part of a request's body that the guard has read.
type body struct {
	bytes []byte
	whole bool // bytes is the complete body
	err   error
	took  time.Duration // the time to read it

	buffer *buffer  // the pooled memory of bytes; nil if it is not pooled
	reader inMemory // reads bytes, for the next handlers
}

// maxBlank is the maximum length of the body of the console's URL check: two braces
// and some white space.
const maxBlank = 16

// read reads the complete body, which must not be longer than limit.
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

// readUpTo reads until the end of the body, or until it is longer than limit.
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

// readFrom reads at most one byte more than limit, or the declared length.
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

// grow moves the body, of which want bytes are to be read, to a larger buffer.
func (b *body) grow(want int64) {
	smaller := b.buffer
	b.buffer = takeBuffer(len(b.bytes), want)
	b.bytes = append(b.buffer.bytes[:0], b.bytes...)
	smaller.free()
}

// keep copies the body to memory that is not pooled, so that the next handlers can read
// it for any time: a proxy may still be sending it after its backend has answered.
func (b *body) keep() {
	b.bytes = bytes.Clone(b.bytes)
	b.buffer.free()
	b.buffer = nil
}

// release returns the buffer to its pool, unless the body was kept or restored.
func (b *body) release() {
	if b.buffer != nil {
		b.bytes = nil
		b.buffer.free()
		b.buffer = nil
	}
}

// isBlank reports whether the body is empty or {}, apart from white space. If the body
// has not been read yet, it reads only as much as needed.
func (b *body) isBlank(r *http.Request) bool {
	if !b.touched() && r.ContentLength <= maxBlank && isIdentity(r.Header["Content-Encoding"]) {
		_ = b.readUpTo(r, maxBlank) // a body that cannot be read is not blank
	}
	text := bytes.TrimSpace(b.bytes)
	inside, braces := bytes.CutPrefix(text, []byte("{"))
	return b.whole && (len(text) == 0 || braces && string(bytes.TrimSpace(inside)) == "}")
}

// touched reports whether reading the body has begun.
func (b *body) touched() bool { return b.whole || b.err != nil || b.bytes != nil }

// restore restores the request's body for the next handlers. If it was read completely,
// restore also sets the length, removes Expect and sets GetBody. Otherwise, a proxy
// would send it chunked, wait for a second 100 Continue, or be unable to retry over a
// new connection.
func (b *body) restore(r *http.Request) {
	if r.Body == nil || !b.touched() {
		return
	}
	b.buffer = nil // not reusable: handlers may read it for any time
	if !b.whole {
		r.Body = rest{io.MultiReader(bytes.NewReader(b.bytes), &failing{r.Body, b.err}), r.Body}
		return
	}
	b.reader.Reset(b.bytes)
	r.Body = &b.reader
	r.GetBody = b.again
	r.ContentLength = int64(len(b.bytes))
	r.TransferEncoding = nil
	r.Header["Content-Length"] = []string{strconv.Itoa(len(b.bytes))} // HTTP/2 allows several
	delete(r.Header, "Expect")
}

// again implements GetBody of [http.Request].
func (b *body) again() (io.ReadCloser, error) {
	again := new(inMemory)
	again.Reset(b.bytes)
	return again, nil
}

// inMemory is a body in memory.
type inMemory struct{ bytes.Reader }

// Close implements [io.Closer].
func (*inMemory) Close() error { return nil }

// rest is a body that was read partially.
type rest struct {
	io.Reader
	io.Closer
}

// failing is a reader that repeats the error of an earlier read, if any.
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

// unreadable converts an error of reading to a Rejection. The size may have been limited
// by a request_body directive before this handler.
func unreadable(err error) error {
	if limit, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return tooLarge(limit.Limit)
	}
	detail := "the body is incomplete"
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
