// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package outbox_test

import (
	"context"
	"testing"
	"time"

	"github.com/timguard/timguard/caddymodule/outbox"
)

// More than are retried in one transaction.
func TestManyAreRetriedInTheOrderOfTheirConversation(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		c := configFor(t, driver)
		c.ordered = true
		o := mustOpen(t, c)
		s := newSequence()
		mustWork(t, o, s.deliver(func(outbox.Attempt) bool { return false }))
		const each = 130
		for n := range each {
			mustPut(t, o, of("@TGS#0", n))
		}
		eventually(t, time.Minute, "all are delivered", func() bool { return count(t, o, outbox.Delivered) == each })
		s.mu.Lock()
		clear(s.accepted)
		s.mu.Unlock()
		ordered := func(outbox.Queue) outbox.Options { return outbox.Options{MaxAttempts: 20, Ordered: true} }
		if n, err := o.RetryAll(context.Background(), outbox.Filter{State: outbox.Delivered}, ordered); n != each || err != nil {
			t.Fatalf("%d retried, error %v", n, err)
		}
		eventually(t, time.Minute, "all are delivered again", func() bool { return s.total() == each })
		s.want(t, 1, each)
	})
}
