// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package outbox

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/riverqueue/river"
)

const (
	// fetchInterval is how often each queue is polled, which is the maximum latency
	// of an idle queue. Workers do not use LISTEN, because it needs a separate
	// connection, and does not work through PgBouncer or with YugabyteDB's defaults;
	// River's driver for SQLite polls anyway.
	fetchInterval = 100 * time.Millisecond

	// fetchCooldown is the minimum time between two fetches of a queue. A fetch returns
	// as many deliveries as there are idle workers, so that 16 of them deliver up to
	// 3,200 a second.
	fetchCooldown = 5 * time.Millisecond
)

// Attempt is an attempt to deliver a stored callback.
type Attempt struct {
	Callback

	// ID is the id of the delivery.
	ID int64

	// Attempt is the number of the attempt, from 1.
	Attempt int
}

// DeliverFunc delivers a callback. It returns nil if the callback was accepted. The
// text of an error is stored for operators, so it must not contain any payload. The
// context ends with the attempt's timeout.
type DeliverFunc func(ctx context.Context, a Attempt) error

// WorkConfig configures Workers.
type WorkConfig struct {
	// Deliver has a function for each queue to be worked. Callbacks of other queues
	// are left to other Workers.
	Deliver map[Queue]DeliverFunc

	// Each is the maximum number of concurrent attempts of each queue.
	Each int

	// Timeout limits each attempt.
	Timeout time.Duration

	// Keep is how long a delivered callback stays listed, which is also how long
	// after its delivery another callback with the same key is a duplicate.
	Keep time.Duration

	// KeepDead is how long a dead or discarded callback stays listed.
	KeepDead time.Duration

	// Dead is called with the error of a callback's last attempt, if that fails. It
	// may be nil.
	Dead func(Attempt, error)
}

// Workers deliver the callbacks of some queues. Each has its own River client, so that
// it can finish its attempts while its successor is already working.
type Workers struct {
	outbox *Outbox
	config WorkConfig
	failed map[Queue]*atomic.Int64 // consecutive failed attempts of each queue

	ctx    context.Context // of the attempts
	cancel context.CancelFunc
	stop   context.CancelFunc // begins no more attempts
	done   chan struct{}      // closed when all attempts have ended
}

// Work starts Workers. They begin as soon as the database can be reached.
func (o *Outbox) Work(config WorkConfig) (*Workers, error) {
	for queue := range config.Deliver {
		if err := queue.Check(); err != nil {
			return nil, err
		}
	}
	if config.Each < 1 || config.Each > river.QueueNumWorkersMax {
		return nil, fmt.Errorf("workers: want a number from 1 to %d, not %d", river.QueueNumWorkersMax, config.Each)
	}
	if o.ctx.Err() != nil {
		return nil, ErrClosed
	}
	w := &Workers{outbox: o, config: config, failed: make(map[Queue]*atomic.Int64), done: make(chan struct{})}
	for queue := range config.Deliver {
		w.failed[queue] = new(atomic.Int64)
	}
	w.ctx, w.cancel = context.WithCancel(o.ctx)
	ctx, stop := context.WithCancel(w.ctx)
	w.stop = stop
	o.workers.Go(func() {
		defer close(w.done)
		w.run(ctx)
	})
	return w, nil
}

// run works until the context ends. It starts a new River client if one stops with an
// error.
func (w *Workers) run(ctx context.Context) {
	if len(w.config.Deliver) == 0 {
		return
	}
	for {
		select {
		case <-w.outbox.migrated:
		case <-ctx.Done():
			return
		}
		err := w.work(ctx)
		if ctx.Err() != nil {
			return
		}
		w.outbox.log.Error("working deliveries; retrying", "error", err)
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return
		}
	}
}

