// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/timguard/timguard/caddymodule"
	"github.com/timguard/timguard/caddymodule/callback"
	"github.com/timguard/timguard/caddymodule/outbox"
)

// Store implements [caddymodule.Deliveries]. It waits until the store is open, because
// the HTTP app may start earlier.
func (s *Service) Store(ctx context.Context, c *caddymodule.StoredCallback) error {
	select {
	case <-s.started:
	case <-ctx.Done():
		return ctx.Err()
	}
	start := time.Now()
	_, err := s.outbox.Put(ctx, s.MaxAttempts, rowsOf(c)...)
	storeSeconds.Observe(time.Since(start).Seconds())
	s.noteStored(err)
	return err
}

// rowsOf returns the rows to store: one for the guard's own backend, if requested, and one
// for each consumer.
func rowsOf(c *caddymodule.StoredCallback) []*outbox.Callback {
	consumers := c.Consumers
	if c.Own {
		consumers = append([]string{""}, consumers...)
	}
	row := rowOf(c)
	var rows []*outbox.Callback
	for _, consumer := range consumers {
		copied := row
		copied.Consumer = consumer
		copied.Key = contentKey(c, row.Host, pathOf(row.URI), consumer)
		rows = append(rows, &copied)
	}
	return rows
}

// rowOf returns the row for a callback, with everything that is needed to replay the
// request, except credentials.
func rowOf(c *caddymodule.StoredCallback) outbox.Callback {
	r := c.Request
	original := *r
	if o, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request); ok {
		original = o
	}
	target := *original.URL
	target.RawQuery = escaped(caddymodule.WithoutAuth(target.RawQuery))
	header := storable(c.Header)
	server, _ := r.Context().Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	row := outbox.Callback{
		Command: callback.Printable(c.Event.Command), SdkAppID: c.SdkAppID, GroupID: callback.Printable(c.Event.GroupID), MsgSeqs: c.Event.MsgSeqs,
		Guard: c.Guard, Signed: c.Signed, Received: c.Received.UTC(),
		Method: r.Method, Host: r.Host, URI: target.RequestURI(), Proto: r.Proto, TLS: r.TLS != nil,
		RemoteAddr: r.RemoteAddr, Header: header, Body: string(c.Body),
	}
	if server != nil {
		row.Server = server.Name()
	}
	return row
}

// unstored are the headers that are not stored, because they are secrets, belong to the
// connection, or are set by each delivery.
var unstored = []string{
	"Authorization", "Cookie", "Proxy-Authorization", "Tim-Delivery-Attempt", "Tim-Delivery-Consumer",
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

func pathOf(uri string) string {
	path, _, _ := strings.Cut(uri, "?")
	return path
}

// contentKey returns the key for deduplication, which includes the event, the host, the
// path and the consumer. It is empty if nothing in the payload distinguishes the event from
// a later one.
func contentKey(c *caddymodule.StoredCallback, host, path, consumer string) string {
	if c.RandomID {
		return ""
	}
	sum := sha256.Sum256([]byte(strings.Join([]string{c.EventID, strings.ToLower(host), path, consumer}, "\n")))
	return hex.EncodeToString(sum[:])
}
