// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package outbox

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/riverqueue/river/riverdriver"
	"github.com/riverqueue/river/rivertype"
)

// State is the state of a stored callback.
type State string

// The states.
const (
	// Pending is the state of a callback that awaits its first attempt.
	Pending State = "pending"
	// Running is the state during an attempt.
	Running State = "running"
	// Retrying is the state after a failed attempt that will be repeated.
	Retrying State = "retrying"
	// Delivered is the state after the backend has accepted the callback.
	Delivered State = "delivered"
	// Dead is the state after the last attempt has failed.
	Dead State = "dead"
	// Discarded is the state after an operator has discarded the callback.
	Discarded State = "discarded"
)

// States returns all states, in the order of a callback's life cycle.
func States() []State { return []State{Pending, Running, Retrying, Delivered, Dead, Discarded} }

// Waiting reports whether the backend may still get the callback without an operator's doing.
func (s State) Waiting() bool { return s == Pending || s == Running || s == Retrying }

// awaiting are River's states of jobs awaiting an attempt.
var awaiting = []rivertype.JobState{
	rivertype.JobStateAvailable, rivertype.JobStatePending, rivertype.JobStateRetryable, rivertype.JobStateScheduled,
}

// riverStates maps each state to River's states. Pending and Retrying differ in the
// number of attempts.
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
	// ErrNotFound is returned for an id that is not in the store, or no longer.
	ErrNotFound = errors.New("no such delivery")

	// ErrState is wrapped by errors for operations that are not possible in the
	// state of the callback.
	ErrState = errors.New("not possible in this state")
)

// Failure is a failed attempt.
type Failure struct {
	At      time.Time `json:"at"`
	Attempt int       `json:"attempt"`
	Error   string    `json:"error"`
}

// Delivery is a stored callback with its state.
type Delivery struct {
	ID          int64     `json:"id"`
	State       State     `json:"state"`
	Attempt     int       `json:"attempt"`
	MaxAttempts int       `json:"max_attempts"`
	Stored      time.Time `json:"stored"`

	// Due is when the next attempt is due. It is zero if none is.
	Due time.Time `json:"due,omitzero"`

	// Ended is when the state became Delivered, Dead or Discarded.
	Ended time.Time `json:"ended,omitzero"`

	// Failures are the failed attempts, oldest first.
	Failures []Failure `json:"failures,omitempty"`

	Callback Callback `json:"callback"`

	// Unreadable says why the callback cannot be decrypted, if it cannot be.
	Unreadable string `json:"unreadable,omitempty"`
}

// LastError returns the error of the last failed attempt, unless the callback was delivered
// since.
func (d Delivery) LastError() string {
	if len(d.Failures) == 0 || d.State == Delivered {
		return ""
	}
	return d.Failures[len(d.Failures)-1].Error
}

// Get returns the callback with the given id, or ErrNotFound.
func (o *Outbox) Get(ctx context.Context, id int64) (Delivery, error) {
	if err := o.usable(); err != nil {
		return Delivery{}, err
	}
	return delivery(o.store.read.JobGetByID(ctx, &riverdriver.JobGetByIDParams{ID: id}))
}

// Options are the options of a queue that rows depend on.
type Options struct {
	MaxAttempts int
	Ordered     bool
}

// OptionsOf returns the options of a queue.
type OptionsOf func(Queue) Options

// Retry makes the callback with the given id due immediately, with all its attempts again,
// whatever its state. In an ordered queue, it is due as soon as it is its turn. It returns ErrNotFound, or ErrState if an attempt is
// running, or if the callback is dead or discarded and the same event has been stored
// again since.
func (o *Outbox) Retry(ctx context.Context, id int64, options OptionsOf) (d Delivery, err error) {
	err = o.change(ctx, func(tx riverdriver.ExecutorTx) error {
		d, err = retry(ctx, tx, id, options)
		return err
	})
	if err != nil {
		return d, o.explain(err)
	}
	o.advance(ctx, d.Callback.queue(), id)
	return d, nil
}

// change calls do in a transaction.
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

