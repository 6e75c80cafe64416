// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/timguard/timguard/caddymodule"
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
	target.RawQuery = caddymodule.WithoutAuth(target.RawQuery)
	header := c.Header.Clone()
	for _, name := range unstored {
		header.Del(name)
	}
	server, _ := r.Context().Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	row := outbox.Callback{
		Command: c.Event.Command, SdkAppID: c.SdkAppID, GroupID: c.Event.GroupID, MsgSeqs: c.Event.MsgSeqs,
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

func pathOf(uri string) string {
	path, _, _ := strings.Cut(uri, "?")
	return path
}

// contentKey returns the key for deduplication, which includes the app, the host, the path
// and the consumer. It is empty if nothing in the payload distinguishes the event from a
// later one.
func contentKey(c *caddymodule.StoredCallback, host, path, consumer string) string {
	content := c.Event.ContentKey()
	if content == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(strings.Join([]string{c.SdkAppID, strings.ToLower(host), path, content, consumer}, "\n")))
	return hex.EncodeToString(sum[:])
}
