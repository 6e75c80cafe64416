// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package outbox

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"
)

const (
	// fetchInterval is how often an idle queue is polled for callbacks that other processes
	// have stored. Workers do not use LISTEN, because it needs a separate connection, and
	// does not work through PgBouncer or with YugabyteDB's defaults; River's driver for
	// SQLite polls anyway.
	fetchInterval = 100 * time.Millisecond

	// fetchCooldown is the minimum time between two fetches of a queue. A fetch returns
	// as many deliveries as there are idle workers, so that 16 of them deliver up to
	// 3,200 a second. JobGetAvailable waits longer if there is nothing to fetch.
	fetchCooldown = 5 * time.Millisecond
)

// WorkConfig configures Workers.
type WorkConfig struct {
	// Queues are the queues to be worked. Callbacks of other queues are left to other
	// Workers.
	Queues map[Queue]QueueConfig

	// Keep is how long a delivered callback stays listed, which is also how long
	// after its delivery another callback with the same key is a duplicate.
	Keep time.Duration

	// KeepDead is how long a dead or discarded callback stays listed.
	KeepDead time.Duration

	// Dead is called with the error of a callback's last attempt, if that fails. It
	// may be nil.
	Dead func(Attempt, error)
}

// QueueConfig configures the attempts of a queue.
type QueueConfig struct {
	// Deliver delivers a callback.
	Deliver DeliverFunc

	// Ended is called with the outcome of each attempt, which took some time. It may be
	// nil.
	Ended func(a Attempt, took time.Duration, err error)

	// Workers is the maximum number of concurrent attempts.
	Workers int

	// Timeout limits each attempt.
	Timeout time.Duration

	// Rate is the maximum number of attempts per second. 0 is unlimited.
	Rate float64

	// Ordered is whether callbacks of the same conversation are delivered one at a time,
	// in the order in which they were stored.
	Ordered bool
}

// check rejects invalid settings.
func (c QueueConfig) check() error {
	if c.Workers < 1 || c.Workers > river.QueueNumWorkersMax {
		return fmt.Errorf("workers: want a number from 1 to %d, not %d", river.QueueNumWorkersMax, c.Workers)
	}
	return nil
}

// Workers deliver the callbacks of some queues. Each has its own River client, so that
// it can finish its attempts while its successor is already working.
type Workers struct {
	outbox *Outbox
	config WorkConfig
	queues map[Queue]*queue

	retryAt sync.Map // when a job is to be attempted again, by id, if not by the retry policy

	ctx    context.Context // of the attempts
	cancel context.CancelFunc
	done   chan struct{} // closed when all attempts have ended

	stopping context.Context    // ended by stop
	stop     context.CancelFunc // begins no more attempts
}

// Work starts Workers. They begin as soon as the database can be reached.
func (o *Outbox) Work(config WorkConfig) (*Workers, error) {
	w := &Workers{outbox: o, config: config, queues: make(map[Queue]*queue), done: make(chan struct{})}
	for name, c := range config.Queues {
		if err := cmp.Or(name.Check(), c.check()); err != nil {
			return nil, err
		}
		w.queues[name] = newQueue(o, name, c)
	}
	if o.ctx.Err() != nil {
		return nil, ErrClosed
	}
	w.ctx, w.cancel = context.WithCancel(o.ctx)
	w.stopping, w.stop = context.WithCancel(w.ctx)
	o.workers.Go(func() {
		defer close(w.done)
		w.run(w.stopping)
	})
	return w, nil
}

// run works until the context ends. It starts a new River client if one stops with an
// error.
func (w *Workers) run(ctx context.Context) {
	if len(w.queues) == 0 {
		return
	}
	for {
		select {
		case <-w.outbox.ready:
		case <-ctx.Done():
			return
		}
		err := w.work(ctx)
		if ctx.Err() != nil {
			return
		}
		w.outbox.quiet.Error("delivery workers stopped; restarting", "error", err)
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return
		}
	}
}

// work runs a River client until the context ends and all attempts have ended.
func (w *Workers) work(ctx context.Context) error {
	if err := w.prepare(ctx); err != nil {
		return err
	}
	client, err := w.newClient()
	if err != nil {
		return err
	}
	if err := client.Start(w.ctx); err != nil {
		return err
	}
	ordering, cancel := context.WithCancel(ctx)
	defer cancel()
	go w.keepOrder(ordering)
	select {
	case <-client.Stopped():
		return errors.New("the River client has stopped")
	case <-ctx.Done():
	}
	w.awaitStopped(client)
	return nil
}

// storeGrace is how long the outcomes of canceled attempts may take to be stored.
const storeGrace = time.Second

// awaitStopped waits for running attempts, which may go on until Workers.Stop cancels their
// context, and for their outcomes, unless the database hangs.
func (w *Workers) awaitStopped(client client) {
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		_ = client.Stop(context.Background())
	}()
	select {
	case <-stopped:
		return
	case <-w.ctx.Done():
	}
	select {
	case <-stopped:
	case <-time.After(storeGrace):
	}
}