func retry(ctx context.Context, tx riverdriver.Executor, id int64, options OptionsOf) (Delivery, error) {
	d, err := delivery(tx.JobGetByID(ctx, &riverdriver.JobGetByIDParams{ID: id}))
	if err != nil {
		return d, err
	}
	if d.State == Running {
		return d, fmt.Errorf("%w: an attempt is running", ErrState)
	}
	of := options(d.Callback.queue())
	_, err = tx.JobUpdateFull(ctx, &riverdriver.JobUpdateFullParams{
		ID: id, AttemptDoUpdate: true, MaxAttemptsDoUpdate: true, MaxAttempts: of.MaxAttempts,
		// The metadata of a cancelled job would make River cancel it again after the
		// next attempt.
		MetadataDoUpdate: true, Metadata: []byte("{}"),
	})
	if err != nil {
		return d, err
	}
	d, err = delivery(tx.JobRetry(ctx, &riverdriver.JobRetryParams{ID: id}))
	if err == nil && of.Ordered && d.Callback.Conversation != "" {
		err = tx.Exec(ctx, "UPDATE river_job SET state = 'pending' WHERE state = 'available' AND id = "+joined([]int64{id}))
	}
	return d, err
}

// Discard discards the callback with the given id: it is not attempted again, unless
// by Retry, but stays listed. A dead callback is deleted instead. Discard returns
// ErrNotFound, or ErrState if an attempt is running or the callback was delivered.
func (o *Outbox) Discard(ctx context.Context, id int64) (d Delivery, err error) {
	err = o.change(ctx, func(tx riverdriver.ExecutorTx) error {
		d, err = discard(ctx, tx, id)
		return err
	})
	if err != nil {
		return d, err
	}
	o.advance(ctx, d.Callback.queue(), id)
	return d, nil
}

func discard(ctx context.Context, tx riverdriver.Executor, id int64) (Delivery, error) {
	d, err := delivery(tx.JobGetByID(ctx, &riverdriver.JobGetByIDParams{ID: id}))
	if err != nil {
		return d, err
	}
	switch d.State {
	case Running, Delivered:
		return d, fmt.Errorf("%w: it is %s", ErrState, d.State)
	case Dead:
		d, err = delivery(tx.JobDelete(ctx, &riverdriver.JobDeleteParams{ID: id}))
		d.State = Discarded
		return d, err
	}
	d, err = delivery(tx.JobCancel(ctx, &riverdriver.JobCancelParams{ID: id, CancelAttemptedAt: time.Now(), ControlTopic: "river_control"}))
	if err == nil && d.State != Discarded { // an attempt has begun in between
		return d, fmt.Errorf("%w: it is %s", ErrState, d.State)
	}
	return d, err
}

// Attempts reports whether a callback of the event is being delivered in the queue.
func (o *Outbox) Attempts(ctx context.Context, q Queue, eventID string) (bool, error) {
	ids, err := o.selectIDs(ctx, "SELECT id FROM river_job WHERE queue = $1 AND state = 'running' AND args->>'event_id' = $2 LIMIT 1", q.river(), eventID)
	return len(ids) > 0, err
}

// explain converts a violation of the unique index by a retry to an ErrState.
func (o *Outbox) explain(err error) error {
	if o.isBadRow(err) {
		return fmt.Errorf("%w: the same event has been stored again since", ErrState)
	}
	return err
}

// bulk is the number of deliveries that are changed in one transaction. On SQLite, a
// transaction blocks Put.
const bulk = 200

// RetryAll retries all callbacks that the filter selects, as Retry does, and returns
// their number. It skips callbacks that cannot be retried.
func (o *Outbox) RetryAll(ctx context.Context, f Filter, options OptionsOf) (done int, err error) {
	waiting := make(map[conversation]int64) // a row of each
	done, err = o.each(ctx, f, func(ctx context.Context, batch []selection) (done int, err error) {
		err = o.change(ctx, func(tx riverdriver.ExecutorTx) error {
			done, err = retryAtOnce(ctx, tx, batch, options)
			return err
		})
		if o.isBadRow(err) { // the event of one of them has been stored again since
			err = o.change(ctx, func(tx riverdriver.ExecutorTx) error {
				done, err = o.retryOneByOne(ctx, tx, batch, options)
				return err
			})
		}
		if err != nil {
			return 0, err // all of the batch were rolled back
		}
		for _, s := range batch {
			if s.name != "" && options(s.queue).Ordered {
				waiting[s.conversation] = s.id
			}
		}
		return done, nil
	})
	for ids := range slices.Chunk(slices.Collect(maps.Values(waiting)), bulk/4) { // which takes longer
		err = errors.Join(err, advanceAfter(ctx, o.store.write, ids...))
	}
	return done, err
}

