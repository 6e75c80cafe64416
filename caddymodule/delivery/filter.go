// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/timguard/timguard/caddymodule/internal/option"
	"github.com/timguard/timguard/caddymodule/outbox"
)

// ParseFilter parses the filters in the query. An error is a [caddy.APIError] that says what
// is wrong, or that the store failed.
func (s *Service) ParseFilter(ctx context.Context, rawQuery string) (outbox.Filter, error) {
	filter, err := parseFilter(rawQuery)
	if err == nil {
		err = s.checkFilter(ctx, filter)
	}
	return filter, err
}

// parseFilter parses the filters in the query.
func parseFilter(rawQuery string) (f outbox.Filter, err error) {
	query, err := option.Query("filter", rawQuery, "state", "guard", "consumer", "command", "conversation", "since", "before", "limit")
	if err != nil {
		return f, badRequest("%w", err)
	}
	for name, values := range query {
		if values[0] == "" {
			return f, badRequest("the filter %s is empty: give it a value, or leave it out", name)
		}
	}
	f = outbox.Filter{
		State: outbox.State(query.Get("state")), Guard: query.Get("guard"), Consumer: query.Get("consumer"), Command: query.Get("command"),
		Conversation: query.Get("conversation"),
	}
	if f.State != "" && !slices.Contains(outbox.States(), f.State) {
		return f, badRequest("state: want one of %v", outbox.States())
	}
	if text := query.Get("since"); text != "" {
		if f.Since, err = parseSince(text); err != nil {
			return f, badRequest("since: want a duration such as 2h, or a time such as %s", time.Now().Format(time.RFC3339))
		}
	}
	if text := query.Get("before"); text != "" {
		if f.Before, err = strconv.ParseInt(text, 10, 64); err != nil || f.Before < 1 {
			return f, badRequest("before: want the id of a delivery")
		}
	}
	if text := query.Get("limit"); text != "" {
		if f.Limit, err = strconv.Atoi(text); err != nil || f.Limit < 1 || f.Limit > 1000 {
			return f, badRequest("limit: want a number from 1 to 1000")
		}
	}
	return f, nil
}

// checkFilter rejects names of guards and consumers that neither the configuration nor the
// store has.
func (s *Service) checkFilter(ctx context.Context, f outbox.Filter) error {
	if f.Guard == "" && f.Consumer == "" || slices.ContainsFunc(s.Queues(), f.Names) {
		return nil
	}
	known, err := s.knownQueues(ctx)
	if err != nil {
		return storeError(err)
	}
	if slices.ContainsFunc(known, f.Names) {
		return nil
	}
	return badRequest("no queue of guard %q and consumer %q; the queues are: %s", f.Guard, f.Consumer, queueNames(known))
}

// knownQueues returns the queues that the configuration or the store has, which may repeat.
func (s *Service) knownQueues(ctx context.Context) ([]outbox.Queue, error) {
	counts, err := s.Outbox().Counts(ctx)
	queues := s.Queues()
	for _, c := range counts {
		queues = append(queues, c.Queue)
	}
	return queues, err
}

// queueNames returns the names of queues as the command line has them.
func queueNames(queues []outbox.Queue) string {
	names := make(map[string]bool)
	for _, q := range queues {
		names[q.Guard+strings.TrimSuffix("/"+q.Consumer, "/")] = true
	}
	return cmp.Or(strings.Join(slices.Sorted(maps.Keys(names)), ", "), "none")
}

// parseSince parses a duration before now, or a time.
func parseSince(text string) (time.Time, error) {
	if ago, err := caddy.ParseDuration(text); err == nil {
		return time.Now().Add(-ago), nil
	}
	return time.Parse(time.RFC3339, text)
}
