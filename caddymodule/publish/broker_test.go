// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package publish_test

import (
	"fmt"
	"maps"
	"testing"
	"time"
)

// published is a message that a broker has.
type published struct {
	body    string
	headers map[string]string
	key     string
	lane    string // what keeps the order: a partition or a queue
}

// broker is a broker of either kind with a place for messages.
type broker interface {
	// directive returns tim_publish with more options.
	directive(options string) string
	// secret is what must not be shown.
	secret() string
	kill(tb testing.TB)
	start(tb testing.TB)
	// all returns the messages, each lane in order.
	all(tb testing.TB) []published
}

// eachBroker runs the test once for each kind of broker.
func eachBroker(t *testing.T, test func(t *testing.T, b broker)) {
	t.Helper()
	t.Run("kafka", func(t *testing.T) {
		t.Parallel()
		test(t, newKafka(t))
	})
	t.Run("amqp", func(t *testing.T) {
		t.Parallel()
		r := aRabbit(t)
		test(t, &rabbitQueue{rabbit: r, queue: r.queue(t, nil)})
	})
}

func (k *kafka) directive(options string) string {
	return fmt.Sprintf("tim_publish kafka %s {\ntopic %s\n%s\n}", k.address, topic, options)
}

func (*kafka) secret() string { return "no secret" }

func (k *kafka) all(tb testing.TB) (all []published) {
	tb.Helper()
	for _, r := range records(tb, k.address) {
		m := published{body: string(r.Value), headers: make(map[string]string), key: string(r.Key), lane: fmt.Sprint(r.Partition)}
		for _, h := range r.Headers {
			m.headers[h.Key] = string(h.Value)
		}
		all = append(all, m)
	}
	return all
}

// rabbitQueue is a queue of RabbitMQ.
type rabbitQueue struct {
	*rabbit
	queue string
	taken []published
}

func (q *rabbitQueue) directive(options string) string {
	return fmt.Sprintf("tim_publish amqp %s {\nrouting_key %s\n%s\n}", q.url(), q.queue, options)
}

func (*rabbitQueue) secret() string { return "guest-secret" }

func (q *rabbitQueue) all(tb testing.TB) []published {
	tb.Helper()
	for _, d := range q.take(tb, q.queue) {
		m := published{body: string(d.Body), headers: make(map[string]string), lane: q.queue}
		for name, value := range maps.All(d.Headers) {
			m.headers[name] = fmt.Sprint(value)
		}
		if d.MessageId != m.headers["event_id"] || d.ContentType != "application/json" || d.DeliveryMode != 2 || time.Since(d.Timestamp) > time.Hour {
			tb.Errorf("properties %q %q %d %s", d.MessageId, d.ContentType, d.DeliveryMode, d.Timestamp)
		}
		q.taken = append(q.taken, m)
	}
	return q.taken
}