// retryAtOnce retries a batch, with one statement for all rows that get the same values.
func retryAtOnce(ctx context.Context, tx riverdriver.Executor, batch []selection, options OptionsOf) (done int, err error) {
	type values struct {
		state       string
		maxAttempts int
	}
	rows := make(map[values][]int64)
	for _, s := range batch {
		of := options(s.queue)
		v := values{"available", of.MaxAttempts}
		if of.Ordered && s.name != "" {
			v.state = "pending" // RetryAll makes the first of each conversation available
		}
		rows[v] = append(rows[v], s.id)
	}
	for v, of := range rows {
		ids := joined(of)
		err := tx.Exec(ctx, fmt.Sprintf("UPDATE river_job SET state = '%[1]s', attempt = 0, max_attempts = %[2]d, metadata = '{}', finalized_at = NULL,"+
			" scheduled_at = CURRENT_TIMESTAMP WHERE state <> 'running' AND NOT (state = '%[1]s' AND attempt = 0 AND max_attempts = %[2]d)"+
			" AND id IN (%[3]s)", v.state, v.maxAttempts, ids))
		if err != nil {
			return 0, err
		}
		var n int
		if err := tx.QueryRow(ctx, fmt.Sprintf("SELECT count(*) FROM river_job WHERE state = '%s' AND id IN (%s)", v.state, ids)).Scan(&n); err != nil {
			return 0, err
		}
		done += n
	}
	return done, nil
}

// retryOneByOne retries each of a batch that can be.
func (o *Outbox) retryOneByOne(ctx context.Context, tx riverdriver.ExecutorTx, batch []selection, options OptionsOf) (done int, err error) {
	for _, s := range batch {
		switch err := o.explain(retryWithin(ctx, tx, s.id, options)); {
		case err == nil:
			done++
		case !errors.Is(err, ErrState) && !errors.Is(err, ErrNotFound):
			return done, err
		}
	}
	return done, nil
}

// retryWithin retries in a nested transaction, so that tx can continue after a failure.
func retryWithin(ctx context.Context, tx riverdriver.ExecutorTx, id int64, options OptionsOf) error {
	inner, err := tx.Begin(ctx)
	if err != nil {
		return err
	}
	if _, err := retry(ctx, inner, id, options); err != nil {
		return errors.Join(err, inner.Rollback(ctx))
	}
	return inner.Commit(ctx)
}

// DiscardAll discards all callbacks that the filter selects, as Discard does, and
// returns their number. It skips callbacks that cannot be discarded.
func (o *Outbox) DiscardAll(ctx context.Context, f Filter) (done int, err error) {
	return o.each(ctx, f, func(ctx context.Context, batch []selection) (done int, err error) {
		for _, s := range batch {
			switch _, err := o.Discard(ctx, s.id); {
			case err == nil:
				done++
			case !errors.Is(err, ErrState) && !errors.Is(err, ErrNotFound):
				return done, err
			}
		}
		return done, nil
	})
}

// each calls change for all callbacks that the filter selects, in batches, the oldest first,
// so that conversations stay in order.
func (o *Outbox) each(ctx context.Context, f Filter, change func(context.Context, []selection) (int, error)) (done int, err error) {
	all, err := o.selected(ctx, f)
	if err != nil {
		return 0, err
	}
	slices.Reverse(all)
	for batch := range slices.Chunk(all, bulk) {
		n, err := change(ctx, batch)
		if done += n; err != nil {
			return done, err
		}
	}
	return done, nil
}

// selection is a callback that a filter selects.
type selection struct {
	id int64
	conversation
}

// conversation is a conversation in a queue. Callbacks of none have no name.
type conversation struct {
	queue Queue
	name  string
}

// selected returns all callbacks that the filter selects, the newest first.
func (o *Outbox) selected(ctx context.Context, f Filter) ([]selection, error) {
	if err := o.usable(); err != nil {
		return nil, err
	}
	where, args, err := o.where(f)
	if err != nil {
		return nil, err
	}
	query := "SELECT id, queue, " + conversationOf + " AS conversation FROM river_job WHERE " + where + " ORDER BY id DESC"
	if f.Limit > 0 {
		query += fmt.Sprint(" LIMIT ", f.Limit)
	}
	var rows []struct {
		ID           int64  `json:"id"`
		Queue        string `json:"queue"`
		Conversation string `json:"conversation"`
	}
	if err := o.selectJSON(ctx, &rows, []string{"id", "queue", "conversation"}, nil, query, args...); err != nil {
		return nil, err
	}
	all := make([]selection, len(rows))
	for i, r := range rows {
		all[i] = selection{r.ID, conversation{queueOf(r.Queue), r.Conversation}}
	}
	return all, nil
}
