// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package publish_test

import (
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/timguard/timguard/caddymodule/callback"
	"github.com/timguard/timguard/caddymodule/internal/guardtest"
)

// senders post recalls at a rate, and note which were answered OK.
type senders struct {
	stop atomic.Bool
	wait sync.WaitGroup

	mu         sync.Mutex
	acked      []string // ids
	other      []string // answers that are not OK, and errors
	unanswered int      // connections that ended without an answer
	took       []time.Duration
}

// startSenders starts senders that together post at the rate.
func startSenders(p *guardtest.Poster, n, rate int, prefix string) *senders {
	l := new(senders)
	begin, interval := time.Now(), time.Second*time.Duration(n)/time.Duration(rate)
	for sender := range n {
		l.wait.Go(func() {
			for i := 0; !l.stop.Load(); i++ {
				// A sender that was held up catches up, as callbacks that wait would come.
				time.Sleep(time.Until(begin.Add(time.Duration(i)*interval + interval*time.Duration(sender)/time.Duration(n))))
				l.send(p, fmt.Sprintf("%s-%d-%d", prefix, sender, i))
			}
		})
	}
	return l
}

func (l *senders) send(p *guardtest.Poster, id string) {
	start := time.Now()
	status, answer, err := p.Post("/callback", callback.RecallCommand, guardtest.Event(id))
	for tries := 0; err != nil && tries < 5; tries++ { // Caddy may close connections when it reloads
		time.Sleep(5 * time.Millisecond)
		l.mu.Lock()
		l.unanswered++
		l.mu.Unlock()
		status, answer, err = p.Post("/callback", callback.RecallCommand, guardtest.Event(id))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil || status != http.StatusOK || answer != guardtest.OKJSON {
		l.other = append(l.other, fmt.Sprint(status, " ", answer, " ", err))
		return
	}
	l.acked = append(l.acked, id)
	l.took = append(l.took, time.Since(start))
}

func (l *senders) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.acked)
}

func (l *senders) finish() {
	l.stop.Store(true)
	l.wait.Wait()
}

// percentiles returns the median, the 99th percentile and the largest of the times to the
// answers.
func (l *senders) percentiles() (median, most, all time.Duration) {
	slices.Sort(l.took)
	at := func(percent int) time.Duration {
		return l.took[(len(l.took)-1)*percent/100].Round(100 * time.Microsecond)
	}
	return at(50), at(99), at(100)
}

// wantNoneLost fails unless all recalls are among the messages, and returns how many are
// there more than once.
func wantNoneLost(t *testing.T, messages []published, ids []string) (twice int) {
	t.Helper()
	times := make(map[string]int)
	for _, m := range messages {
		times[m.body]++
		if times[m.body] == 2 {
			twice++
		}
	}
	lost := 0
	for _, id := range ids {
		if times[string(guardtest.Event(id))] == 0 {
			lost++
		}
	}
	if lost > 0 || len(ids) == 0 {
		t.Errorf("%d of %d that were answered OK are lost", lost, len(ids))
	}
	return twice
}
