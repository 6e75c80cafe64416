// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/timguard/timguard/caddymodule/callback"
)

// watcher gets the calls of guards as they come.
type watcher struct {
	calls <-chan Call // closed when the watcher is closed, or too slow to read from it

	filter CallFilter
	bodies bool
	mu     sync.Mutex
	in     chan Call // of calls; nil if it is closed
}

var (
	watchersMu  sync.Mutex
	watchersNow atomic.Pointer[[]*watcher] // replaced as a whole, so that calls need no lock
)

func init() { watchersNow.Store(new([]*watcher)) }

// watcherLag is how many calls a watcher may be behind.
const watcherLag = 1024

// isWatched reports whether there is any watcher.
func isWatched() bool { return len(*watchersNow.Load()) > 0 }

// watch returns a watcher, which must be closed.
func watch(f CallFilter, bodies bool) *watcher {
	calls := make(chan Call, watcherLag)
	w := &watcher{calls: calls, in: calls, filter: f, bodies: bodies}
	watchersMu.Lock()
	defer watchersMu.Unlock()
	now := append(slices.Clone(*watchersNow.Load()), w)
	watchersNow.Store(&now)
	return w
}

// close ends watching.
func (w *watcher) close() {
	watchersMu.Lock()
	now := slices.DeleteFunc(slices.Clone(*watchersNow.Load()), func(other *watcher) bool { return other == w })
	watchersNow.Store(&now)
	watchersMu.Unlock()

	w.mu.Lock()
	defer w.mu.Unlock()
	if w.in != nil {
		close(w.in)
		w.in = nil
	}
}

// send sends a call to the watcher if it wants it. It never waits: a watcher that is too slow
// is closed.
func (w *watcher) send(guard string, m *remembered) {
	if w.filter.Guard != "" && w.filter.Guard != guard {
		return
	}
	out := m.call(guard)
	if !w.filter.matches(out.Values) {
		return
	}
	if w.bodies && (m.reason == "" || m.verified) {
		out.Query, out.Body = callback.WithoutAuth(m.query), string(m.body)
	}
	w.mu.Lock()
	full := false
	if w.in != nil {
		select {
		case w.in <- out:
		default:
			full = true
		}
	}
	w.mu.Unlock()
	if full {
		w.close()
	}
}
