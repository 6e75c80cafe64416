// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/timguard/timguard/caddymodule/internal/option"
)

// heartbeat is how often a stream without calls says that it is alive.
const heartbeat = 15 * time.Second

// StreamOptions are the parameters of a stream of calls.
type StreamOptions struct {
	Filter CallFilter
	Last   int // how many earlier calls to begin with
	Bodies bool
}

// ParseStreamOptions parses a query: ?guard=, ?command=, ?reason=, ?conversation=, ?last=<n>
// and ?bodies=1.
func ParseStreamOptions(rawQuery string) (o StreamOptions, err error) {
	query, err := option.Query("parameter", rawQuery, "guard", "command", "reason", "conversation", "last", "bodies")
	if err != nil {
		return o, err
	}
	o.Filter = CallFilter{query.Get("guard"), query.Get("command"), query.Get("reason"), query.Get("conversation")}
	if text := query.Get("last"); text != "" {
		if o.Last, err = strconv.Atoi(text); err != nil || o.Last < 0 || o.Last > MaxCalls {
			return o, fmt.Errorf("last: want a number from 0 to %d", MaxCalls)
		}
	}
	switch text := query.Get("bodies"); text {
	case "", "0", "1":
		o.Bodies = text == "1"
	default:
		return o, fmt.Errorf("bodies: want 1 or 0")
	}
	return o, nil
}

// StreamCalls answers with calls as they come, as server-sent events, until the client or
// the server leaves. Each event is a [Call] in JSON. A client that does not read fast
// enough gets the event "slow" as the last one. One that connects again, with the header
// Last-Event-ID, gets what it missed, if it is still remembered.
func StreamCalls(w http.ResponseWriter, r *http.Request, o StreamOptions) error {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	// A stream would otherwise hold up a reload until the grace period ends.
	if server, ok := ctx.Value(http.ServerContextKey).(*http.Server); ok {
		server.RegisterOnShutdown(cancel)
	}
	watcher := Watch(o.Filter, o.Bodies) // before the earlier calls are read, so that none is missed
	defer watcher.Close()
	s := &stream{w: w, flush: http.NewResponseController(w).Flush, sent: make(map[uint64]bool)}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	if seen, err := strconv.ParseUint(r.Header.Get("Last-Event-ID"), 10, 64); err == nil {
		o.Last, s.seen = MaxCalls, seen
	}
	for _, c := range LastCalls(o.Filter, o.Last) {
		s.sent[c.ID] = true
		if err := s.send(c); err != nil {
			return nil // the client has left
		}
	}
	return s.follow(ctx, watcher)
}

// stream writes events.
type stream struct {
	w     http.ResponseWriter
	flush func() error
	seen  uint64          // the last ID that the client had before
	sent  map[uint64]bool // earlier calls, which the watcher may get as well
}

// follow sends what the watcher gets.
func (s *stream) follow(ctx context.Context, watcher *Watcher) error {
	if _, err := fmt.Fprint(s.w, ": watching\n\n"); err != nil || s.flush() != nil {
		return nil // the client has left
	}
	alive := time.NewTicker(heartbeat)
	defer alive.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case <-alive.C:
			_, err = fmt.Fprint(s.w, ": alive\n\n")
		case c, ok := <-watcher.Calls:
			if !ok {
				_, _ = fmt.Fprint(s.w, "event: slow\ndata: {}\n\n")
				return s.flush()
			}
			if !s.sent[c.ID] {
				err = s.send(c)
			}
		}
		if err != nil || len(watcher.Calls) == 0 && s.flush() != nil {
			return nil
		}
	}
}

// send writes a call, unless the client had it before.
func (s *stream) send(c Call) error {
	if c.ID <= s.seen {
		return nil
	}
	text, err := json.Marshal(c)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(s.w, "id: %d\ndata: %s\n\n", c.ID, text)
	return err
}
