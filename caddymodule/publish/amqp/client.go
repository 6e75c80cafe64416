// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package amqp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/rabbitmq/amqp091-go"

	"github.com/caddyserver/caddy/v2"

	"github.com/timguard/timguard/caddymodule/publish"
)

// clients are the open clients by their settings.
var clients = publish.NewClients[*client]()

// settings identify a client. A mistake in the exchange closes the channel, so each exchange
// has a client of its own.
type settings struct {
	URL      string
	Exchange string
	TLS      bool
	CA       string // in PEM
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
	writeTimeout = 500 * time.Millisecond // of each of the library's writes, which are of some kB
	flushTimeout = 5 * time.Second
	maxBackoff   = 2 * time.Second
)

func newClient(s settings) *client {
	c := &client{settings: s}
	if s.TLS { // otherwise, the URL may have options of TLS
		c.tls = publish.TLSConfig(s.CA)
	}
	return c
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
			return nil, c.lastErr()
		}
	}
}

// lastErr returns the error of the last try to connect, while the next one is running.
func (c *client) lastErr() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tries == 0 {
		return errConnecting
	}
	return c.err
}

var errConnecting = publish.Errorf(publish.CauseUnreachable,
	"there is no connection to the broker yet; is the broker running, and is the address right?")

// current returns the open session, a channel that is closed when the running try to connect
// ends, or the error of the last one.
func (c *client) current() (*session, <-chan struct{}, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return nil, nil, errClosed
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
		c.err, c.tries = c.explain(err), c.tries+1
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
	if refused, ok := errors.AsType[*amqp091.Error](err); ok && refused.Code == amqp091.PreconditionFailed && !strings.Contains(refused.Reason, fmt.Sprintf(" %d ", len(m.Body))) {
		return publish.Errorf(publish.CauseRefused, "the broker has closed the channel because of another message: %s", refused.Reason)
	}
	return c.explain(err)
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
func (c *client) explain(err error) error {
	if err == nil {
		return nil
	}
	if _, done := errors.AsType[*publish.Error](err); done {
		return err
	}
	if refused, ok := errors.AsType[*amqp091.Error](err); ok {
		return c.explainRefused(refused)
	}
	var network *net.OpError
	var certificate *tls.CertificateVerificationError
	var noTLS tls.RecordHeaderError
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return publish.Errorf(publish.CauseTimeout, "the broker has not confirmed the message in time; is it overloaded, or is timeout too short?")
	case errors.Is(err, context.Canceled):
		return publish.Errorf(publish.CauseOther, "the caller has gone before the broker confirmed the message")
	case errors.As(err, &certificate):
		return publish.Errorf(publish.CauseUnreachable, "%w; name the file with the certificate of its authority: tls <ca_file>", certificate)
	case errors.As(err, &network):
		return publish.Errorf(publish.CauseUnreachable, "%w; is the broker running, and is the address right?", network)
	case errors.As(err, &noTLS), errors.Is(err, io.EOF):
		return publish.Errorf(publish.CauseUnreachable, "%w; does the broker want amqps://, or amqp://?", err)
	}
	return publish.Errorf(publish.CauseOther, "%w", err)
}

// explainRefused says what an error that the broker or the library gives means. The
// broker's reasons name users and exchanges, but contain no secrets.
func (c *client) explainRefused(err *amqp091.Error) error {
	switch err.Code {
	case amqp091.NotFound:
		return publish.Errorf(publish.CauseUnknown, "the exchange %q does not exist; declare it, or correct the option exchange", c.Exchange)
	case amqp091.AccessRefused:
		return publish.Errorf(publish.CauseUnauthorized, "the broker refuses the user: %s; correct the user name and the password of the URL, or allow the user to write to the exchange %q", err.Reason, c.Exchange)
	case amqp091.NotAllowed:
		return publish.Errorf(publish.CauseUnauthorized, "the broker refuses the vhost: %s; correct it in the URL, or allow the user to use it", err.Reason)
	case amqp091.PreconditionFailed:
		return publish.Errorf(publish.CauseTooLarge, "the broker refuses a message: %s; raise max_message_size of the broker, or lower max_body of the guard", err.Reason)
	}
	return publish.Errorf(publish.CauseUnreachable, "the connection was closed: %s; is the broker running, and does it want amqps://, or amqp://?", err.Reason)
}

// Interface guard
var _ caddy.Destructor = (*client)(nil)
