// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package outbox

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/riverqueue/river/riverdriver"
	"github.com/riverqueue/river/rivertype"
)

// State says where a stored callback stands.
type State string

// The states.
const (
	// Pending waits for its first attempt.
	Pending State = "pending"
	// Running is being attempted.
	Running State = "running"
	// Retrying failed, and waits for another attempt.
	Retrying State = "retrying"
	// Delivered was accepted.
	Delivered State = "delivered"
	// Dead ran out of attempts.
	Dead State = "dead"
	// Discarded was given up by a person.
	Discarded State = "discarded"
)

// States returns all states, in the order of a callback's life.
func States() []State { return []State{Pending, Running, Retrying, Delivered, Dead, Discarded} }

// awaiting are River's states of jobs awaiting an attempt: the first one, or
// another.
var awaiting = []rivertype.JobState{
	rivertype.JobStateAvailable, rivertype.JobStatePending, rivertype.JobStateRetryable, rivertype.JobStateScheduled,
}

// riverStates are River's words for each state. Pending and Retrying are told
// apart by the attempts that were made.
var riverStates = map[State][]rivertype.JobState{
	Pending:   awaiting,
	Retrying:  awaiting,
	Running:   {rivertype.JobStateRunning},
	Delivered: {rivertype.JobStateCompleted},
	Dead:      {rivertype.JobStateDiscarded},
	Discarded: {rivertype.JobStateCancelled},
}

func stateOf(s rivertype.JobState, attempts int) State {
	for _, state := range []State{Running, Delivered, Dead, Discarded} {
		if slices.Contains(riverStates[state], s) {
			return state
		}
	}
	if attempts > 0 {
		return Retrying
	}
	return Pending
}

var (
	// ErrNotFound is returned for an id that the store does not hold, or no longer.
	ErrNotFound = errors.New("no such delivery")

	// ErrState is returned, wrapped, for what cannot be done with a callback in
	// the state it is in.
	ErrState = errors.New("not in this state")
)

// Failure is a failed attempt.
type Failure struct {
	At      time.Time `json:"at"`
	Attempt int       `json:"attempt"`
	Error   string    `json:"error"`
}

// Delivery is a stored callback with what became of it.
type Delivery struct {
	ID          int64     `json:"id"`
	State       State     `json:"state"`
	Attempt     int       `json:"attempt"`
	MaxAttempts int       `json:"max_attempts"`
	Stored      time.Time `json:"stored"`

	// Due is when the next attempt is due, for a state that waits for one.
	Due time.Time `json:"due,omitzero"`

	// Ended is when it was delivered, dead or discarded.
	Ended time.Time `json:"ended,omitzero"`

	// Failures are the failed attempts, oldest first.
	Failures []Failure `json:"failures,omitempty"`

	Callback Callback `json:"callback"`
}

// Get returns the callback with the given id, or ErrNotFound.
func (o *Outbox) Get(ctx context.Context, id int64) (Delivery, error) {
	if err := o.usable(); err != nil {
		return Delivery{}, err
	}
	return delivery(o.store.read.JobGetByID(ctx, &riverdriver.JobGetByIDParams{ID: id}))
}

// Retry makes the callback with the given id due at once, with maxAttempts
// attempts before it, whatever became of it before. It returns ErrNotFound, or
// ErrState if an attempt is running, or if it ended undelivered and the same event
// has been stored anew since.
func (o *Outbox) Retry(ctx context.Context, id int64, maxAttempts int) (d Delivery, err error) {
	err = o.change(ctx, func(tx riverdriver.ExecutorTx) error {
		d, err = retry(ctx, tx, id, maxAttempts)
		return err
	})
	return d, o.explain(err)
}

// change makes a change in a transaction.
func (o *Outbox) change(ctx context.Context, do func(riverdriver.ExecutorTx) error) error {
	if err := o.usable(); err != nil {
		return err
	}
	tx, err := o.store.write.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	if err := do(tx); err != nil {
		return err
	}
	return tx.Commit(ctx)
}

