// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/timguard/timguard/caddymodule"
	"github.com/timguard/timguard/caddymodule/outbox"
)

// deliver makes an attempt to deliver a stored callback, by replaying its request
// through the site.
func (s *Service) deliver(ctx context.Context, a outbox.Attempt) error {
	err := s.offer(ctx, a)
	s.countAttempt(a, err)
	return err
}

func (s *Service) offer(ctx context.Context, a outbox.Attempt) error {
	guard := s.guard(a.Guard, a.Server)
	if guard == nil {
		return fmt.Errorf("guard %s is no longer configured", a.Guard)
	}
	attempt := &caddymodule.Attempt{
		Guard: a.Guard, Consumer: a.Consumer, Number: a.Attempt, Command: a.Command, Body: []byte(a.Body), Signed: a.Signed,
	}
	r, err := request(caddymodule.WithAttempt(ctx, attempt), a, guard)
	if err != nil {
		return err
	}
	answer := caddymodule.NewHeldAnswer(make(http.Header))
	err = caddymodule.Recover(s.logger, func() error {
		guard.Server.ServeHTTP(answer, r)
		return nil
	})
	switch {
	case err == nil && ctx.Err() == nil && !attempt.Passed:
		return fmt.Errorf("the site no longer routes this callback to the guard %s: %w", a.Guard, errNotPassed(answer))
	case ctx.Err() != nil:
		return fmt.Errorf("no answer within %s", time.Duration(s.Timeout))
	case err != nil:
		return err
	case attempt.Err != nil:
		return cause(attempt.Err)
	}
	return answer.CheckAccepted()
}

// errNotPassed describes the answer to a request that did not pass its guard.
func errNotPassed(answer *caddymodule.HeldAnswer) error {
	if err := answer.CheckAccepted(); err != nil {
		return err
	}
	return errors.New("another handler answered")
}

// cause returns the part of a handler's error that is of interest to operators. Only
// network errors are returned unchanged, because others may contain the URL, and thus
// the Sign.
func cause(err error) error {
	status := http.StatusInternalServerError
	if he, ok := errors.AsType[caddyhttp.HandlerError](err); ok {
		status = he.StatusCode
		if he.Err != nil {
			err = he.Err
		}
	}
	if dial, ok := errors.AsType[reverseproxy.DialError](err); ok {
		return dial
	}
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op
	}
	var dns *net.DNSError
	var certificate *tls.CertificateVerificationError
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return errors.New("the backend did not answer in time")
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("the backend closed the connection without an answer")
	case errors.As(err, &dns):
		return dns
	case errors.As(err, &certificate):
		return certificate
	}
	return fmt.Errorf("a handler failed with the status %d", status)
}

// request recreates the request of a stored callback, with a new Sign if it had one.
func request(ctx context.Context, a outbox.Attempt, guard *caddymodule.Guard) (*http.Request, error) {
	auth, err := guard.Sign(a.SdkAppID, a.Signed)
	if err != nil {
		return nil, err
	}
	uri := a.URI
	if auth != "" {
		separator := "?"
		if strings.Contains(uri, "?") {
			separator = "&"
		}
		uri += separator + auth
	}
	target, err := url.ParseRequestURI(uri) // as net/http does
	if err != nil {
		return nil, errors.New("the stored URI is invalid") // err contains the Sign
	}
	r, err := http.NewRequestWithContext(ctx, a.Method, "/", strings.NewReader(a.Body))
	if err != nil {
		return nil, errors.New("the stored request is invalid")
	}
	if a.Header != nil {
		r.Header = http.Header(a.Header).Clone()
	}
	r.Header.Set("Content-Length", strconv.Itoa(len(a.Body)))
	r.Header.Set("Accept-Encoding", "identity") // the answer must be readable
	r.URL, r.RequestURI, r.Host, r.RemoteAddr = target, uri, a.Host, a.RemoteAddr
	if major, minor, ok := http.ParseHTTPVersion(a.Proto); ok {
		r.Proto, r.ProtoMajor, r.ProtoMinor = a.Proto, major, minor
	}
	if a.TLS {
		r.TLS = &tls.ConnectionState{HandshakeComplete: true, ServerName: hostOf(a.Host)}
	}
	return r, nil
}

func hostOf(hostport string) string {
	if host, _, err := net.SplitHostPort(hostport); err == nil {
		return host
	}
	return hostport
}
