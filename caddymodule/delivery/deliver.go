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

	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/timguard/timguard/caddymodule"
	"github.com/timguard/timguard/caddymodule/callback"
	"github.com/timguard/timguard/caddymodule/internal/answer"
	"github.com/timguard/timguard/caddymodule/outbox"
)

// deliver makes an attempt to deliver a stored callback.
func (s *Service) deliver(ctx context.Context, a outbox.Attempt) error {
	guard := s.guardOf(outbox.Queue{Guard: a.Guard, Consumer: a.Consumer})
	if guard == nil { // cannot happen: only configured queues are worked
		return fmt.Errorf("guard %s has no such route any longer", a.Guard)
	}
	if err := s.unseal(&a.Callback); err != nil {
		return err
	}
	return attempt(ctx, s.logger, guard, a)
}

// ended records the outcome of an attempt.
func (s *Service) ended(a outbox.Attempt, took time.Duration, err error) {
	s.countAttempt(a, err)
	queue := outbox.Queue{Guard: a.Guard, Consumer: a.Consumer}
	attemptsOf(queue).note(a.Attempt, err)
	s.queues.note(queue, err)
	if err == nil {
		s.logger.Info("delivered",
			zap.Int64("id", a.ID), zap.String("guard", a.Guard), zap.String("consumer", a.Consumer), zap.String("command", callback.Printable(a.Command)),
			zap.String("event_id", a.EventID), zap.Int("attempt", a.Attempt), zap.Duration("duration", took), zap.Duration("age", time.Since(a.Received)))
	}
}

// attempt runs the handlers of the callback's route. It returns nil if their answer accepts
// the callback.
func attempt(ctx context.Context, logger *zap.Logger, guard *caddymodule.Guard, a outbox.Attempt) error {
	held := answer.Hold(make(http.Header))
	defer held.Free()
	r, err := newRequest(ctx, a, guard, held)
	if err != nil {
		return err
	}
	err = answer.Recover(logger, func() error {
		return cause(guard.Deliver(held, r, caddymodule.Delivery{
			Consumer: a.Consumer, Command: a.Command, EventID: a.EventID, Body: []byte(a.Body),
		}))
	})
	switch {
	case ctx.Err() != nil:
		return errors.New("the backend did not answer in time")
	case err != nil:
		return err
	}
	got := held.Answer()
	err = answer.Explain(r, guard.Routes[a.Consumer].CheckAnswer(got))
	if after := retryAfter(got.Status, held.Header()); err != nil && after > 0 {
		return &outbox.LaterError{Err: err, After: after}
	}
	return err
}

// retryAfter returns how long a backend that is busy asks to wait.
func retryAfter(status int, header http.Header) time.Duration {
	if status != http.StatusTooManyRequests && status != http.StatusServiceUnavailable {
		return 0
	}
	text := header.Get("Retry-After")
	if seconds, err := strconv.Atoi(text); err == nil {
		const most = 1 << 20 // more is not respected anyway, and would overflow
		return time.Duration(min(seconds, most)) * time.Second
	}
	at, err := http.ParseTime(text)
	if err != nil {
		return 0
	}
	return time.Until(at)
}

// cause returns the part of a handler's error that is of interest to operators. Only
// network errors are returned unchanged, because others may contain the URL, and thus
// the Sign.
func cause(err error) error {
	if err == nil {
		return nil
	}
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
	case errors.Is(err, caddymodule.ErrUnanswered):
		return caddymodule.ErrUnanswered
	case errors.As(err, &dns):
		return dns
	case errors.As(err, &certificate):
		return certificate
	}
	return fmt.Errorf("a handler failed with the status %d", status)
}

// newRequest returns the request of a stored callback as the guard forwards it, with a new
// Sign if it had one.
func newRequest(ctx context.Context, a outbox.Attempt, guard *caddymodule.Guard, w http.ResponseWriter) (*http.Request, error) {
	auth, err := guard.Sign(a.SdkAppID, a.Signed)
	if err != nil {
		return nil, err
	}
	original, err := parseURI(a.URI, auth)
	if err != nil {
		return nil, err
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
	r.Header.Set("Tim-Delivery-Attempt", strconv.Itoa(a.Attempt))
	if a.Consumer != "" {
		r.Header.Set("Tim-Delivery-Consumer", a.Consumer)
	}
	if a.EventID != "" {
		r.Header.Set("Tim-Event-Id", a.EventID)
	}
	r.URL, r.RequestURI, r.Host, r.RemoteAddr = original, original.RequestURI(), a.Host, a.RemoteAddr
	if major, minor, ok := http.ParseHTTPVersion(a.Proto); ok {
		r.Proto, r.ProtoMajor, r.ProtoMinor = a.Proto, major, minor
	}
	if a.TLS {
		r.TLS = &tls.ConnectionState{HandshakeComplete: true, ServerName: hostOf(a.Host)}
	}
	r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), w, guard.Server)
	if a.Root != "" {
		caddyhttp.SetVar(r.Context(), "root", a.Root)
	}
	if a.ClientIP != "" { // as the server saw it that received the callback, which may be another one
		caddyhttp.SetVar(r.Context(), caddyhttp.ClientIPVarKey, a.ClientIP)
		caddyhttp.SetVar(r.Context(), caddyhttp.TrustedProxyVarKey, a.Trusted)
	}
	if a.Target != "" { // as it was when it reached the guard
		if r.URL, err = parseURI(a.Target, auth); err != nil {
			return nil, err
		}
		r.RequestURI = r.URL.RequestURI()
	}
	return r, nil
}

// parseURI parses a stored URI, to which it adds the parameters.
func parseURI(uri, auth string) (*url.URL, error) {
	if auth != "" {
		separator := "?"
		if strings.Contains(uri, "?") {
			separator = "&"
		}
		uri += separator + auth
	}
	u, err := url.ParseRequestURI(uri) // as net/http does
	if err != nil {
		return nil, errors.New("the stored URI is invalid") // err contains the Sign
	}
	return u, nil
}

func hostOf(hostport string) string {
	if host, _, err := net.SplitHostPort(hostport); err == nil {
		return host
	}
	return hostport
}
