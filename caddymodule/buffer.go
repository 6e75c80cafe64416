// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import "sync"

// buffer is memory for a body or an answer. It must not be freed while anything may read or
// write it.
type buffer struct {
	bytes []byte
	pool  *sync.Pool // nil if the buffer is too large for the pools
}

// The buffer of a body grows as the body is received, so that a client cannot make the
// guard allocate much more memory than it sends: first, it has firstRead bytes, and then
// growth times the received length. Doubling would copy large bodies more often.
const (
	firstRead = 4 << 10
	growth    = 16
)

// buffers are the pools of the sizes up to the default max_body.
var buffers [3]sync.Pool

// takeBuffer returns a buffer that is larger than have. If it is too large for the pools, it
// has at most wanted bytes.
func takeBuffer(have int, wanted int64) *buffer {
	size := firstRead
	for i := range buffers {
		if have < size {
			if pooled, ok := buffers[i].Get().(*buffer); ok {
				return pooled
			}
			return &buffer{make([]byte, size), &buffers[i]}
		}
		size *= growth
	}
	return &buffer{bytes: make([]byte, min(int64(have)*growth, wanted))}
}

// free returns the buffer to its pool.
func (b *buffer) free() {
	if b != nil && b.pool != nil {
		b.pool.Put(b)
	}
}
