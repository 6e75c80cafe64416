// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package outbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/riverqueue/river"
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

// waiting are River's states of what waits for an attempt: the first one, or
// another.
var waiting = []rivertype.JobState{
	rivertype.JobStateAvailable, rivertype.JobStatePending, rivertype.JobStateRetryable, rivertype.JobStateScheduled,
}

// riverStates are River's words for each state. Pending and Retrying are told
// apart by the attempts that were made.
var riverStates = map[State][]rivertype.JobState{
	Pending:   waiting,
	Retrying:  waiting,
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

// Item is a stored callback with what became of it.
type Item struct {
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

// Filter says which callbacks List returns.
type Filter struct {
	// State is the state they are in. Empty means any.
	State State

	// Before limits the list to smaller ids: the last id of one page gives the
	// next page. Zero means from the newest.
	Before int64

	// Limit is how many to return, at most 1000. Default 100.
	Limit int
}

// List returns stored callbacks, newest first, with their bodies.
func (o *Outbox) List(ctx context.Context, f Filter) ([]Item, error) {
	if f.Limit <= 0 {
		f.Limit = 100
	}
	params := river.NewJobListParams().
		Kinds(Callback{}.Kind()).
		First(min(f.Limit, 1000)).
		OrderBy(river.JobListOrderByID, river.SortOrderDesc)
	if f.State != "" {
		rivers, ok := riverStates[f.State]
		if !ok {
			return nil, fmt.Errorf("unknown state %q", f.State)
		}
		params = params.States(rivers...)
		switch f.State {
		case Pending:
			params = params.Where("attempt = 0")
		case Retrying:
			params = params.Where("attempt > 0")
		}
	}
	if f.Before > 0 {
		params = params.Where("id < @before", river.NamedArgs{"before": f.Before})
	}
	if err := o.usable(); err != nil {
		return nil, err
	}
	res, err := o.store.operate.JobList(ctx, params)
	if err != nil {
		return nil, err
	}
	items := make([]Item, len(res.Jobs))
	for i, job := range res.Jobs {
		items[i] = itemOf(job)
	}
	return items, nil
}

// Get returns the callback with the given id, or ErrNotFound.
func (o *Outbox) Get(ctx context.Context, id int64) (Item, error) {
	return o.operate(ctx, id, o.store.operate.JobGet)
}

// Retry makes the callback with the given id due at once, whatever became of it
// before, with at least one attempt left. It returns ErrNotFound, or ErrState if
// an attempt is running, or if it ended undelivered and the same event has been
// stored anew since.
func (o *Outbox) Retry(ctx context.Context, id int64) (Item, error) {
	item, err := o.operate(ctx, id, o.store.operate.JobRetry)
	switch {
	case err == nil && item.State == Running:
		return item, fmt.Errorf("%w: an attempt is running", ErrState)
	case err != nil && o.store.poison(err):
		return item, fmt.Errorf("%w: the same event has been stored anew", ErrState)
	}
	return item, err
}

// Discard gives the callback with the given id up: it stays listed, and is not
// attempted again unless by Retry. A dead one, which is not attempted anyway, is
// deleted. It returns ErrNotFound, or ErrState if an attempt is running or it was
// delivered.
func (o *Outbox) Discard(ctx context.Context, id int64) (Item, error) {
	item, err := o.Get(ctx, id)
	if err != nil {
		return item, err
	}
	switch item.State {
	case Running, Delivered:
		return item, fmt.Errorf("%w: it is %s", ErrState, item.State)
	case Dead:
		item, err = o.operate(ctx, id, o.store.operate.JobDelete)
		item.State = Discarded
		return item, err
	}
	return o.operate(ctx, id, o.store.operate.JobCancel)
}

// operate applies one of River's calls to one row.
func (o *Outbox) operate(ctx context.Context, id int64, call func(context.Context, int64) (*rivertype.JobRow, error)) (Item, error) {
	if err := o.usable(); err != nil {
		return Item{}, err
	}
	job, err := call(ctx, id)
	if errors.Is(err, rivertype.ErrNotFound) {
		return Item{}, ErrNotFound
	}
	if err != nil {
		return Item{}, err
	}
	return itemOf(job), nil
}

// usable returns why the store cannot be asked.
func (o *Outbox) usable() error {
	switch {
	case o.ctx.Err() != nil:
		return ErrClosed
	case !o.ready.Load():
		return ErrNotReady
	}
	return nil
}

func itemOf(job *rivertype.JobRow) Item {
	item := Item{
		ID: job.ID, State: stateOf(job.State, job.Attempt), Attempt: job.Attempt, MaxAttempts: job.MaxAttempts, Stored: job.CreatedAt,
	}
	switch {
	case job.FinalizedAt != nil:
		item.Ended = *job.FinalizedAt
	case item.State != Running:
		item.Due = job.ScheduledAt
	}
	for _, e := range job.Errors {
		item.Failures = append(item.Failures, Failure{At: e.At, Attempt: e.Attempt, Error: e.Error})
	}
	// What a newer or older version wrote differently shows as far as it is
	// understood; a list with a hole is of more use than none.
	_ = json.Unmarshal(job.EncodedArgs, &item.Callback)
	return item
}

// Stats is what the store holds.
type Stats struct {
	// Count has every state, also those without any callback.
	Count map[State]int

	// OldestAge is the age of the oldest callback that waits for delivery, and
	// zero if none does.
	OldestAge time.Duration
}

// Stats counts what the store holds. It walks an index over all stored rows:
// ask every few seconds, not with every request.
func (o *Outbox) Stats(ctx context.Context) (Stats, error) {
	if err := o.usable(); err != nil {
		return Stats{}, err
	}
	counts, retrying, age, err := o.store.count(ctx)
	if err != nil {
		return Stats{}, err
	}
	s := Stats{Count: make(map[State]int), OldestAge: age}
	for _, state := range States() {
		s.Count[state] = 0
	}
	for state, n := range counts {
		s.Count[stateOf(state, 0)] += n
	}
	s.Count[Pending] -= retrying
	s.Count[Retrying] += retrying
	return s, nil
}