// work runs a River client until the context ends and all attempts have ended.
func (w *Workers) work(ctx context.Context) error {
	client, err := w.newClient()
	if err != nil {
		return err
	}
	if err := client.Start(w.ctx); err != nil {
		return err
	}
	select {
	case <-client.Stopped():
		return errors.New("the River client has stopped")
	case <-ctx.Done():
	}
	// Running attempts may go on until Workers.Stop cancels their context, w.ctx.
	_ = client.Stop(context.Background())
	return nil
}

func (w *Workers) newClient() (client, error) {
	rescueAfter := w.config.Timeout + rescueSlack
	queues := make(map[string]river.QueueConfig)
	for queue := range w.config.Deliver {
		queues[queue.river()] = river.QueueConfig{MaxWorkers: w.config.Each}
	}
	workers := river.NewWorkers()
	river.AddWorker(workers, &worker{workers: w})
	return w.outbox.store.newWorker(&river.Config{
		CancelledJobRetentionPeriod: w.config.KeepDead,
		CompletedJobRetentionPeriod: w.config.Keep,
		DiscardedJobRetentionPeriod: w.config.KeepDead,
		FetchCooldown:               fetchCooldown,
		FetchPollInterval:           fetchInterval,
		JobTimeout:                  w.config.Timeout,
		Logger:                      w.outbox.log,
		PollOnly:                    true,
		Queues:                      queues,
		RescueStuckJobsAfter:        rescueAfter,
		RetryPolicy:                 backoff{rescueAfter},
		Workers:                     workers,
	})
}

// Stop begins no more attempts, and waits for the running ones. When the context ends,
// it cancels them, so that they are due again and do not count, and returns the
// context's error.
func (w *Workers) Stop(ctx context.Context) error {
	defer w.cancel()
	w.stop()
	select {
	case <-w.done:
		return nil
	case <-ctx.Done():
	}
	w.cancel()
	select {
	case <-w.done:
	case <-time.After(time.Second):
	}
	return ctx.Err()
}

// worker implements river.Worker.
type worker struct {
	river.WorkerDefaults[Callback]
	workers *Workers
}

// Work implements river.Worker.
func (r *worker) Work(ctx context.Context, job *river.Job[Callback]) error {
	w := r.workers
	queue := queueOf(job.Queue)
	w.throttle(ctx, queue)
	a := Attempt{Callback: job.Args, ID: job.ID, Attempt: job.Attempt}
	err := w.attempt(ctx, queue, a)
	if err != nil {
		w.failed[queue].Add(1)
	} else {
		w.failed[queue].Store(0)
	}
	if err != nil && w.ctx.Err() != nil {
		return river.JobSnooze(0) // canceled by Stop: due again, and not counted
	}
	if err != nil && job.Attempt >= job.MaxAttempts && w.config.Dead != nil {
		w.config.Dead(a, err)
	}
	return err
}

// attempt calls the queue's DeliverFunc and converts a panic to an error. River would
// do so too, but it would log and store the value, which may contain payload.
func (w *Workers) attempt(ctx context.Context, queue Queue, a Attempt) (err error) {
	defer func() {
		if r := recover(); r != nil {
			w.outbox.log.Error("delivery panicked", "id", a.ID, "type", fmt.Sprintf("%T", r), "stack", string(debug.Stack()))
			err = fmt.Errorf("delivery panicked: %T", r)
		}
	}()
	return w.config.Deliver[queue](ctx, a)
}

// throttle delays an attempt for a quarter of a second after many consecutive ones of
// its queue have failed. Each failure is several writes, and while one backend is down
// they would delay the deliveries of the other queues and those who store. River
// fetches no more of the queue while its workers wait; the first success ends it.
func (w *Workers) throttle(ctx context.Context, queue Queue) {
	const many, delay = 64, 250 * time.Millisecond
	if w.failed[queue].Load() < many {
		return
	}
	select {
	case <-time.After(min(delay, w.config.Timeout/4)): // the timeout of the attempt is running
	case <-ctx.Done():
	}
}
