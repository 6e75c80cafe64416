// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package outbox

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
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

// LaterError is an error of a backend that asks not to be called again for some time, of
// which up to an hour is respected.
type LaterError struct {
	Err   error
	After time.Duration
}

// Error implements error.
func (e *LaterError) Error() string { return e.Err.Error() }

// Unwrap returns Err.
func (e *LaterError) Unwrap() error { return e.Err }

// queue is the state of the attempts of a queue.
type queue struct {
	outbox *Outbox
	name   Queue
	config QueueConfig
	pace   *pace
	failed atomic.Int64 // consecutive failed attempts

	mu        sync.Mutex
	abandoned int           // attempts that are still running although their timeout is over
	room      chan struct{} // closed when an abandoned attempt ends
}

func newQueue(o *Outbox, name Queue, c QueueConfig) *queue {
	return &queue{outbox: o, name: name, config: c, pace: o.pace(name, c.Rate), room: make(chan struct{})}
}

// pace limits the rate of a queue's attempts. One of them waits at a time, because the
// limiter would not give back all that several have reserved when they are put off.
type pace struct {
	turn    chan struct{}
	limiter *rate.Limiter
}

// pace returns the pace of a queue, which successive Workers share, with a new limit.
func (o *Outbox) pace(name Queue, perSecond float64) *pace {
	limit := rate.Inf
	if perSecond > 0 {
		limit = rate.Limit(perSecond)
	}
	shared, _ := o.paces.LoadOrStore(name, &pace{make(chan struct{}, 1), rate.NewLimiter(limit, 1)})
	p := shared.(*pace)
	p.limiter.SetLimit(limit)
	return p
}

// wait waits until an attempt may begin, or the context ends, upon which it returns false.
func (p *pace) wait(ctx context.Context) bool {
	select {
	case p.turn <- struct{}{}:
	case <-ctx.Done():
		return false
	}
	defer func() { <-p.turn }()
	return p.limiter.Wait(ctx) == nil
}

const (
	// maxHang is how long an attempt waits for a hanging one to end before it is put off.
	maxHang = 5 * time.Second

	// throttleAfter is the number of consecutive failures after which each attempt of
	// the queue is delayed by throttleDelay.
	throttleAfter = 64
	throttleDelay = 250 * time.Millisecond

	// returnGrace is how long a handler may take to return after the timeout before it
	// is abandoned.
	returnGrace = 100 * time.Millisecond
)

// maxDuration returns how long an attempt may take, including the time until it begins.
func (q *queue) maxDuration() time.Duration {
	most := maxHang + throttleDelay + q.config.Timeout + returnGrace
	if q.config.Rate > 0 {
		most += time.Duration(float64(q.config.Workers) / q.config.Rate * float64(time.Second))
	}
	return most
}

// await waits until the attempt may begin. It returns false if the attempt is to be put
// off.
func (q *queue) await(ctx context.Context) bool {
	return q.awaitRoom(ctx) && q.throttle(ctx) && q.pace.wait(ctx)
}

// throttle delays an attempt after many consecutive ones have failed. Each failure is
// several writes, and while one backend is down they would delay the deliveries of the other
// queues and those who store. River fetches no more of the queue while its workers wait; the
// first success ends it.
func (q *queue) throttle(ctx context.Context) bool {
	if q.failed.Load() < throttleAfter {
		return true
	}
	select {
	case <-time.After(throttleDelay):
		return true
	case <-ctx.Done():
		return false
	}
}

// awaitRoom waits while as many attempts hang as the queue has workers.
func (q *queue) awaitRoom(ctx context.Context) bool {
	for end := time.After(maxHang); ; {
		q.mu.Lock()
		full, room := q.abandoned >= q.config.Workers, q.room
		q.mu.Unlock()
		if !full {
			return true
		}
		q.outbox.quiet.Error("as many attempts hang as the queue has workers; it waits until one ends",
			"guard", q.name.Guard, "consumer", q.name.Consumer, "workers", q.config.Workers)
		select {
		case <-room:
		case <-end:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

// attempt delivers the callback. It ends soon after the timeout, or the end of the context,
// at the latest, even if the DeliverFunc goes on, which is abandoned then.
func (q *queue) attempt(all context.Context, a Attempt) error {
	ctx, cancel := context.WithTimeout(all, q.config.Timeout)
	defer cancel()
	result := make(chan error, 1)
	go func() { result <- q.deliver(ctx, a) }()
	start := time.Now()
	err := q.result(ctx, result)
	if err != nil && errors.Is(all.Err(), context.Canceled) {
		return err // by Workers.Stop: it says nothing of the backend
	}
	if q.config.Ended != nil {
		q.config.Ended(a, time.Since(start), err)
	}
	if err != nil {
		q.failed.Add(1)
	} else {
		q.failed.Store(0)
	}
	return err
}

// result returns the result of deliver, or an error if there is none in time.
func (q *queue) result(ctx context.Context, result <-chan error) error {
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-result:
		return err
	case <-time.After(returnGrace):
	}
	q.abandon(+1)
	go func() {
		<-result //nolint:errcheck // another one was returned for it
		q.abandon(-1)
	}()
	return fmt.Errorf("no answer within %s, and the handler goes on", q.config.Timeout)
}

func (q *queue) abandon(n int) {
	q.outbox.abandoned.Add(int64(n))
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.abandoned += n; n < 0 {
		close(q.room)
		q.room = make(chan struct{})
	}
}

// deliver calls the DeliverFunc and converts a panic to an error. River would do so too,
// but it would log and store the value, which may contain payload.
func (q *queue) deliver(ctx context.Context, a Attempt) (err error) {
	defer func() {
		if r := recover(); r != nil {
			q.outbox.log.Error("delivery panicked", "id", a.ID, "type", fmt.Sprintf("%T", r), "stack", string(debug.Stack()))
			err = fmt.Errorf("delivery panicked: %T", r)
		}
	}()
	return q.config.Deliver(ctx, a)
}
