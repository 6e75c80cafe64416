// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package outbox

import (
	"context"
	"time"

	"github.com/riverqueue/river"
)

const (
	// fetchInterval is how often each guard's queue is asked for callbacks,
	// and so how long one waits on an idle machine. Workers poll on every
	// store: LISTEN needs a connection of its own and does not work through
	// PgBouncer or on YugabyteDB's defaults, and for SQLite it is a poll too.
	fetchInterval = 100 * time.Millisecond

	// fetchCooldown is the least time between two fetches under load. On
	// SQLite a fetch holds up those who store, so it bounds how much of the
	// disk deliveries take.
	fetchCooldown = 10 * time.Millisecond
)

// supervise keeps the queues that River works in step with the Workers there
// are. There is one River client for all of them, so that a reload does not cost
// an election, nor any query if it names the same guards.
func (o *Outbox) supervise() {
	s := supervisor{outbox: o, queues: make(map[string]int)}
	defer s.stop()
	for {
		var again <-chan time.Time
		if err := s.step(); err != nil && o.ctx.Err() == nil {
			o.log.Error("deliveries held up; trying on", "err", err)
			again = time.After(time.Second)
		}
		select {
		case <-o.ctx.Done():
			return
		case <-o.changed:
		case <-again:
		case <-s.stopped:
			s.client, s.stopped = nil, nil
			clear(s.queues)
		}
	}
}

type supervisor struct {
	outbox *Outbox
	client client

	// stopped is closed should River stop by itself.
	stopped <-chan struct{}

	// queues are those that the client works and with how many workers. Zero
	// marks one that is on its way out.
	queues map[string]int
}

// step does what is missing between the queues there are and those wanted.
func (s *supervisor) step() error {
	if err := s.outbox.migrate(s.outbox.ctx); err != nil {
		return err
	}
	want := s.outbox.wanted()
	if s.client == nil {
		if len(want) == 0 {
			return nil
		}
		return s.start(want)
	}
	for queue, n := range s.queues {
		if want[queue] != n {
			if err := s.remove(queue); err != nil {
				return err
			}
		}
	}
	for queue, n := range want {
		if s.queues[queue] == 0 {
			if err := s.add(queue, n); err != nil {
				return err
			}
		}
	}
	return nil
}

// start makes River's client with the queues in want.
func (s *supervisor) start(want map[string]int) error {
	o := s.outbox
	rescueAfter := o.config.Timeout + rescueSlack
	workers := river.NewWorkers()
	river.AddWorker(workers, &worker{outbox: o})
	queues := make(map[string]river.QueueConfig)
	for queue, n := range want {
		queues[queue] = river.QueueConfig{MaxWorkers: n}
	}
	client, err := o.store.newWorker(&river.Config{
		CancelledJobRetentionPeriod: o.config.KeepDead,
		CompletedJobRetentionPeriod: o.config.Keep,
		DiscardedJobRetentionPeriod: o.config.KeepDead,
		FetchCooldown:               fetchCooldown,
		FetchPollInterval:           fetchInterval,
		JobTimeout:                  o.config.Timeout,
		Logger:                      o.log,
		PollOnly:                    true,
		Queues:                      queues,
		RescueStuckJobsAfter:        rescueAfter,
		RetryPolicy:                 backoff{rescueAfter},
		Workers:                     workers,
	})
	if err != nil {
		return err
	}
	if err := client.Start(o.ctx); err != nil {
		return err
	}
	s.client, s.stopped, s.queues = client, client.Stopped(), want
	return nil
}

// remove takes queue from the client. It waits only briefly for the attempts in
// it, because adding and stopping wait for it in turn.
func (s *supervisor) remove(queue string) error {
	s.queues[queue] = 0
	ctx, cancel := context.WithTimeout(s.outbox.ctx, 100*time.Millisecond)
	defer cancel()
	if err := s.client.Queues().Remove(ctx, queue); err != nil {
		s.outbox.change()
		return nil // it is tried again at once
	}
	delete(s.queues, queue)
	return nil
}

func (s *supervisor) add(queue string, n int) error {
	if err := s.client.Queues().Add(queue, river.QueueConfig{MaxWorkers: n}); err != nil {
		// River keeps a queue that it could not start.
		_ = s.client.Queues().Remove(s.outbox.ctx, queue)
		return err
	}
	s.queues[queue] = n
	return nil
}

// stop ends the client once the outcome of the attempts is written.
func (s *supervisor) stop() {
	if s.client == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Second)
	defer cancel()
	if err := s.client.StopAndCancel(ctx); err != nil {
		s.outbox.log.Warn("deliveries did not stop in time", "err", err)
	}
}
