// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package body

import "sync"

// Buffer is memory for a body or an answer. It must not be freed while anything may read or
// write it.
type Buffer struct {
	Bytes []byte
	pool  *sync.Pool // nil if the buffer is too large for the pools
}

// The buffer of a body grows as the body is received, so that a client cannot cause much
// more memory to be allocated than it sends: first, it has FirstRead bytes, and then growth
// times the received length. Doubling would copy large bodies more often.
const (
	FirstRead = 4 << 10
	growth    = 16
)

// buffers are the pools of the sizes up to the default max_body.
var buffers [3]sync.Pool

// TakeBuffer returns a buffer that is larger than have. If it is too large for the pools, it
// has at most wanted bytes.
func TakeBuffer(have int, wanted int64) *Buffer {
	size := FirstRead
	for i := range buffers {
		if have < size {
			if pooled, ok := buffers[i].Get().(*Buffer); ok {
				return pooled
			}
			return &Buffer{make([]byte, size), &buffers[i]}
		}
		size *= growth
	}
	return &Buffer{Bytes: make([]byte, min(int64(have)*growth, wanted))}
}

// Free returns the buffer to its pool.
func (b *Buffer) Free() {
	if b != nil && b.pool != nil {
		b.pool.Put(b)
	}
}
