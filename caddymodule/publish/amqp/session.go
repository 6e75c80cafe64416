// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package amqp

import (
	"context"
	"crypto/tls"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rabbitmq/amqp091-go"

	"github.com/timguard/timguard/caddymodule/publish"
)

// session is a connection with a channel on which all messages are published, in order.
type session struct {
	conn    *amqp091.Connection
	channel *amqp091.Channel
	blocked atomic.Bool // the broker takes no messages for now

	mu      sync.Mutex
	closing bool           // no message begins any longer
	pending sync.WaitGroup // messages without confirmation

	done      chan struct{} // closed when the channel or the connection is closed
	err       error         // why, valid when done is closed
	questions chan question
}

// question asks whether a message that has been confirmed was returned before, because no
// queue took it.
type question struct {
	message  message
	returned chan bool
}

// message identifies a message among those that are published at the same time.
type message struct{ exchange, key, id string }

func dial(s settings, config *tls.Config) (*session, error) {
	conn, err := amqp091.DialConfig(s.URL, amqp091.Config{
		TLSClientConfig: config.Clone(),
		Heartbeat:       10 * time.Second,
		Properties:      amqp091.Table{"connection_name": "timguard"},
		Dial:            dialTimed,
	})
	if err != nil {
		return nil, err
	}
	channel, err := conn.Channel()
	if err == nil {
		err = channel.Confirm(false)
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	out := &session{conn: conn, channel: channel, done: make(chan struct{}), questions: make(chan question)}
	// The library closes these channels with the AMQP channel.
	go out.watchBlocked(conn.NotifyBlocked(make(chan amqp091.Blocking, 1)))
	go out.watch(channel.NotifyReturn(make(chan amqp091.Return)), channel.NotifyClose(make(chan *amqp091.Error, 1)))
	return out, nil
}

func (s *session) watchBlocked(blocked chan amqp091.Blocking) {
	for b := range blocked {
		s.blocked.Store(b.Active)
	}
}

// watch answers questions until the channel is closed. The library hands a message that was
// returned to this goroutine before it reads the message's confirmation, so when the question
// comes, the answer is known.
func (s *session) watch(returns chan amqp091.Return, closed chan *amqp091.Error) {
	returned := make(map[message]int)
	for {
		select {
		case r, open := <-returns:
			if !open {
				returns = nil
				continue
			}
			returned[message{r.Exchange, r.RoutingKey, r.MessageId}]++
		case q := <-s.questions:
			q.returned <- returned[q.message] > 0
			returned[q.message]--
			if returned[q.message] <= 0 {
				delete(returned, q.message)
			}
		case err := <-closed:
			s.err = amqp091.ErrClosed
			if err != nil {
				s.err = err
			}
			close(s.done)
			_ = s.conn.CloseDeadline(time.Now().Add(writeTimeout))
			return
		}
	}
}

func (s *session) isClosed() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

var (
	errBlocked = publish.Errorf(publish.CauseBufferFull,
		"the broker takes no messages at the moment, because it is short of memory or disk space; see its alarms")
	errNegative = publish.Errorf(publish.CauseRefused,
		"the broker could not store the message; is a queue full (x-overflow reject-publish), or down?")
)

// errReturned says that no queue took a message.
func errReturned(exchange, key string) error {
	if exchange == "" {
		return publish.Errorf(publish.CauseUnknown, "there is no queue %q; declare it, or correct the option routing_key", key)
	}
	return publish.Errorf(publish.CauseUnknown, "no queue is bound to the exchange %q for the routing key %q; bind one, or correct the option routing_key", exchange, key)
}

var errClosed = errors.New("the client is closed")

// begin counts a message as pending. It returns false if the session is being closed.
func (s *session) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return false
	}
	s.pending.Add(1)
	return true
}

// publish publishes a message, and waits for its confirmation.
func (s *session) publish(ctx context.Context, exchange, key string, m publish.Message) error {
	if s.blocked.Load() {
		return errBlocked
	}
	if !s.begin() {
		return errClosed
	}
	defer s.pending.Done()
	headers := make(amqp091.Table, len(m.Headers))
	for _, h := range m.Headers {
		headers[h.Name] = h.Value
	}
	confirmation, err := s.channel.PublishWithDeferredConfirmWithContext(ctx, exchange, key, true, false, amqp091.Publishing{
		Headers: headers, ContentType: "application/json", DeliveryMode: amqp091.Persistent, MessageId: m.EventID, Timestamp: time.Now(), Body: m.Body,
	})
	if err != nil {
		return s.closedOr(err)
	}
	sent := message{exchange, key, m.EventID}
	select {
	case <-confirmation.Done():
		return s.settle(confirmation, sent)
	case <-ctx.Done():
		// A later message with the same ID must not seem to be returned.
		go func() { _ = s.settle(confirmation, sent) }()
		return ctx.Err()
	}
}

// settle waits for a confirmation and returns what it says of the message.
func (s *session) settle(confirmation *amqp091.DeferredConfirmation, m message) error {
	<-confirmation.Done() // also if the channel is closed
	if !confirmation.Acked() {
		return s.closedOr(errNegative)
	}
	q := question{m, make(chan bool, 1)}
	select {
	case s.questions <- q:
	case <-s.done:
		return s.err
	}
	if <-q.returned {
		return errReturned(m.exchange, m.key)
	}
	return nil
}

// closedOr returns the error with which the channel was closed, and err if it is open.
func (s *session) closedOr(err error) error {
	select {
	case <-s.done:
		return s.err
	case <-time.After(50 * time.Millisecond): // the notification may be on its way
		return err
	}
}

// close waits for confirmations and closes the connection.
func (s *session) close() {
	s.mu.Lock()
	s.closing = true
	s.mu.Unlock()
	done := make(chan struct{})
	go func() { s.pending.Wait(); close(done) }()
	select {
	case <-done:
	case <-s.done:
	case <-time.After(flushTimeout):
	}
	_ = s.conn.CloseDeadline(time.Now().Add(writeTimeout))
}
