// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/timguard/timguard/caddymodule"
	"github.com/timguard/timguard/caddymodule/outbox"
)

// Status is the response of /tim_callback/status. Without a store, it only has guards.
type Status struct {
	Guards           []caddymodule.Status `json:"guards"`
	Store            string               `json:"store,omitempty"`
	StoreAt          string               `json:"store_at,omitempty"` // without a password
	StoreError       string               `json:"store_error,omitempty"`
	Deliveries       map[outbox.State]int `json:"deliveries"`
	OldestAgeSeconds float64              `json:"oldest_delivery_age_seconds"`
	Queues           []QueueStatus        `json:"queues"`
	Unclaimed        []Unclaimed          `json:"unclaimed,omitempty"`
}

// QueueStatus is the state of a queue that is configured.
type QueueStatus struct {
	Guard            string               `json:"guard"`
	Consumer         string               `json:"consumer,omitempty"`
	Deliveries       map[outbox.State]int `json:"deliveries"`
	OldestAgeSeconds float64              `json:"oldest_delivery_age_seconds"`
	Ordered          bool                 `json:"ordered"`
	Paused           bool                 `json:"paused"`

	// AttemptsPerMinute is how many attempts ended on this node in the last minute.
	AttemptsPerMinute int `json:"attempts_per_minute"`

	// ConsecutiveFailures is how many of the last attempts on this node have failed since
	// one did not.
	ConsecutiveFailures int `json:"consecutive_failures"`

	// LastFailure is that of the last attempt, if it has failed on this node, or of the
	// newest delivery that is dead, or to be retried.
	LastFailure *outbox.Failure `json:"last_failure,omitempty"`
}

// Waiting returns the number of deliveries that are waiting.
func (q QueueStatus) Waiting() (waiting int) {
	for state, n := range q.Deliveries {
		if state.Waiting() {
			waiting += n
		}
	}
	return waiting
}

// failingAfter is how many attempts in a row must have failed for a queue to be failing.
const failingAfter = 3

// Failing reports whether the last attempts of the queue have failed, and it is not paused.
func (q QueueStatus) Failing() bool { return !q.Paused && q.ConsecutiveFailures >= failingAfter }

// Unclaimed is the number of deliveries to a guard, or to its backend or consumer, that is
// not configured.
type Unclaimed struct {
	Guard      string `json:"guard"`
	Consumer   string `json:"consumer,omitempty"`
	Deliveries int    `json:"deliveries"`
}

// Status returns the state of the running guards and of the store. s is nil if nothing is
// stored.
func (s *Service) Status(ctx context.Context) Status {
	response := Status{Guards: caddymodule.Running()}
	if s == nil {
		return response
	}
	response.Store, response.StoreAt = s.name, s.store.Location()
	counts, err := s.Outbox().Counts(ctx)
	var paused []outbox.Queue
	if err == nil {
		paused, err = s.Outbox().Paused(ctx)
	}
	var failures map[outbox.Queue]outbox.Failure
	if err == nil {
		failures, err = s.Outbox().LastFailures(ctx)
	}
	if err = cmp.Or(s.Outbox().Err(), err); err != nil { // the first one says more
		response.StoreError = err.Error()
		return response
	}
	states, oldest := summary(counts)
	response.Deliveries, response.OldestAgeSeconds = states, oldest.Seconds()
	for _, q := range s.Queues() {
		states, oldest := summary(counts, q)
		status := QueueStatus{
			Guard: q.Guard, Consumer: q.Consumer, Deliveries: states, OldestAgeSeconds: oldest.Seconds(),
			Ordered: s.optionsOf(q).Ordered, Paused: slices.Contains(paused, q),
		}
		status.AttemptsPerMinute, status.ConsecutiveFailures, status.LastFailure = attemptsOf(q).now()
		// In the store are those of other nodes, and of this one before a restart.
		if f, failed := failures[q]; failed && (status.LastFailure == nil || f.At.After(status.LastFailure.At)) {
			status.LastFailure = &f
		}
		response.Queues = append(response.Queues, status)
	}
	for queue, n := range s.unclaimed(counts) {
		response.Unclaimed = append(response.Unclaimed, Unclaimed{queue.Guard, queue.Consumer, n})
	}
	slices.SortFunc(response.Unclaimed, func(a, b Unclaimed) int {
		return cmp.Or(cmp.Compare(a.Guard, b.Guard), cmp.Compare(a.Consumer, b.Consumer))
	})
	return response
}

// ErrNoQueue is returned for a queue that neither the configuration nor the store has.
var ErrNoQueue = errors.New("no running guard has this queue, and nothing is stored in it")

// SetPaused pauses or resumes a queue.
func (s *Service) SetPaused(ctx context.Context, q outbox.Queue, paused bool) error {
	known, err := s.knownQueues(ctx)
	if err != nil {
		return err
	}
	if !slices.Contains(known, q) {
		return fmt.Errorf("%w; the queues are: %s", ErrNoQueue, queueNames(known))
	}
	if paused {
		return s.Outbox().Pause(ctx, q)
	}
	return s.Outbox().Resume(ctx, q)
}
