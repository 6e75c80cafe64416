// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package outbox

import (
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/riverqueue/river"
)

// DeliverFunc hands one callback over. Nil means that it was accepted. The text
// of an error is stored with the row for an operator to read, and logged at
// debug level, so it must not hold anything of the payload. ctx ends with the
// attempt's timeout.
type DeliverFunc func(ctx context.Context, d Delivery) error

// Workers deliver the callbacks of a set of guards.
type Workers struct {
	outbox  *Outbox
	deliver map[string]DeliverFunc
	each    int

	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup
}

// Work starts delivering the callbacks of the guards that deliver names, up to
// each at once for every guard. The callbacks of other guards stay where they
// are, for a process that has those guards. If the database is away, delivering
// begins when it is back.
//
// Several Workers may exist for a moment, as when a configuration replaces
// another: where two name the same guard, the newer delivers, and the older
// finishes what it began.
func (o *Outbox) Work(deliver map[string]DeliverFunc, each int) (*Workers, error) {
	for name := range deliver {
		if err := CheckGuard(name); err != nil {
			return nil, err
		}
	}
	if each < 1 || each > river.QueueNumWorkersMax {
		return nil, fmt.Errorf("workers: %d is not between 1 and %d", each, river.QueueNumWorkersMax)
	}
	w := &Workers{outbox: o, deliver: deliver, each: each}
	w.ctx, w.cancel = context.WithCancel(o.ctx)
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ctx.Err() != nil {
		return nil, ErrClosed
	}
	o.workers = append(slices.Clone(o.workers), w)
	o.change()
	return w, nil
}

// Stop begins no more attempts and waits for those that run. When ctx ends, they
// are cut off and put back without counting, and Stop returns ctx's error.
func (w *Workers) Stop(ctx context.Context) error {
	o := w.outbox
	o.mu.Lock()
	o.workers = slices.DeleteFunc(slices.Clone(o.workers), func(other *Workers) bool { return other == w })
	o.change()
	o.mu.Unlock()

	idle := make(chan struct{})
	go func() {
		w.running.Wait()
		close(idle)
	}()
	defer w.cancel()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
	}
	w.cancel()
	select {
	case <-idle:
	case <-time.After(time.Second):
	}
	return ctx.Err()
}

// change tells supervise that the set of guards may have changed.
func (o *Outbox) change() {
	select {
	case o.changed <- struct{}{}:
	default:
	}
}

// wanted returns how many workers each guard should have.
func (o *Outbox) wanted() map[string]int {
	o.mu.Lock()
	defer o.mu.Unlock()
	want := make(map[string]int)
	for _, w := range o.workers {
		for guard := range w.deliver {
			want[guard] = w.each
		}
	}
	return want
}

// begin returns the newest Workers that deliver for guard, with one attempt
// counted as running, or nil.
func (o *Outbox) begin(guard string) *Workers {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, w := range slices.Backward(o.workers) {
		if w.deliver[guard] != nil {
			w.running.Add(1)
			return w
		}
	}
	return nil
}

// worker is what River calls.
type worker struct {
	river.WorkerDefaults[Callback]
	outbox *Outbox
}

// Work implements river.Worker.
func (r *worker) Work(ctx context.Context, job *river.Job[Callback]) error {
	// The queue, and not the argument, is what River fetched it by.
	w := r.outbox.begin(job.Queue)
	if w == nil {
		// Fetched while the last Workers stopped. Another process, or the next
		// configuration, has it in a second.
		return river.JobSnooze(time.Second)
	}
	defer w.running.Done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(w.ctx, cancel)()

	r.outbox.giveWay(ctx)
	err := w.attempt(ctx, job.Queue, Delivery{Callback: job.Args, ID: job.ID, Attempt: job.Attempt})
	if err != nil && w.ctx.Err() != nil {
		return river.JobSnooze(0) // cut off: due at once, and not counted
	}
	return err
}

// attempt calls guard's DeliverFunc and makes a panic an error. River would do
// so too, but log and store the value, which may hold something of the payload.
func (w *Workers) attempt(ctx context.Context, guard string, d Delivery) (err error) {
	defer func() {
		if r := recover(); r != nil {
			w.outbox.log.Error("delivery panicked", "id", d.ID, "type", fmt.Sprintf("%T", r), "stack", string(debug.Stack()))
			err = fmt.Errorf("delivery panicked: %T", r)
		}
	}()
	return w.deliver[guard](ctx, d)
}

// giveWay holds an attempt back for a tenth of a second, as long as so many
// callbacks come in that each fetch and each completion would make someone wait
// who has an answer to give. River fetches no more until the attempt is over.
func (o *Outbox) giveWay(ctx context.Context) {
	const crowded, step = 8, 10 * time.Millisecond
	if !o.store.oneWriter {
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
