// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import "sync"

// room is memory for one body or answer. Of the sizes in which bodies grow it comes
// from a pool, and returns to it once nothing can read or write it any more.
type room struct {
	bytes []byte
	pool  *sync.Pool // nil if it is larger than what is pooled
}

// Room for a body is made as it comes, so that a client cannot reserve much more
// memory than it sends: at first for firstRead bytes, then for growth times what
// has come. Doubling would copy the large ones more often.
const (
	firstRead = 4 << 10
	growth    = 16
)

// rooms are the pools of the sizes up to the default max_body.
var rooms [3]sync.Pool

// takeRoom returns room for more than so many bytes. Beyond what is pooled it is
// never more than is wanted.
func takeRoom(have int, wanted int64) *room {
	size := firstRead
	for i := range rooms {
		if have < size {
			if pooled, ok := rooms[i].Get().(*room); ok {
				return pooled
			}
			return &room{make([]byte, size), &rooms[i]}
		}
		size *= growth
	}
	return &room{bytes: make([]byte, min(int64(have)*growth, wanted))}
}

// free gives the room to the next body or answer.
func (r *room) free() {
	if r != nil && r.pool != nil {
		r.pool.Put(r)
	}
}