func retry(ctx context.Context, tx riverdriver.Executor, id int64, maxAttempts int) (Delivery, error) {
	d, err := delivery(tx.JobGetByID(ctx, &riverdriver.JobGetByIDParams{ID: id}))
	if err != nil {
		return d, err
	}
	if d.State == Running {
		return d, fmt.Errorf("%w: an attempt is running", ErrState)
	}
	_, err = tx.JobUpdateFull(ctx, &riverdriver.JobUpdateFullParams{
		ID: id, AttemptDoUpdate: true, MaxAttemptsDoUpdate: true, MaxAttempts: maxAttempts,
		// River notes there that a job was cancelled, and would cancel it again after
		// its next attempt.
		MetadataDoUpdate: true, Metadata: []byte("{}"),
	})
	if err != nil {
		return d, err
	}
	return delivery(tx.JobRetry(ctx, &riverdriver.JobRetryParams{ID: id}))
}

// Discard gives the callback with the given id up: it stays listed, and is not
// attempted again unless by Retry. A dead one, which is not attempted anyway, is
// deleted. It returns ErrNotFound, or ErrState if an attempt is running or it was
// delivered.
func (o *Outbox) Discard(ctx context.Context, id int64) (Delivery, error) {
	d, err := o.Get(ctx, id)
	if err != nil {
		return d, err
	}
	switch d.State {
	case Running, Delivered:
		return d, fmt.Errorf("%w: it is %s", ErrState, d.State)
	case Dead:
		d, err = delivery(o.store.put.JobDelete(ctx, id))
		d.State = Discarded
		return d, err
	}
	return delivery(o.store.put.JobCancel(ctx, id))
}

// explain says what an error of a retry means.
func (o *Outbox) explain(err error) error {
	if err != nil && o.store.IsBadRow(err) {
		return fmt.Errorf("%w: the same event has been stored anew", ErrState)
	}
	return err
}

// bulk is how many deliveries are changed in one transaction, which on SQLite
// holds up those who store.
const bulk = 100

// RetryAll does what Retry does with every callback that the filter selects, and
// returns with how many. It passes over those with which it cannot be done.
func (o *Outbox) RetryAll(ctx context.Context, f Filter, maxAttempts int) (done int, err error) {
	return o.each(ctx, f, func(ctx context.Context, ids []int64) (done int, err error) {
		err = o.change(ctx, func(tx riverdriver.ExecutorTx) error {
			for _, id := range ids {
				switch err := o.explain(retryWithin(ctx, tx, id, maxAttempts)); {
				case err == nil:
					done++
				case !errors.Is(err, ErrState) && !errors.Is(err, ErrNotFound):
					return err
				}
			}
			return nil
		})
		return done, err
	})
}

// retryWithin retries in a transaction of its own within tx, which goes on if it
// fails.
func retryWithin(ctx context.Context, tx riverdriver.ExecutorTx, id int64, maxAttempts int) error {
	inner, err := tx.Begin(ctx)
	if err != nil {
		return err
	}
	if _, err := retry(ctx, inner, id, maxAttempts); err != nil {
		return errors.Join(err, inner.Rollback(ctx))
	}
	return inner.Commit(ctx)
}

// DiscardAll does what Discard does with every callback that the filter selects,
// and returns with how many. It passes over those with which it cannot be done.
func (o *Outbox) DiscardAll(ctx context.Context, f Filter) (done int, err error) {
	return o.each(ctx, f, func(ctx context.Context, ids []int64) (done int, err error) {
		for _, id := range ids {
			switch _, err := o.Discard(ctx, id); {
			case err == nil:
				done++
			case !errors.Is(err, ErrState) && !errors.Is(err, ErrNotFound):
				return done, err
			}
		}
		return done, nil
	})
}

// each calls change for all that the filter selects, some at a time.
func (o *Outbox) each(ctx context.Context, f Filter, change func(context.Context, []int64) (int, error)) (done int, err error) {
	left := f.Limit
	for {
		f.Limit = bulk
		if left > 0 {
			f.Limit = min(bulk, left)
		}
		deliveries, err := o.List(ctx, f)
		if err != nil || len(deliveries) == 0 {
			return done, err
		}
		ids := make([]int64, len(deliveries))
		for i, d := range deliveries {
			ids[i] = d.ID
		}
		n, err := change(ctx, ids)
		if done += n; err != nil {
			return done, err
		}
		f.Before = ids[len(ids)-1]
		if left -= len(ids); left == 0 {
			return done, nil
		}
	}
}
