// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"sync"
	"time"

	"github.com/timguard/timguard/caddymodule/outbox"
)

// attempts counts the attempts of a queue on this node.
type attempts struct {
	mu      sync.Mutex
	seconds [60]struct {
		unix int64
		n    int
	}
	failed int             // consecutive ones
	last   *outbox.Failure // of these
}

// attemptsByQueue holds the *attempts of each queue. It lives as long as the process, so that
// counts survive a reload.
var attemptsByQueue sync.Map

func attemptsOf(q outbox.Queue) *attempts {
	a, _ := attemptsByQueue.LoadOrStore(q, new(attempts))
	return a.(*attempts)
}

// note counts an attempt that has ended: the nth of its delivery.
func (a *attempts) note(n int, err error) {
	now := time.Now()
	unix := now.Unix()
	a.mu.Lock()
	defer a.mu.Unlock()
	second := &a.seconds[unix%int64(len(a.seconds))]
	if second.unix != unix {
		second.unix, second.n = unix, 0
	}
	second.n++
	if err == nil {
		a.failed, a.last = 0, nil
		return
	}
	a.failed++
	a.last = &outbox.Failure{At: now.UTC(), Attempt: n, Error: err.Error()}
}

// now returns the number of attempts in the last minute, and how many have failed since one
// did not, with the last one of these.
func (a *attempts) now() (perMinute, failed int, last *outbox.Failure) {
	unix := time.Now().Unix()
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := range a.seconds {
		if second := &a.seconds[i]; unix-second.unix < int64(len(a.seconds)) {
			perMinute += second.n
		}
	}
	return perMinute, a.failed, a.last
}
