// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

//go:build !race

package callback

import (
	"testing"
	"time"
)

// Not parallel, because others' allocations would count; and not under the race
// detector, which makes pools drop what they hold.
func TestJudgingTheSampleAllocatesAtMostTwice(t *testing.T) {
	v, err := NewVerifier([]string{"other", vectorToken}, time.Minute, vectorClock)
	if err != nil {
		t.Fatal(err)
	}
	body := []byte(sampleRecall)
	allocations := testing.AllocsPerRun(1000, func() {
		q, err := ParseQuery(sampleQuery)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := v.Verify(q); err != nil {
			t.Fatal(err)
		}
		if _, err := Inspect(body, q.CallbackCommand); err != nil {
			t.Fatal(err)
		}
	})
	if allocations > 2 {
		t.Errorf("got %v allocations, want at most 2", allocations)
	}
}
