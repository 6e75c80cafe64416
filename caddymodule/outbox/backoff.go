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
)

// backoff is the retry policy: the delay doubles after each attempt, from a second to
// an hour, with a random deviation of 20%, so that deliveries that failed together are
// not retried together.
type backoff struct{}

// NextRetry implements river.ClientRetryPolicy.
func (backoff) NextRetry(job *rivertype.JobRow) time.Time {
	delay := maxBackoff
	if n := job.Attempt - 1; n < 12 {
		delay = min(maxBackoff, minBackoff<<max(n, 0))
	}
	delay = time.Duration(float64(delay) * (0.8 + 0.4*rand.Float64())) //nolint:gosec // jitter need not be unguessable
	return time.Now().UTC().Add(min(max(delay, minBackoff), maxBackoff))
}
