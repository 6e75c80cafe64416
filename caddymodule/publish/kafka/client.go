// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package kafka

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/caddyserver/caddy/v2"

	"github.com/timguard/timguard/caddymodule/publish"
)

// clients are the open clients by their settings, so that a reload closes none that is
// still needed.
var clients = caddy.NewUsagePool()

// settings identify a client.
type settings struct {
	Brokers []string
	TLS     *publish.TLS
	SASL    SASL
}

var mechanisms = map[string]func(user, password string) sasl.Mechanism{
	"plain": func(user, password string) sasl.Mechanism {
		return plain.Auth{User: user, Pass: password}.AsMechanism()
	},
	"scram-sha-256": func(user, password string) sasl.Mechanism {
		return scram.Auth{User: user, Pass: password}.AsSha256Mechanism()
	},
	"scram-sha-512": func(user, password string) sasl.Mechanism {
		return scram.Auth{User: user, Pass: password}.AsSha512Mechanism()
	},
}

// client is a Kafka client.
type client struct {
	kafka     *kgo.Client
	connected atomic.Pointer[error] // the error of the last try to connect, nil if it succeeded
}

const (
	// maxBatch is Kafka's default for the largest batch that a topic takes.
	maxBatch = 1048588

	// maxBuffered limits the memory of messages that wait for their acknowledgement.
	maxBuffered = 64 << 20

	// retries limits the repetitions of a message that the broker has refused for a
	// reason that may pass, so that the answer can say the reason.
	retries = 3

	flushTimeout = 5 * time.Second
)

func newClient(s settings) (*client, error) {
	c := new(client)
	options := []kgo.Opt{
		kgo.SeedBrokers(s.Brokers...),
		kgo.ClientID("timguard"),
		kgo.DialTimeout(3 * time.Second),
		kgo.WithHooks(c),

		// Callers give up on a message when their timeout is over. Then it must not stay
		// in the client, to be published much later.
		kgo.AllowIdempotentProduceCancellation(),
		kgo.MaxBufferedBytes(maxBuffered),
		kgo.ProducerBatchMaxBytes(maxBatch),
		kgo.ProducerLinger(0),
		kgo.RecordRetries(retries),
		kgo.UnknownTopicRetries(1),
		kgo.MetadataMinAge(250 * time.Millisecond),
		kgo.RetryBackoffFn(func(tries int) time.Duration {
			return min(50*time.Millisecond<<min(tries, 5), time.Second)
		}),
	}
	if s.TLS != nil {
		config, err := s.TLS.Config()
		if err != nil {
			return nil, err
		}
		options = append(options, kgo.DialTLSConfig(config))
	}
	if mechanism := mechanisms[s.SASL.Mechanism]; mechanism != nil {
		options = append(options, kgo.SASL(mechanism(s.SASL.User, s.SASL.Password)))
	}
	var err error
	c.kafka, err = kgo.NewClient(options...)
	return c, err
}

// Destruct implements [caddy.Destructor].
func (c *client) Destruct() error {
	ctx, cancel := context.WithTimeout(context.Background(), flushTimeout)
	defer cancel()
	err := c.kafka.Flush(ctx)
	c.kafka.Close()
	return err
}

// OnBrokerConnect implements [kgo.HookBrokerConnect].
func (c *client) OnBrokerConnect(_ kgo.BrokerMetadata, _ time.Duration, _ net.Conn, err error) {
	if err == nil {
		c.connected.Store(nil)
		return
	}
	c.connected.Store(&err)
}

// publish publishes a message. An empty key leaves the partition to the client.
func (c *client) publish(ctx context.Context, topic, key string, m publish.Message) error {
	record := &kgo.Record{Topic: topic, Value: m.Body, Headers: make([]kgo.RecordHeader, len(m.Headers))}
	if key != "" {
		record.Key = []byte(key)
	}
	for i, h := range m.Headers {
		record.Headers[i] = kgo.RecordHeader{Key: h.Name, Value: []byte(h.Value)}
	}
	// Messages of other callers may be in the same batch, which the client cancels with
	// its first message. So the message lives until the deadline, even if the caller has
	// gone.
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(flushTimeout)
	}
	live, cancel := context.WithDeadline(context.WithoutCancel(ctx), deadline)
	result := make(chan error, 1)
	c.kafka.TryProduce(live, record, func(_ *kgo.Record, err error) {
		result <- err
		cancel()
	})
	select {
	case err := <-result:
		if errors.Is(err, kerr.UnknownTopicID) {
			// The topic was deleted and made anew, with another ID. The client keeps the
			// old one until the topic is purged.
			c.kafka.PurgeTopicsFromProducing(topic)
		}
		return c.explain(err, topic)
	case <-ctx.Done():
		return c.explain(ctx.Err(), topic)
	}
}

// explain says what an error means and what to do about it.
func (c *client) explain(err error, topic string) error {
	if err == nil {
		return nil
	}
	failure := func(cause, format string, args ...any) error {
		return &publish.Error{Cause: cause, Err: fmt.Errorf(format, args...)}
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		if last := c.connected.Load(); last != nil {
			err = *last
		}
	}
	var network *net.OpError
	switch {
	case errors.Is(err, kgo.ErrMaxBuffered):
		return failure(publish.CauseBufferFull, "too many messages are waiting for the broker; is it slower than the callbacks come?")
	case errors.Is(err, kerr.UnknownTopicOrPartition), errors.Is(err, kerr.UnknownTopicID), errors.Is(err, kerr.InvalidTopicException):
		return failure(publish.CauseUnknown, "the topic %q does not exist; create it, or correct the option topic", topic)
	case errors.Is(err, kerr.MessageTooLarge), errors.Is(err, kerr.RecordListTooLarge):
		return failure(publish.CauseTooLarge, "the message is larger than the broker takes; raise max.message.bytes of the topic %q, or lower max_body of the guard", topic)
	case errors.Is(err, kerr.TopicAuthorizationFailed), errors.Is(err, kerr.ClusterAuthorizationFailed):
		return failure(publish.CauseUnauthorized, "the user may not write to the topic %q; allow it in the broker", topic)
	case errors.Is(err, kerr.SaslAuthenticationFailed), errors.Is(err, kerr.UnsupportedSaslMechanism), errors.Is(err, kerr.IllegalSaslState):
		return failure(publish.CauseUnauthorized, "the broker refuses the user name, the password or the mechanism of sasl")
	case errors.Is(err, kerr.NotEnoughReplicas), errors.Is(err, kerr.NotEnoughReplicasAfterAppend):
		return failure(publish.CauseReplicas, "fewer replicas of the topic %q are in sync than its min.insync.replicas", topic)
	case errors.As(err, &network):
		return failure(publish.CauseUnreachable, "%w; is it running, and is the address right?", network)
	case errors.Is(err, context.DeadlineExceeded):
		return failure(publish.CauseTimeout, "the broker has not acknowledged the message in time")
	case errors.Is(err, context.Canceled):
		return failure(publish.CauseOther, "the caller has gone before the broker acknowledged the message")
	}
	return failure(publish.CauseOther, "%w", err)
}
