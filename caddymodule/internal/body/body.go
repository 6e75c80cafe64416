// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

// Package body reads the bodies of requests into pooled memory, and restores them for the
// next handlers.
package body

import (
	"bytes"
	"io"
	"net/http"
	"strconv"
	"time"
)

// Body is the part of a request's body that has been read. The zero value is one of which
// nothing has been read yet.
type Body struct {
	bytes []byte
	whole bool // bytes is the complete body
	err   error
	took  time.Duration // the time to read it

	buffer *Buffer  // the pooled memory of bytes; nil if it is not pooled
	reader inMemory // reads bytes, for the next handlers
}

// Read reads until the end of the body, or until it is longer than limit.
func (b *Body) Read(r *http.Request, limit int64) {
	if r.Body == nil {
		b.whole = true
		return
	}
	start := time.Now()
	b.err = b.readFrom(r, limit)
	b.took = time.Since(start)
	b.whole = b.err == nil && int64(len(b.bytes)) <= limit
}

// Bytes returns what has been read.
func (b *Body) Bytes() []byte { return b.bytes }

// Whole reports whether the complete body has been read.
func (b *Body) Whole() bool { return b.whole }

// Err returns the error of reading, if any.
func (b *Body) Err() error { return b.err }

// Took returns the time that reading took.
func (b *Body) Took() time.Duration { return b.took }

// readFrom reads at most one byte more than limit, or the declared length.
func (b *Body) readFrom(r *http.Request, limit int64) error {
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
func (b *Body) grow(want int64) {
	smaller := b.buffer
	b.buffer = TakeBuffer(len(b.bytes), want)
	b.bytes = append(b.buffer.Bytes[:0], b.bytes...)
	smaller.Free()
}

// Keep copies the body to memory that is not pooled, so that the next handlers can read
// it for any time: a proxy may still be sending it after its backend has answered.
func (b *Body) Keep() {
	b.bytes = bytes.Clone(b.bytes)
	b.buffer.Free()
	b.buffer = nil
}

// Release returns the buffer to its pool, unless the body was kept or restored. What Bytes
// has returned must not be used any longer.
func (b *Body) Release() {
	if b.buffer != nil {
		b.bytes = nil
		b.buffer.Free()
		b.buffer = nil
	}
}

// Touched reports whether reading the body has begun.
func (b *Body) Touched() bool { return b.whole || b.err != nil || b.bytes != nil }

// Restore restores the request's body for the next handlers. If it was read completely,
// Restore also sets the length, removes Expect and sets GetBody. Otherwise, a proxy
// would send it chunked, wait for a second 100 Continue, or be unable to retry over a
// new connection.
func (b *Body) Restore(r *http.Request) {
	if r.Body == nil || !b.Touched() {
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
func (b *Body) again() (io.ReadCloser, error) {
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