func (w *Workers) newClient() (client, error) {
	queues := make(map[string]river.QueueConfig)
	longest := time.Duration(0)
	for name, q := range w.queues {
		queues[name.river()] = river.QueueConfig{MaxWorkers: q.config.Workers}
		longest = max(longest, q.maxDuration())
	}
	workers := river.NewWorkers()
	river.AddWorker(workers, &worker{workers: w})
	return w.outbox.store.newWorker(&river.Config{
		CancelledJobRetentionPeriod: w.config.KeepDead,
		CompletedJobRetentionPeriod: w.config.Keep,
		DiscardedJobRetentionPeriod: w.config.KeepDead,
		ErrorHandler:                &deaths{w},
		FetchCooldown:               fetchCooldown,
		FetchPollInterval:           fetchCooldown,
		ID:                          newClientID(longest),
		JobTimeout:                  -1, // that of worker.Timeout
		Logger:                      w.outbox.quiet,
		PollOnly:                    true,
		Queues:                      queues,
		RescueStuckJobsAfter:        rescueSlack,
		RetryPolicy:                 backoff{},
		Workers:                     workers,
	}, w)
}

// rescueSlack is the time after the end of an attempt until it is considered lost with its
// process. It leaves time to store the outcome of a finished attempt. River rescues jobs
// every 30s, schedules them every 5s, and elects a new leader within 21s, so a lost attempt
// is repeated within a minute of its timeout.
const rescueSlack = 10 * time.Second

// newClientID returns an ID that says how long the client's attempts may take. Nodes with
// different timeouts may share a database, and any of them may look for lost attempts.
func newClientID(longest time.Duration) string {
	host, _ := os.Hostname()
	host = strings.Map(func(r rune) rune {
		if r > ' ' && r < 0x7f {
			return r
		}
		return -1
	}, host)
	return fmt.Sprintf("%.40s/%d/%d/%d", host, os.Getpid(), time.Now().UnixNano(), (longest + rescueSlack).Milliseconds())
}

// durationOf returns how long the attempts of the client may take, and 0 if the ID is that
// of another version.
func durationOf(clientID string) time.Duration {
	ms, _ := strconv.ParseInt(clientID[strings.LastIndexByte(clientID, '/')+1:], 10, 64)
	return time.Duration(ms) * time.Millisecond
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
	case <-time.After(2 * storeGrace):
	}
	return ctx.Err()
}

// worker implements river.Worker.
type worker struct {
	river.WorkerDefaults[Callback]
	workers *Workers
}

// Timeout implements river.Worker. It returns how long the attempt may take, on whichever
// node it is running, including the time until it begins.
func (*worker) Timeout(job *river.Job[Callback]) time.Duration {
	const ofOtherVersions = time.Hour
	if n := len(job.AttemptedBy); n > 0 {
		return cmp.Or(durationOf(job.AttemptedBy[n-1]), ofOtherVersions)
	}
	return ofOtherVersions
}

// NextRetry implements river.Worker.
func (r *worker) NextRetry(job *river.Job[Callback]) time.Time {
	at, _ := r.workers.retryAt.LoadAndDelete(job.ID)
	t, _ := at.(time.Time) // zero: by the retry policy
	return t
}

// Work implements river.Worker.
func (r *worker) Work(ctx context.Context, job *river.Job[Callback]) error {
	w := r.workers
	q := w.queues[queueOf(job.Queue)]
	start := time.Now()
	if !q.await(w.stopping) {
		return river.JobSnooze(snooze(w.stopping)) // not counted
	}
	if time.Since(start) > longWait && w.outbox.isPaused(ctx, q.name) {
		return river.JobSnooze(0) // until the queue is resumed
	}
	err := q.attempt(ctx, Attempt{Callback: job.Args, ID: job.ID, Attempt: job.Attempt})
	if err != nil && w.ctx.Err() != nil {
		return river.JobSnooze(0) // canceled by Stop: due again, and not counted
	}
	if later, ok := errors.AsType[*LaterError](err); ok {
		w.retryAt.Store(job.ID, time.Now().Add(min(later.After, maxBackoff)))
	}
	if err == nil && w.isOrdered(job.JobRow) {
		w.complete(ctx, job.ID)
	}
	return err
}

// longWait is how long an attempt may wait, for example for its queue's rate, before it
// begins without asking whether the queue was paused meanwhile.
const longWait = time.Second

// snooze returns for how long an attempt that could not begin is put off.
func snooze(ctx context.Context) time.Duration {
	if ctx.Err() != nil {
		return 0
	}
	return time.Second
}

// deaths implements river.ErrorHandler. It is called for every failed attempt, also one
// that could not begin because the row cannot be read.
type deaths struct{ workers *Workers }

// HandleError implements river.ErrorHandler.
func (d *deaths) HandleError(_ context.Context, job *rivertype.JobRow, err error) *river.ErrorHandlerResult {
	if job.Attempt >= job.MaxAttempts && d.workers.config.Dead != nil {
		a := Attempt{ID: job.ID, Attempt: job.Attempt}
		_ = json.Unmarshal(job.EncodedArgs, &a.Callback) // as far as it can be read
		q := queueOf(job.Queue)
		a.Guard, a.Consumer = q.Guard, q.Consumer
		d.workers.config.Dead(a, err)
	}
	return nil
}

// HandlePanic implements river.ErrorHandler. Panics of deliveries do not get here.
func (d *deaths) HandlePanic(ctx context.Context, job *rivertype.JobRow, value any, _ string) *river.ErrorHandlerResult {
	return d.HandleError(ctx, job, fmt.Errorf("panic: %T", value))
}

// Interface guards
var (
	_ river.Worker[Callback]  = (*worker)(nil)
	_ river.ErrorHandler      = (*deaths)(nil)
	_ river.ClientRetryPolicy = backoff{}
)
