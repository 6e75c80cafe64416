// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package outbox

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/riverqueue/river"
)

const (
	// fetchInterval is how often each queue is asked for callbacks, and so how
	// long one waits on an idle machine. Workers poll on every store: LISTEN
	// needs a connection of its own and does not work through PgBouncer or on
	// YugabyteDB's defaults, and for SQLite it is a poll too.
	fetchInterval = 100 * time.Millisecond

	// fetchCooldown is the least time between two fetches under load. On
	// SQLite a fetch holds up those who store, so it bounds how much of the
	// disk deliveries take.
	fetchCooldown = 10 * time.Millisecond
)

// Attempt is one attempt at handing a stored callback over.
type Attempt struct {
	Callback

	// ID is the row's number in the store.
	ID int64

	// Attempt counts from 1.
	Attempt int
}

// DeliverFunc hands one callback over. Nil means that it was accepted. The text
// of an error is stored with the row for an operator to read, so it must not hold
// anything of the payload. ctx ends with the attempt's timeout.
type DeliverFunc func(ctx context.Context, a Attempt) error

// WorkConfig says what Workers do.
type WorkConfig struct {
	// Deliver hands over the callbacks of a queue. Those of other queues stay where
	// they are, for a process that has them.
	Deliver map[Queue]DeliverFunc

	// Each is how many attempts each queue makes at a time.
	Each int

	// Timeout bounds one attempt.
	Timeout time.Duration

	// Keep is how long a delivered callback stays listed, and with it how long
	// after its delivery a callback with the same key counts as a duplicate.
	Keep time.Duration

	// KeepDead is how long a dead or discarded callback stays listed.
	KeepDead time.Duration

	// Dead is called after the last attempt that a callback had, with its error. May
	// be nil.
	Dead func(Attempt, error)
}

// Workers deliver the callbacks of some queues. Each set has a River client of its
// own, so that one that is replaced by another finishes what it began and holds up
// nothing of the new one's.
type Workers struct {
	outbox *Outbox
	config WorkConfig

	ctx    context.Context // of the attempts
	cancel context.CancelFunc
	done   chan struct{} // closed when the client has stopped, or will not start
	stop   context.CancelFunc
}

// Work starts delivering. If the database is away, that begins when it is back.
func (o *Outbox) Work(config WorkConfig) (*Workers, error) {
	for queue := range config.Deliver {
		if err := queue.Check(); err != nil {
			return nil, err
		}
	}
	if config.Each < 1 || config.Each > river.QueueNumWorkersMax {
		return nil, fmt.Errorf("workers: %d is not between 1 and %d", config.Each, river.QueueNumWorkersMax)
	}
	if o.ctx.Err() != nil {
		return nil, ErrClosed
	}
	w := &Workers{outbox: o, config: config, done: make(chan struct{})}
	w.ctx, w.cancel = context.WithCancel(o.ctx)
	starting, stop := context.WithCancel(w.ctx)
	w.stop = stop
	o.workers.Go(func() {
		defer close(w.done)
		w.run(starting)
	})
	return w, nil
}

// run works until it is told to stop, and begins anew should River stop by itself.
func (w *Workers) run(starting context.Context) {
	if len(w.config.Deliver) == 0 {
		return
	}
	for {
		select {
		case <-w.outbox.migrated:
		case <-starting.Done():
			return
		}
		err := w.work(starting)
		if starting.Err() != nil {
			return
		}
		w.outbox.log.Error("deliveries held up; trying on", "err", err)
		select {
		case <-time.After(time.Second):
		case <-starting.Done():
			return
		}
	}
}

// work runs one River client until it has stopped.
func (w *Workers) work(starting context.Context) error {
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
	case <-starting.Done():
	}
	// Attempts that run have until their context ends, which Stop of Workers says.
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

// Stop begins no more attempts and waits for those that run. When ctx ends, they
// are cut off and put back without counting, and Stop returns ctx's error.
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

// worker is what River calls.
type worker struct {
	river.WorkerDefaults[Callback]
	workers *Workers
}

// Work implements river.Worker.
func (r *worker) Work(ctx context.Context, job *river.Job[Callback]) error {
	w := r.workers
	w.outbox.giveWay(ctx)
	a := Attempt{Callback: job.Args, ID: job.ID, Attempt: job.Attempt}
	err := w.attempt(ctx, queueOf(job.Queue), a)
	if err != nil && w.ctx.Err() != nil {
		return river.JobSnooze(0) // cut off: due at once, and not counted
	}
	if err != nil && job.Attempt >= job.MaxAttempts && w.config.Dead != nil {
		w.config.Dead(a, err)
	}
	return err
}

// attempt calls the queue's DeliverFunc and makes a panic an error. River would do
// so too, but log and store the value, which may hold something of the payload.
func (w *Workers) attempt(ctx context.Context, queue Queue, a Attempt) (err error) {
	defer func() {
		if r := recover(); r != nil {
			w.outbox.log.Error("delivery panicked", "id", a.ID, "type", fmt.Sprintf("%T", r), "stack", string(debug.Stack()))
			err = fmt.Errorf("delivery panicked: %T", r)
		}
	}()
	return w.config.Deliver[queue](ctx, a)
}

// giveWay holds an attempt back for a tenth of a second, as long as so many
// callbacks come in that each fetch and each completion would make someone wait
// who has an answer to give. River fetches no more until the attempt is over.
func (o *Outbox) giveWay(ctx context.Context) {
	const crowded, step = 8, 10 * time.Millisecond
	if !o.store.OneWriter {
		return
	}
	for waited := time.Duration(0); waited < 10*step && o.crowd.Load() >= crowded; waited += step {
		select {
		case <-time.After(step):
		case <-ctx.Done():
			return
		}
	}
}
