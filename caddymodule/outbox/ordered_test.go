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

// of returns the event IDs of a conversation that were accepted.
func (s *sequence) of(conversation string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.accepted[conversation])
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

// A conversation waits for its first callback, but not for one that is dead or discarded.
func TestConversationsGoOnAfterTheirFirstCallback(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]struct {
		attempts int
		fails    func(attempt int) error
		change   func(ctx context.Context, o *opened, id int64) error // after the first attempt; may be nil
		first    outbox.State
	}{
		"dead": {2, func(int) error { return errors.New("never") }, nil, outbox.Dead},
		"discarded": {20, func(int) error { return &outbox.LaterError{Err: errors.New("later"), After: time.Hour} }, func(ctx context.Context, o *opened, id int64) error {
			_, err := o.Discard(ctx, id)
			return err
		}, outbox.Discarded},
		"retried": {20, func(attempt int) error {
			if attempt > 1 {
				return nil
			}
			return &outbox.LaterError{Err: errors.New("later"), After: time.Hour}
		}, func(ctx context.Context, o *opened, id int64) error {
			_, err := o.Retry(ctx, id, func(outbox.Queue) outbox.Options { return outbox.Options{MaxAttempts: 20, Ordered: true} })
			return err
		}, outbox.Delivered},
	} {
		t.Run(name, func(t *testing.T) {
			eachDriver(t, func(t *testing.T, driver string) {
				ctx := t.Context()
				c := configFor(t, driver)
				c.ordered, c.maxAttempts = true, end.attempts
				o := mustOpen(t, c)
				s := newSequence()
				var first atomic.Int64 // its ID
				var attempts atomic.Int64
				mustWork(t, o, func(ctx context.Context, a outbox.Attempt) error {
					if a.EventID == "@TGS#0-0" {
						first.Store(a.ID)
						if err := end.fails(int(attempts.Add(1))); err != nil {
							return err
						}
					}
					return s.deliver(func(outbox.Attempt) bool { return false })(ctx, a)
				})
				for n := range 3 {
					mustPut(t, o, of("@TGS#0", n))
				}
				mustPut(t, o, of("@TGS#1", 0))
				eventually(t, 10*time.Second, "the first attempt has failed", func() bool {
					d, err := o.Get(ctx, first.Load())
					return err == nil && len(d.Failures) > 0
				})
				eventually(t, 10*time.Second, "another conversation goes on", func() bool { return slices.Equal(s.of("@TGS#1"), []string{"@TGS#1-0"}) })
				if end.change != nil {
					if got := s.of("@TGS#0"); len(got) > 0 {
						t.Errorf("%v were not held up", got)
					}
					eventually(t, 10*time.Second, "the change", func() bool { return end.change(ctx, o, first.Load()) == nil })
				}
				eventually(t, 20*time.Second, "the rest is accepted", func() bool { return slices.Contains(s.of("@TGS#0"), "@TGS#0-2") })
				want := []string{"@TGS#0-1", "@TGS#0-2"}
				if end.first == outbox.Delivered {
					want = append([]string{"@TGS#0-0"}, want...)
				}
				if got := s.of("@TGS#0"); !slices.Equal(got, want) {
					t.Errorf("accepted %v, want %v", got, want)
				}
				eventually(t, 10*time.Second, "the outcome of the first is stored", func() bool {
					d, err := o.Get(ctx, first.Load())
					return err == nil && d.State == end.first
				})
			})
		})
	}
}

// Whether a queue is ordered may change while callbacks wait in it.
func TestQueuesBecomeOrderedWithWhatWaitsInThem(t *testing.T) {
	t.Parallel()
	for name, become := range map[string]bool{"ordered": true, "unordered": false} {
		t.Run(name, func(t *testing.T) {
			eachDriver(t, func(t *testing.T, driver string) {
				c := configFor(t, driver)
				c.ordered = !become
				o := mustOpen(t, c)
				const conversations, each = 5, 10
				for n := range each {
					for c := range conversations {
						mustPut(t, o, of(fmt.Sprintf("@TGS#%d", c), n))
					}
				}
				o.config.ordered = become
				s := newSequence()
				mustWork(t, o, s.deliver(func(outbox.Attempt) bool { return false }))
				eventually(t, 20*time.Second, "all are accepted", func() bool { return s.total() == conversations*each })
				if become {
					s.want(t, conversations, each)
				} else if s.overlaps == 0 {
					t.Error("callbacks of a conversation were still delivered one at a time")
				}
			})
		})
	}
}

// A reload can make a queue unordered while the old configuration still stores callbacks,
// which wait for each other.
func TestCallbacksStoredInOrderDoNotWaitInAnUnorderedQueue(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o := mustOpen(t, configFor(t, driver))
		s := newSequence()
		w := mustWork(t, o, s.deliver(func(outbox.Attempt) bool { return false }))
		mustPut(t, o, of("before", 0))
		eventually(t, 10*time.Second, "the workers are ready", func() bool { return s.total() == 1 })
		o.config.ordered = true
		const each = 4
		for n := range each {
			mustPut(t, o, of("@TGS#0", n))
		}
		eventually(t, 20*time.Second, "all are accepted", func() bool { return s.total() == 1+each })
		stop(t, w)
	})
}
