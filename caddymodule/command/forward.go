// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package command

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/timguard/timguard/caddymodule"
	"github.com/timguard/timguard/caddymodule/callback"
)

const (
	// forwardLag is how many calls may wait to be forwarded.
	forwardLag = 1000

	// forwardTimeout leaves time for a look around in a debugger.
	forwardTimeout = time.Minute

	// forwardMark is a parameter of forwarded callbacks, by which they are told if they come
	// by a guard that is watched as well. They would go round for ever.
	forwardMark = "tim-callback-tail=1"
)

// forwarder posts accepted callbacks to a URL, one after the other.
type forwarder struct {
	url      *url.URL
	token    string // "" to leave them unsigned
	client   http.Client
	queue    chan caddymodule.Call
	dropped  atomic.Int64 // because the queue was full; since it was last said
	bodiless int          // earlier calls, whose bodies are not remembered; since it was last said
}

// forwarded is the answer to a forwarded call, as printed with --json.
type forwarded struct {
	ID     uint64  `json:"forwarded"`
	Status int     `json:"status,omitempty"`
	Answer string  `json:"answer,omitempty"` // its ActionStatus
	Millis float64 `json:"milliseconds,omitempty"`
	Error  string  `json:"error,omitempty"`

	call caddymodule.Call
}

func newForwarder(target string, token *tokenFlag, insecure bool) (*forwarder, error) {
	u, err := parseURL(target)
	if err != nil {
		return nil, fmt.Errorf("--forward-to: %w", err)
	}
	f := &forwarder{url: u, queue: make(chan caddymodule.Call, forwardLag)}
	if f.token, err = token.resolve(); err != nil {
		return nil, err
	}
	f.client.Transport, f.client.CheckRedirect, f.client.Timeout = transport(1, insecure), noRedirect, forwardTimeout
	return f, nil
}

// offer takes a call that was accepted, unless too many wait already. It never waits.
func (f *forwarder) offer(c caddymodule.Call) {
	switch {
	case c.Values["reason"] != "" || c.Values["action"] == "console_check" || strings.Contains(c.Query, forwardMark):
	case c.Body == "":
		f.bodiless++
	default:
		select {
		case f.queue <- c:
		default:
			f.dropped.Add(1)
		}
	}
}

// run forwards what is offered until the context is done.
func (f *forwarder) run(ctx context.Context, done func(forwarded)) {
	for {
		select {
		case c := <-f.queue:
			result := f.forward(ctx, c)
			if ctx.Err() == nil {
				done(result)
			}
		case <-ctx.Done():
			return
		}
	}
}

func (f *forwarder) forward(ctx context.Context, c caddymodule.Call) forwarded {
	result := forwarded{ID: c.ID, call: c}
	answer, err := post(ctx, &f.client, f.target(c.Query, time.Now()), []byte(c.Body))
	if err != nil {
		result.Error = err.Error()
		return result
	}
	var a callback.Answer
	_ = json.Unmarshal(answer.Answer, &a)
	result.Status, result.Millis, result.Answer = answer.Status, answer.Millis, callback.Printable(a.ActionStatus)
	return result
}

// target returns the URL with the parameters of a call, signed afresh.
func (f *forwarder) target(query string, now time.Time) string {
	u := *f.url
	parts := []string{query, forwardMark}
	if u.RawQuery != "" {
		parts = append([]string{u.RawQuery}, parts...)
	}
	if f.token != "" {
		requestTime := strconv.FormatInt(now.Unix(), 10)
		parts = append(parts, "RequestTime="+requestTime, "Sign="+callback.Sign(f.token, requestTime))
	}
	u.RawQuery = strings.Join(parts, "&")
	return u.String()
}

// printForwarded prints the answer to a forwarded call, and how many were dropped before.
func (t *tailer) printForwarded(f forwarded) {
	if t.admin.asJSON {
		if line, err := json.Marshal(f); err == nil {
			t.println(string(line))
		}
	} else {
		v := f.call.Values
		what, detail := strings.TrimSpace(fmt.Sprintf("-> %d %s", f.Status, f.Answer)), ""
		if f.Error != "" {
			what, detail = "-> no answer", "  "+f.Error
		}
		t.println(columns(time.Now(), what, v, f.Millis) + detail)
	}
	if n := t.to.dropped.Swap(0); n > 0 {
		t.note("%d not forwarded: the URL is slower than callbacks come", n)
	}
}

// noteBodiless says how many earlier calls were not forwarded.
func (t *tailer) noteBodiless() {
	if t.to != nil && t.to.bodiless > 0 {
		t.note("%d not forwarded: %s came before, and no bodies are remembered", t.to.bodiless, plural(t.to.bodiless, "it", "they"))
		t.to.bodiless = 0
	}
}
