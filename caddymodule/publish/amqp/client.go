// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package amqp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/rabbitmq/amqp091-go"

	"github.com/caddyserver/caddy/v2"

	"github.com/timguard/timguard/caddymodule/publish"
)

// clients are the open clients by their settings, so that a reload closes none that is
// still needed.
var clients = caddy.NewUsagePool()

// settings identify a client. A mistake in the exchange closes the channel, so each exchange
// has a client of its own.
type settings struct {
	URL      string
	Exchange string
	TLS      *publish.TLS
}

// client is an AMQP client that connects when it is needed, again if it was disconnected.
type client struct {
	settings
	tls *tls.Config

	mu      sync.Mutex
	session *session      // nil if there is none
	dialing chan struct{} // closed when the running try to connect ends
	err     error         // of the last try
	tries   int           // that have failed in a row
	retryAt time.Time
	closed  bool
}

const (
	dialTimeout  = 3 * time.Second
	writeTimeout = 5 * time.Second
	flushTimeout = 5 * time.Second
	maxBackoff   = 5 * time.Second
)

func newClient(s settings) (*client, error) {
	c := &client{settings: s, tls: new(tls.Config)}
	if s.TLS == nil {
		return c, nil
	}
	var err error
	c.tls, err = s.TLS.Config()
	return c, err
}

// connect returns an open session. While the broker cannot be reached, it fails at once
// until the next try is due.
func (c *client) connect(ctx context.Context) (*session, error) {
	for {
		s, dialing, err := c.current()
		if dialing == nil {
			return s, err
		}
		select {
		case <-dialing:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// current returns the open session, a channel that is closed when the running try to connect
// ends, or the error of the last one.
func (c *client) current() (*session, <-chan struct{}, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return nil, nil, errors.New("the client is closed")
	case c.session != nil && !c.session.isClosed():
		return c.session, nil, nil
	case c.dialing == nil && time.Now().Before(c.retryAt):
		return nil, nil, c.err
	case c.dialing == nil:
		c.dialing = make(chan struct{})
		go c.dial()
	}
	return nil, c.dialing, nil
}

// dial makes one try to connect.
func (c *client) dial() {
	s, err := dial(c.settings, c.tls)
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.dialing)
	c.dialing = nil
	switch {
	case err != nil:
		c.err, c.tries = explain(err, c.Exchange), c.tries+1
		c.retryAt = time.Now().Add(min(100*time.Millisecond<<min(c.tries-1, 6), maxBackoff))
	case c.closed:
		s.close()
	default:
		c.session, c.tries, c.retryAt = s, 0, time.Time{}
	}
}

func (c *client) publish(ctx context.Context, key string, m publish.Message) error {
	s, err := c.connect(ctx)
	if err == nil {
		err = s.publish(ctx, c.Exchange, key, m)
	}
	return explain(err, c.Exchange)
}

// Destruct implements [caddy.Destructor]. It waits for acknowledgements.
func (c *client) Destruct() error {
	c.mu.Lock()
	c.closed = true
	s := c.session
	c.mu.Unlock()
	if s != nil {
		s.close()
	}
	return nil
}

// timedConn limits each write, so that a broker that does not read holds up no caller for
// long.
type timedConn struct{ net.Conn }

func (c timedConn) Write(p []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

func dialTimed(network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), dialTimeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	// The library removes the deadline after the handshake.
	if err := conn.SetDeadline(time.Now().Add(dialTimeout)); err != nil {
		return nil, err
	}
	return timedConn{conn}, nil
}

// explain says what an error means and what to do about it.
func explain(err error, exchange string) error {
	if err == nil {
		return nil
	}
	if _, done := errors.AsType[*publish.Error](err); done {
		return err
	}
	failure := func(cause, format string, args ...any) error {
		return &publish.Error{Cause: cause, Err: fmt.Errorf(format, args...)}
	}
	var network *net.OpError
	var refused *amqp091.Error
	isAMQP := errors.As(err, &refused)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return failure(publish.CauseTimeout, "the broker has not confirmed the message in time")
	case errors.Is(err, context.Canceled):
		return failure(publish.CauseOther, "the caller has gone before the broker confirmed the message")
	case errors.As(err, &network):
		return failure(publish.CauseUnreachable, "%w; is it running, and is the address right?", network)
	case isAMQP && refused.Code == amqp091.NotFound:
		return failure(publish.CauseUnknown, "the exchange %q does not exist; declare it, or correct the option exchange", exchange)
	case isAMQP && refused.Code == amqp091.AccessRefused, isAMQP && refused.Code == amqp091.NotAllowed:
		return failure(publish.CauseUnauthorized, "the broker refuses the user name, the password, the vhost, or writing to the exchange %q", exchange)
	case isAMQP && refused.Code == amqp091.PreconditionFailed:
		return failure(publish.CauseTooLarge, "the broker refuses the message, probably because it is too large: %s", refused.Reason)
	case isAMQP:
		return failure(publish.CauseUnreachable, "the connection was closed: %s", refused.Reason)
	}
	return failure(publish.CauseOther, "%w", err)
}
