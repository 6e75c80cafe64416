// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package outbox

import (
	"math/rand/v2"
	"time"

	"github.com/riverqueue/river/rivertype"
)

const (
	minBackoff = time.Second
	maxBackoff = time.Hour

	// rescueSlack is the time after an attempt's timeout until the attempt is
	// considered lost with its process. It leaves time to store the outcome of a
	// finished attempt. River rescues jobs every 30s, schedules them every 5s, and
	// elects a new leader within 21s, so a lost attempt is repeated within a minute
	// of its timeout.
	rescueSlack = 10 * time.Second
)

// backoff is the retry policy: the delay doubles after each attempt, from a second to
// an hour, with a random deviation of 20%, so that deliveries that failed together are
// not retried together.
type backoff struct {
	rescueAfter time.Duration
}

// NextRetry implements river.ClientRetryPolicy.
func (b backoff) NextRetry(job *rivertype.JobRow) time.Time {
	now := time.Now().UTC()
	if job.AttemptedAt != nil && now.Sub(*job.AttemptedAt) >= b.rescueAfter {
		// The attempt was lost with its process, which is no failure of the
		// backend, and the callback has waited long enough.
		return now
	}
	delay := maxBackoff
	if n := job.Attempt - 1; n < 12 {
		delay = min(maxBackoff, minBackoff<<max(n, 0))
	}
	delay = time.Duration(float64(delay) * (0.8 + 0.4*rand.Float64())) //nolint:gosec // jitter need not be unguessable
	return now.Add(min(max(delay, minBackoff), maxBackoff))
}
