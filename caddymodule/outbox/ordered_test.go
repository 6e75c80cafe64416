// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/timguard/timguard/caddymodule/outbox"
)

// of returns a callback of a conversation.
func of(conversation string, n int) outbox.Callback {
	c := recall(fmt.Sprintf("%s-%d", conversation, n))
	c.Conversation = conversation
	return c
}

// sequence records the attempts of each conversation.
type sequence struct {
	mu       sync.Mutex
	running  map[string]bool
	accepted map[string][]string // event IDs, in order
	overlaps int
}

func newSequence() *sequence {
	return &sequence{running: make(map[string]bool), accepted: make(map[string][]string)}
}

// deliver is a DeliverFunc that fails if fail returns true.
func (s *sequence) deliver(fail func(outbox.Attempt) bool) outbox.DeliverFunc {
	return func(_ context.Context, a outbox.Attempt) error {
		s.mu.Lock()
		if s.running[a.Conversation] {
			s.overlaps++
		}
		s.running[a.Conversation] = true
		s.mu.Unlock()
		time.Sleep(time.Millisecond)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.running[a.Conversation] = false
		if fail(a) {
			return errors.New("not now")
		}
		s.accepted[a.Conversation] = append(s.accepted[a.Conversation], a.EventID)
		return nil
	}
}

func (s *sequence) total() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ids := range s.accepted {
		n += len(ids)
	}
	return n
}

func (s *sequence) want(t *testing.T, conversations, each int) {
	t.Helper()
	if s.overlaps > 0 {
		t.Errorf("%d attempts began while another of their conversation was running", s.overlaps)
	}
	for c := range conversations {
		name := fmt.Sprintf("@TGS#%d", c)
		var want []string
		for n := range each {
			want = append(want, fmt.Sprintf("%s-%d", name, n))
		}
		if got := s.accepted[name]; !slices.Equal(got, want) {
			t.Errorf("conversation %s: accepted %v, want %d in order", name, got, each)
		}
	}
}

func TestConversationsAreDeliveredInOrder(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		c := configFor(t, driver)
		c.ordered = true
		o := mustOpen(t, c)
		s := newSequence()
		var n atomic.Int64
		mustWork(t, o, s.deliver(func(outbox.Attempt) bool { return n.Add(1)%10 == 0 }))
		const conversations, each = 20, 25
		var wg sync.WaitGroup
		for c := range conversations {
			wg.Go(func() {
				for n := range each {
					mustPut(t, o, of(fmt.Sprintf("@TGS#%d", c), n))
				}
			})
		}
		wg.Wait()
		eventually(t, time.Minute, "all are accepted", func() bool { return s.total() == conversations*each })
		s.want(t, conversations, each)
	})
}
