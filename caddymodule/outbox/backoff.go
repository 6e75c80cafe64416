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

	// rescueSlack is how long after its timeout an attempt counts as lost with
	// its process. It leaves a finished attempt time to be written down. River
	// looks every 30s and schedules every 5s, and a new leader follows a dead
	// one within 21s, while the timeout runs: that is within a minute.
	rescueSlack = 10 * time.Second
)

// backoff is River's retry policy: twice as long after each attempt, from a
// second to an hour, and a fifth of it at random either way, so that deliveries
// that failed together do not come back together.
type backoff struct {
	rescueAfter time.Duration
}

// NextRetry implements river.ClientRetryPolicy.
func (b backoff) NextRetry(job *rivertype.JobRow) time.Time {
	now := time.Now().UTC()
	if job.AttemptedAt != nil && now.Sub(*job.AttemptedAt) >= b.rescueAfter {
		// Its process died under it. The backend is not known to be ill, and
		// the callback has waited long enough.
		return now
	}
	delay := maxBackoff
	if n := job.Attempt - 1; n < 12 {
		delay = min(maxBackoff, minBackoff<<max(n, 0))
	}
	delay = time.Duration(float64(delay) * (0.8 + 0.4*rand.Float64())) //nolint:gosec // jitter need not be unguessable
	return now.Add(min(max(delay, minBackoff), maxBackoff))
}
