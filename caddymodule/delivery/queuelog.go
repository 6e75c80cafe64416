// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"errors"
	"sync"

	"go.uber.org/zap"

	"github.com/timguard/timguard/caddymodule/callback"
	"github.com/timguard/timguard/caddymodule/outbox"
)

// refusedForms is the number of answers of a queue that must all be refused for their form
// before that is warned of.
const refusedForms = 20

// queueLog warns of queues whose backend has habits of its own. Otherwise, nobody may notice
// that it is called again and again for each callback.
type queueLog struct {
	logger *zap.Logger

	mu      sync.Mutex
	refused map[outbox.Queue]int // how many of the first answers were, or -1 if another came
}

func newQueueLog(logger *zap.Logger) *queueLog {
	return &queueLog{logger: logger, refused: make(map[outbox.Queue]int)}
}

// note notes the outcome of an attempt.
func (l *queueLog) note(q outbox.Queue, err error) {
	form, isForm := errors.AsType[*callback.FormError](err)
	if err != nil && !isForm {
		return // no answer, or one that says that the backend is not well
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch n := l.refused[q]; {
	case n < 0:
	case err == nil:
		l.refused[q] = -1
	case n+1 == refusedForms:
		l.refused[q] = -1
		l.logger.Warn("all answers to deliveries were refused for their form; if they mean success, change accept of the backend or consumer",
			zap.String("guard", q.Guard), zap.String("consumer", q.Consumer), zap.Int("answers", refusedForms), zap.Error(form))
	default:
		l.refused[q] = n + 1
	}
}
