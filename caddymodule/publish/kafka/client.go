// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package kafka

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/caddyserver/caddy/v2"

	"github.com/timguard/timguard/caddymodule/publish"
)

// clients are the open clients by their settings.
var clients = publish.NewClients[*client]()

// settings identify a client.
type settings struct {
	Brokers []string
	TLS     bool
	CA      string // in PEM
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
	kafka   *kgo.Client
	sasl    bool
	heard   atomic.Bool             // a broker has answered
	failure atomic.Pointer[failure] // the last one of a connection, nil if there was none
}

// failure is the failure of a connection, which the library tries again: callers only see
// that their time is over.
type failure struct {
	err error
	at  time.Time
}

const (
	// maxBatch is Kafka's default for the largest batch that a topic takes.
	maxBatch = 1048588

	// maxBuffered limits the memory of messages that wait for their acknowledgement.
	maxBuffered = 64 << 20

	// retries limits the repetitions of a message that the broker has refused for a
	// reason that may pass, so that the answer can say the reason.
	retries = 3

	maxBackoff   = time.Second
	flushTimeout = 5 * time.Second
)

func newClient(s settings) (*client, error) {
	c := &client{sasl: s.SASL.Mechanism != ""}
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
		kgo.ProducerLinger(0), // the caller waits, and messages of one round trip share a batch anyway
		kgo.RecordRetries(retries),
		kgo.UnknownTopicRetries(1),
		kgo.MetadataMinAge(250 * time.Millisecond),
		kgo.RetryBackoffFn(func(tries int) time.Duration {
			return min(50*time.Millisecond<<min(tries, 5), maxBackoff)
		}),
	}
	if s.TLS {
		options = append(options, kgo.DialTLSConfig(publish.TLSConfig(s.CA)))
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
	_, first := errors.AsType[*kgo.ErrFirstReadEOF](err)
	if c.sasl && !first && isEOF(err) { // as old brokers refuse a user
		err = kerr.SaslAuthenticationFailed
	}
	c.fail(err)
}

// OnBrokerRead implements [kgo.HookBrokerRead].
func (c *client) OnBrokerRead(_ kgo.BrokerMetadata, key int16, _ int, _, _ time.Duration, err error) {
	switch {
	case err == nil && key != handshake.Int16():
		c.heard.Store(true)
	case isEOF(err) && !c.heard.Load():
		c.fail(err)
	}
}

// handshake is the request that also brokers answer which then want a user.
const handshake = kmsg.ApiVersions

func (c *client) fail(err error) {
	_, network := errors.AsType[*net.OpError](err)
	canceled := errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
	if err != nil && (network || !canceled) { // the end of a caller's patience is no cause
		c.failure.Store(&failure{err, time.Now()})
	}
}

func isEOF(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }

// instead returns the failure of a connection that has kept a message waiting since start,
// if there is one.
func (c *client) instead(err error, start time.Time) error {
	if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) && !errors.Is(err, kgo.ErrRecordRetries) {
		return err
	}
	f, heard := c.failure.Load(), c.heard.Load()
	switch {
	case f != nil && (!heard || f.at.After(start.Add(-maxBackoff))):
		return f.err
	case !heard:
		return errConnecting
	}
	return err
}

// publish publishes a message. An empty key leaves the partition to the client.
func (c *client) publish(ctx context.Context, topic, key string, m publish.Message) error {
	if topic == "" {
		return publish.Errorf(publish.CauseUnknown, "the placeholders of the option topic have no value for this callback; give them a default, such as {name:other}")
	}
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
	start, result := time.Now(), make(chan error, 1)
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
		return explain(c.instead(err, start), topic)
	case <-ctx.Done():
		return explain(c.instead(ctx.Err(), start), topic)
	}
}

var errConnecting = errors.New("there is no connection to any broker yet")

// explain says what an error means and what to do about it.
func explain(err error, topic string) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, kgo.ErrMaxBuffered):
		return publish.Errorf(publish.CauseBufferFull, "too many messages are waiting for the broker; is it slower than the callbacks come?")
	case errors.Is(err, kerr.UnknownTopicOrPartition), errors.Is(err, kerr.UnknownTopicID), errors.Is(err, kerr.InvalidTopicException):
		return publish.Errorf(publish.CauseUnknown, "the topic %q does not exist; create it, or correct the option topic", topic)
	case errors.Is(err, kerr.MessageTooLarge), errors.Is(err, kerr.RecordListTooLarge):
		return publish.Errorf(publish.CauseTooLarge, "%w; raise max.message.bytes of the topic %q up to %d, or lower max_body of the guard", err, topic, maxBatch)
	case errors.Is(err, kerr.TopicAuthorizationFailed), errors.Is(err, kerr.ClusterAuthorizationFailed):
		return publish.Errorf(publish.CauseUnauthorized, "the user may not write to the topic %q; allow it in the broker", topic)
	case errors.Is(err, kerr.SaslAuthenticationFailed), errors.Is(err, kerr.UnsupportedSaslMechanism), errors.Is(err, kerr.IllegalSaslState):
		return publish.Errorf(publish.CauseUnauthorized, "the broker refuses the user name, the password or the mechanism of sasl; correct the option sasl")
	case errors.Is(err, kerr.NotEnoughReplicas), errors.Is(err, kerr.NotEnoughReplicasAfterAppend), errors.Is(err, kgo.ErrRecordRetries):
		// The library gives up with the latter if replicas were too few after the leader had
		// stored the message.
		return publish.Errorf(publish.CauseReplicas, "fewer replicas of the topic %q are in sync than its min.insync.replicas; are all brokers running?", topic)
	}
	return explainConnection(err)
}

func explainConnection(err error) error {
	var network *net.OpError
	var certificate *tls.CertificateVerificationError
	switch {
	case errors.As(err, &certificate):
		return publish.Errorf(publish.CauseUnreachable, "%w; name the file with the certificate of its authority: tls <ca_file>", certificate)
	case errors.As(err, &network), errors.Is(err, errConnecting):
		return publish.Errorf(publish.CauseUnreachable, "%w; is the broker running, is the address right, and is tls set as the broker wants it?", err)
	case isEOF(err):
		return publish.Errorf(publish.CauseUnreachable, "the broker closes the connection; does it want tls or sasl, or none?")
	case errors.Is(err, context.DeadlineExceeded):
		return publish.Errorf(publish.CauseTimeout, "the broker has not acknowledged the message in time; is it overloaded, or is timeout too short?")
	case errors.Is(err, context.Canceled):
		return publish.Errorf(publish.CauseOther, "the caller has gone before the broker acknowledged the message")
	}
	return publish.Errorf(publish.CauseOther, "%w", err)
}

// Interface guards
var (
	_ caddy.Destructor      = (*client)(nil)
	_ kgo.HookBrokerConnect = (*client)(nil)
	_ kgo.HookBrokerRead    = (*client)(nil)
)
