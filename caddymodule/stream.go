// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
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

// writeTimeout is how long a client may take to read what is written. It is longer than the
// time between heartbeats, since over HTTP/2 it also ends a stream to which nothing is written.
var writeTimeout = 2 * heartbeat

// StreamCalls answers with calls as they come, as server-sent events, until the client or
// the server leaves, or the context of the request is done. Each event is a [Call] in JSON.
// A client that does not read fast enough gets the event "slow" as the last one. One that
// connects again, with the header Last-Event-ID, gets what it missed, if it is still
// remembered. A client that does not read at all holds up the server for 30 seconds at most.
func StreamCalls(w http.ResponseWriter, r *http.Request, o StreamOptions) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	if server, ok := ctx.Value(http.ServerContextKey).(*http.Server); ok { // not over HTTP/3
		defer context.AfterFunc(stoppingOf(server), cancel)() //nolint:contextcheck // it is the server's, not the request's
	}
	watching := watch(o.Filter, o.Bodies) // before the earlier calls are read, so that none is missed
	defer watching.close()
	s := &stream{w: w, control: http.NewResponseController(w), sent: make(map[uint64]bool)}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	if seen, err := strconv.ParseUint(r.Header.Get("Last-Event-ID"), 10, 64); err == nil {
		o.Last, s.seen = MaxCalls, seen
	}
	for _, c := range LastCalls(o.Filter, o.Last) {
		s.sent[c.ID] = true
		if s.send(c) != nil || ctx.Err() != nil {
			return
		}
	}
	s.follow(ctx, watching)
}

// stopping holds, for each [http.Server] that has had a stream, a context that is done when it
// begins to shut down. A function that is registered with a server cannot be removed, so there
// is one for all of its streams.
var stopping sync.Map

func stoppingOf(server *http.Server) context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	if known, loaded := stopping.LoadOrStore(server, ctx); loaded {
		cancel()
		return known.(context.Context)
	}
	server.RegisterOnShutdown(func() {
		stopping.Delete(server)
		cancel()
	})
	return ctx
}

// stream writes events. An error of a method means that the client has left.
type stream struct {
	w       http.ResponseWriter
	control *http.ResponseController
	seen    uint64          // the last ID that the client had before
	sent    map[uint64]bool // earlier calls, which the watcher may get as well
}

// follow sends calls as they come.
func (s *stream) follow(ctx context.Context, watching *watcher) {
	if s.write(": watching\n\n") != nil || s.control.Flush() != nil {
		return
	}
	alive := time.NewTicker(heartbeat)
	defer alive.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return
		case <-alive.C:
			err = s.write(": alive\n\n")
		case c, ok := <-watching.calls:
			if !ok {
				_ = s.write("event: slow\ndata: {}\n\n")
				return
			}
			if !s.sent[c.ID] {
				err = s.send(c)
			}
		}
		if err != nil || len(watching.calls) == 0 && s.control.Flush() != nil {
			return
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
	return s.write(fmt.Sprintf("id: %d\ndata: %s\n\n", c.ID, text))
}

// write writes text in a limited time. Without a limit, a client that does not read would keep
// it from ending when the context does.
func (s *stream) write(text string) error {
	if err := s.control.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	_, err := io.WriteString(s.w, text)
	return err
}
