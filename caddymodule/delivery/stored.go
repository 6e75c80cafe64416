// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/timguard/timguard/caddymodule"
	"github.com/timguard/timguard/caddymodule/callback"
	"github.com/timguard/timguard/caddymodule/outbox"
)

// Store implements [caddymodule.Deliveries].
func (s *Service) Store(ctx context.Context, c *caddymodule.StoredCallback) error {
	start := time.Now()
	rows, err := s.rowsOf(c)
	if err == nil {
		_, err = s.Outbox().Put(ctx, rows...)
	}
	storeSeconds.Observe(time.Since(start).Seconds())
	s.noteStored(err)
	return err
}

// rowsOf returns the rows to store: one for the guard's own backend, if requested, and one
// for each consumer.
func (s *Service) rowsOf(c *caddymodule.StoredCallback) ([]*outbox.Callback, error) {
	consumers := c.Consumers
	if c.Own {
		consumers = append([]string{""}, consumers...)
	}
	row := rowOf(c)
	if err := s.seal(&row); err != nil {
		return nil, err
	}
	var rows []*outbox.Callback
	for _, consumer := range consumers {
		copied := row
		copied.Consumer = consumer
		copied.Key = contentKey(c, row.Host, row.URI, consumer)
		options := s.optionsOf(outbox.Queue{Guard: row.Guard, Consumer: consumer})
		copied.MaxAttempts, copied.Ordered = options.MaxAttempts, options.Ordered
		rows = append(rows, &copied)
	}
	return rows, nil
}

// rowOf returns the row for a callback, with everything that is needed to send the
// request again, except credentials.
func rowOf(c *caddymodule.StoredCallback) outbox.Callback {
	r := &c.Request
	row := outbox.Callback{
		Command: callback.Printable(c.Event.Command), SdkAppID: c.SdkAppID, GroupID: callback.Printable(c.Event.GroupID), MsgSeqs: c.Event.MsgSeqs,
		Conversation: callback.Printable(c.Event.Conversation), EventID: c.EventID,
		Guard: c.Guard.Name, Signed: c.Signed, Received: c.Received.UTC(),
		Method: r.Method, Host: r.Host, URI: uriOf(r.Original), Proto: r.Proto, TLS: r.TLS,
		RemoteAddr: r.RemoteAddr, ClientIP: r.ClientIP, Trusted: r.TrustedProxy, Root: r.Root, Header: storable(r.Header), Body: string(c.Body),
	}
	if target := uriOf(&r.URL); target != row.URI {
		row.Target = target
	}
	return row
}

// uriOf returns the target of a request, without Sign and RequestTime.
func uriOf(u *url.URL) string {
	target := *u
	target.RawQuery = escaped(callback.WithoutAuth(target.RawQuery))
	return target.RequestURI()
}

// unstored are the headers that are not stored, because they are secrets, belong to the
// connection, or are set by each delivery.
var unstored = []string{
	"Authorization", "Cookie", "Proxy-Authorization",
	"Connection", "Content-Length", "Expect", "Keep-Alive", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
}

// storable returns a copy of the header without the headers that are not stored, and
// without values that a database cannot store: no genuine request has any.
func storable(header http.Header) http.Header {
	header = header.Clone()
	for name, values := range header {
		isBinary := func(value string) bool { return !utf8.ValidString(value) }
		if slices.Contains(unstored, name) || slices.ContainsFunc(values, isBinary) {
			delete(header, name)
		}
	}
	return header
}

// escaped returns the raw query with invalid UTF-8 percent-encoded, since a database could
// not store it.
func escaped(raw string) string {
	if utf8.ValidString(raw) {
		return raw
	}
	var b strings.Builder
	for _, c := range []byte(raw) {
		if c < utf8.RuneSelf {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// contentKey returns the key for deduplication, which includes the event, the guard, the
// host, the path and the consumer. It is empty if nothing in the payload distinguishes the
// event from a later one.
func contentKey(c *caddymodule.StoredCallback, host, uri, consumer string) string {
	if c.RandomID {
		return ""
	}
	path, _, _ := strings.Cut(uri, "?")
	if u, err := url.ParseRequestURI(path); err == nil {
		path = caddyhttp.CleanPath(u.Path, true)
	}
	sum := sha256.Sum256([]byte(strings.Join([]string{c.EventID, c.Guard.Name, strings.ToLower(host), path, consumer}, "\n")))
	return hex.EncodeToString(sum[:])
}

// waitsTimeout limits the questions whether callbacks wait, which delays each forwarded
// callback of an ordered backend, and whether one is being attempted.
const waitsTimeout = 250 * time.Millisecond

// Waits implements [caddymodule.Deliveries]. If the store does not answer, nothing can be
// stored behind them anyway.
func (s *Service) Waits(ctx context.Context, g *caddymodule.Guard, conversation string) bool {
	ctx, cancel := context.WithTimeout(ctx, waitsTimeout)
	defer cancel()
	waits, err := s.Outbox().Waits(ctx, outbox.Queue{Guard: g.Name}, callback.Printable(conversation))
	return err == nil && waits
}

// Attempts implements [caddymodule.Deliveries]. If the store is too slow to tell, the sender of
// the delivery has to try it again. If it does not work, the callback cannot be a duplicate.
func (s *Service) Attempts(ctx context.Context, g *caddymodule.Guard, consumer, eventID string) bool {
	if !s.IsOpen() {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, waitsTimeout)
	defer cancel()
	attempts, err := s.Outbox().Attempts(ctx, outbox.Queue{Guard: g.Name, Consumer: consumer}, eventID)
	return attempts || errors.Is(err, context.DeadlineExceeded)
}
