// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package outbox

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/riverqueue/river/rivertype"
)

// Filter selects stored callbacks. Empty fields select all.
type Filter struct {
	State    State
	Guard    string
	Consumer string // or Own
	Command  string

	// Conversation selects callbacks that belong in one order.
	Conversation string

	// Before selects callbacks with smaller ids. Pass the last id of a page to get
	// the next one.
	Before int64

	// Since selects callbacks that were stored at that time or later.
	Since time.Time

	// Limit is the maximum number of callbacks, up to 1000. Default: 100.
	Limit int
}

// Own as the consumer in a Filter selects what is for the backends of guards.
const Own = "-"

// Names reports whether the filter's guard and consumer select the queue.
func (f Filter) Names(q Queue) bool {
	return (f.Guard == "" || f.Guard == q.Guard) && (f.Consumer == "" || f.Consumer == q.Consumer || f.Consumer == Own && q.Consumer == "")
}

// filterIndexes let the rows of a command or conversation be found among any number.
var filterIndexes = []string{
	"CREATE INDEX IF NOT EXISTS river_job_tim_callback_command ON river_job ((args->>'command'), id)",
	"CREATE INDEX IF NOT EXISTS river_job_tim_callback_conversation ON river_job ((" + conversationOf + "), id)",
}

// where returns the filter as an SQL condition, with its arguments.
func (o *Outbox) where(f Filter) (string, []any, error) {
	conditions, args := []string{"kind = '" + kind + "'"}, []any{} // others may have jobs in the same tables
	if o.store.Exclusive {
		conditions[0] = "id > 0" // all rows: with their kind, SQLite would not choose the other indexes
	}
	add := func(condition string, arg any) { // ? is replaced by the placeholder of arg
		args = append(args, arg)
		conditions = append(conditions, strings.Replace(condition, "?", "$"+strconv.Itoa(len(args)), 1))
	}
	if f.State != "" {
		states, ok := riverStates[f.State]
		if !ok {
			return "", nil, fmt.Errorf("unknown state %q", f.State)
		}
		conditions = append(conditions, "state IN ("+quoted(states)+")")
	}
	switch f.State {
	case Pending:
		conditions = append(conditions, "attempt = 0")
	case Retrying:
		conditions = append(conditions, "attempt > 0")
	}
	like := strings.NewReplacer(`\`, `\\`, "_", `\_`, "%", `\%`) // for ESCAPE '\'
	switch {
	case f.Consumer == Own && f.Guard != "":
		add("queue = ?", Queue{f.Guard, ""}.river())
	case f.Consumer == Own:
		conditions = append(conditions, "queue NOT LIKE '%"+consumerMark+"%'")
	case f.Guard != "" && f.Consumer != "":
		add("queue = ?", Queue{f.Guard, f.Consumer}.river())
	case f.Guard != "":
		add("(queue || '"+consumerMark+"') LIKE ? ESCAPE '\\'", like.Replace(f.Guard)+consumerMark+"%")
	case f.Consumer != "":
		add("queue LIKE ? ESCAPE '\\'", "%"+consumerMark+like.Replace(f.Consumer))
	}
	if f.Command != "" {
		add("args->>'command' = ?", f.Command)
	}
	if f.Conversation != "" {
		add(conversationOf+" = ?", f.Conversation)
	}
	if f.Before > 0 {
		add("id < ?", f.Before)
	}
	if !f.Since.IsZero() {
		add(o.timeOf("created_at")+" >= ?", f.Since.UTC().Format(timeFormat))
	}
	return strings.Join(conditions, " AND "), args, nil
}

// timeFormat is the format of Database.Time, in which texts sort as times.
const timeFormat = "2006-01-02T15:04:05.000Z"

func quoted(states []rivertype.JobState) string {
	var all []string
	for _, s := range states {
		all = append(all, "'"+string(s)+"'")
	}
	return strings.Join(all, ", ")
}

func (o *Outbox) timeOf(column string) string { return fmt.Sprintf(o.store.Time, column) }

// selectJSON runs a query and decodes its result into rows, a pointer to a slice. The Outbox
// must be usable, as it must be to make a query.
func (o *Outbox) selectJSON(ctx context.Context, rows any, columns, jsonColumns []string, query string, args ...any) error {
	var text string
	if err := o.store.read.QueryRow(ctx, o.store.SelectJSON(query, columns, jsonColumns), args...).Scan(&text); err != nil {
		return err
	}
	return json.Unmarshal([]byte(text), rows)
}

// listed is a row of List.
type listed struct {
	ID          int64                    `json:"id"`
	State       rivertype.JobState       `json:"state"`
	Attempt     int                      `json:"attempt"`
	MaxAttempts int                      `json:"max_attempts"`
	CreatedAt   time.Time                `json:"created_at"`
	ScheduledAt time.Time                `json:"scheduled_at"`
	FinalizedAt *time.Time               `json:"finalized_at"`
	Errors      []rivertype.AttemptError `json:"errors"`
	Args        json.RawMessage          `json:"args"`
}

// maxListed is the maximum number of callbacks that List returns.
const maxListed = 1000

// List returns stored callbacks, newest first, without their bodies.
func (o *Outbox) List(ctx context.Context, f Filter) ([]Delivery, error) {
	if err := o.usable(); err != nil {
		return nil, err
	}
	where, args, err := o.where(f)
	if err != nil {
		return nil, err
	}
	var rows []listed
	columns := []string{"id", "state", "attempt", "max_attempts", "created_at", "scheduled_at", "finalized_at"}
	err = o.selectJSON(ctx, &rows, columns, []string{"errors", "args"}, fmt.Sprintf(
		"SELECT id, state, attempt, max_attempts, %s AS created_at, %s AS scheduled_at, %s AS finalized_at, %s AS errors, %s AS args"+
			// The inner query sorts no payloads, and may need nothing but an index.
			" FROM river_job WHERE id IN (SELECT id FROM river_job WHERE %s ORDER BY id DESC LIMIT %d) ORDER BY id DESC",
		o.timeOf("created_at"), o.timeOf("scheduled_at"), o.timeOf("finalized_at"), o.store.Errors, o.store.Arguments,
		where, min(cmp.Or(f.Limit, 100), maxListed)), args...)
	if err != nil {
		return nil, err
	}
	deliveries := make([]Delivery, len(rows))
	for i, r := range rows {
		deliveries[i] = r.delivery()
	}
	return deliveries, nil
}

// delivery converts the result of a River call to a Delivery.
func delivery(job *rivertype.JobRow, err error) (Delivery, error) {
	if errors.Is(err, rivertype.ErrNotFound) {
		return Delivery{}, ErrNotFound
	}
	if err != nil {
		return Delivery{}, err
	}
	r := listed{
		job.ID, job.State, job.Attempt, job.MaxAttempts, job.CreatedAt, job.ScheduledAt, job.FinalizedAt, job.Errors, job.EncodedArgs,
	}
	return r.delivery(), nil
}

func (r listed) delivery() Delivery {
	d := Delivery{
		ID: r.ID, State: stateOf(r.State, r.Attempt), Attempt: r.Attempt, MaxAttempts: r.MaxAttempts, Stored: r.CreatedAt,
	}
	switch {
	case r.FinalizedAt != nil:
		d.Ended = *r.FinalizedAt
	case d.State != Running:
		d.Due = r.ScheduledAt
	}
	for _, e := range r.Errors {
		d.Failures = append(d.Failures, Failure{At: e.At, Attempt: e.Attempt, Error: e.Error})
	}
	// A row of another version may fail to decode. Show the fields that were decoded
	// instead of failing the whole list.
	_ = json.Unmarshal(r.Args, &d.Callback)
	return d
}

// Count is the number of callbacks of a queue in a state.
type Count struct {
	Queue Queue
	State State
	N     int

	// Oldest is when the oldest of them was stored. It is zero if the state is final.
	Oldest time.Time
}

// Counts counts all stored callbacks in one query. It scans an index of all rows, so it
// should not be called more often than every few seconds.
func (o *Outbox) Counts(ctx context.Context) ([]Count, error) {
	var rows []struct {
		Queue  string             `json:"queue"`
		State  rivertype.JobState `json:"state"`
		Tried  int                `json:"tried"`
		N      int                `json:"n"`
		Oldest time.Time          `json:"oldest"`
	}
	if err := o.usable(); err != nil {
		return nil, err
	}
	waiting := quoted(awaiting) + ", '" + string(rivertype.JobStateRunning) + "'"
	const tried = "CASE WHEN attempt > 0 THEN 1 ELSE 0 END"
	err := o.selectJSON(ctx, &rows, []string{"queue", "state", "tried", "n", "oldest"}, nil, fmt.Sprintf(
		"SELECT queue, state, 0 AS tried, count(*) AS n, NULL AS oldest FROM river_job WHERE state NOT IN (%s) GROUP BY queue, state"+
			" UNION ALL SELECT queue, state, %s, count(*), %s FROM river_job WHERE state IN (%s) GROUP BY queue, state, %s",
		waiting, tried, o.timeOf("min(created_at)"), waiting, tried))
	if err != nil {
		return nil, err
	}
	counts := make([]Count, len(rows))
	for i, r := range rows {
		counts[i] = Count{queueOf(r.Queue), stateOf(r.State, r.Tried), r.N, r.Oldest}
	}
	return counts, nil
}

// CountAll counts the stored callbacks that the filter selects, whatever its limit.
func (o *Outbox) CountAll(ctx context.Context, f Filter) (int, error) {
	if err := o.usable(); err != nil {
		return 0, err
	}
	where, args, err := o.where(f)
	if err != nil {
		return 0, err
	}
	var rows []struct {
		N int `json:"n"`
	}
	err = o.selectJSON(ctx, &rows, []string{"n"}, nil, "SELECT count(*) AS n FROM river_job WHERE "+where, args...)
	if err != nil || len(rows) == 0 {
		return 0, err
	}
	return rows[0].N, nil
}

// LastFailures returns the last failure of each queue's newest callback that is dead, or
// awaits an attempt after a failed one.
func (o *Outbox) LastFailures(ctx context.Context) (map[Queue]Failure, error) {
	if err := o.usable(); err != nil {
		return nil, err
	}
	var rows []struct {
		Queue  string                   `json:"queue"`
		Errors []rivertype.AttemptError `json:"errors"`
	}
	err := o.selectJSON(ctx, &rows, []string{"queue"}, []string{"errors"}, fmt.Sprintf(
		"SELECT queue, %s AS errors FROM river_job WHERE id IN (SELECT max(id) FROM river_job WHERE state IN (%s) GROUP BY queue)",
		o.store.Errors, quoted([]rivertype.JobState{rivertype.JobStateDiscarded, rivertype.JobStateRetryable})))
	if err != nil {
		return nil, err
	}
	failures := make(map[Queue]Failure)
	for _, r := range rows {
		if n := len(r.Errors); n > 0 {
			e := r.Errors[n-1]
			failures[queueOf(r.Queue)] = Failure{At: e.At, Attempt: e.Attempt, Error: e.Error}
		}
	}
	return failures, nil
}
