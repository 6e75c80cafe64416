// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"

	"github.com/timguard/timguard/caddymodule"
	"github.com/timguard/timguard/caddymodule/outbox"
)

func init() {
	caddy.RegisterModule(adminDeliveries{})
}

// adminDeliveries is a module that provides the /tim_callback/ endpoints for the Caddy
// admin API:
//
//	GET    /tim_callback/status                  the guards, the store and the queues
//	GET    /tim_callback/calls                   calls as they come, as server-sent events
//	GET    /tim_callback/deliveries              lists the newest, without their bodies
//	POST   /tim_callback/deliveries/retry        retries all that match the filters
//	DELETE /tim_callback/deliveries              discards all that match the filters
//	GET    /tim_callback/deliveries/{id}         shows one, with its body and failed attempts
//	POST   /tim_callback/deliveries/{id}/retry   makes one due immediately, with all attempts
//	DELETE /tim_callback/deliveries/{id}         discards one; it stays listed as discarded,
//	                                             or is deleted if it was dead
//	POST   /tim_callback/queues/{guard}[/{consumer}]/pause    begins no more attempts, on all nodes
//	POST   /tim_callback/queues/{guard}[/{consumer}]/resume   ends that
//
// The filters are ?state=, ?guard=, ?consumer=, ?command=, ?conversation=,
// ?since=<duration or time>, ?before=<id> and ?limit=. The consumer - is the guard's own
// backend. Retrying and discarding several requires at least one filter.
//
// The parameters of calls are those of [caddymodule.ParseStreamOptions].
type adminDeliveries struct{}

// CaddyModule returns the Caddy module information.
func (adminDeliveries) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "admin.api.tim_callback",
		New: func() caddy.Module { return new(adminDeliveries) },
	}
}

// Routes returns the routes of the endpoints.
func (a adminDeliveries) Routes() []caddy.AdminRoute {
	return []caddy.AdminRoute{{Pattern: "/tim_callback/", Handler: caddy.AdminHandlerFunc(a.serve)}}
}

// serve routes a request to its endpoint. It cannot use the patterns of the standard
// library, because the admin API accepts only paths as patterns.
func (adminDeliveries) serve(w http.ResponseWriter, r *http.Request) error {
	path := strings.Split(strings.Trim(strings.TrimPrefix(r.URL.Path, "/tim_callback/"), "/"), "/")
	many := len(path) == 1 || len(path) == 2 && path[1] == "retry"
	switch s := running(); {
	case len(path) == 1 && path[0] == "status":
		return requireMethod(http.MethodGet, r, func() error { return writeJSON(w, s.Status(r.Context())) })
	case len(path) == 1 && path[0] == "calls":
		return requireMethod(http.MethodGet, r, func() error { return serveCalls(w, r) })
	case s == nil:
		return caddy.APIError{HTTPStatus: http.StatusNotFound, Err: errors.New("the running configuration does not store callbacks")}
	case path[0] == "deliveries" && many:
		return s.serveMany(w, r, len(path) == 2)
	case path[0] == "queues" && (len(path) == 3 || len(path) == 4):
		return requireMethod(http.MethodPost, r, func() error { return s.servePause(w, r, path[1:]) })
	case path[0] == "deliveries" && (len(path) == 2 || len(path) == 3 && path[2] == "retry"):
		return s.serveOne(w, r, path[1], len(path) == 3)
	}
	return caddy.APIError{HTTPStatus: http.StatusNotFound, Err: errors.New("want /tim_callback/status, /tim_callback/calls, /tim_callback/deliveries or /tim_callback/queues")}
}

func requireMethod(method string, r *http.Request, serve func() error) error {
	if r.Method != method {
		return notAllowed(method)
	}
	return serve()
}

func notAllowed(want string) error {
	return caddy.APIError{HTTPStatus: http.StatusMethodNotAllowed, Err: fmt.Errorf("method not allowed: want %s", want)}
}

func serveCalls(w http.ResponseWriter, r *http.Request) error {
	options, err := caddymodule.ParseStreamOptions(r.URL.RawQuery)
	if err != nil {
		return caddy.APIError{HTTPStatus: http.StatusBadRequest, Err: err}
	}
	caddymodule.StreamCalls(w, r, options)
	return nil
}

// servePause pauses or resumes a queue. The path is that of the queue, and what to do.
func (s *Service) servePause(w http.ResponseWriter, r *http.Request, path []string) error {
	q := outbox.Queue{Guard: path[0]}
	if len(path) == 3 {
		q.Consumer = path[1]
	}
	what := path[len(path)-1]
	if what != "pause" && what != "resume" {
		return caddy.APIError{HTTPStatus: http.StatusNotFound, Err: errors.New("want pause or resume at the end of the path")}
	}
	if err := s.SetPaused(r.Context(), q, what == "pause"); err != nil {
		return storeError(err)
	}
	return writeJSON(w, map[string]any{"guard": q.Guard, "consumer": q.Consumer, "paused": what == "pause"})
}

// serveMany lists, retries or discards all deliveries that match the filters.
func (s *Service) serveMany(w http.ResponseWriter, r *http.Request, retry bool) error {
	filter, err := s.ParseFilter(r.Context(), r.URL.RawQuery)
	if err != nil {
		return err
	}
	switch {
	case retry && r.Method != http.MethodPost:
		return notAllowed(http.MethodPost)
	case r.Method == http.MethodGet:
		deliveries, err := s.Outbox().List(r.Context(), filter)
		if err != nil {
			return storeError(err)
		}
		return writeJSON(w, deliveries)
	case !retry && r.Method != http.MethodDelete:
		return notAllowed("GET or DELETE")
	case filter == outbox.Filter{}:
		return badRequest("no filter: want at least one of state, guard, consumer, command, conversation, since, before and limit")
	}
	var done int
	if retry {
		done, err = s.RetryAll(r.Context(), filter)
	} else {
		done, err = s.Outbox().DiscardAll(r.Context(), filter)
	}
	if err != nil {
		return storeError(fmt.Errorf("after %d deliveries: %w", done, err))
	}
	return writeJSON(w, map[string]int{"deliveries": done})
}

// serveOne shows, retries or discards the delivery with the id.
func (s *Service) serveOne(w http.ResponseWriter, r *http.Request, id string, retry bool) error {
	n, err := strconv.ParseInt(id, 10, 64)
	if err != nil {
		return badRequest("%q is not the id of a delivery", id)
	}
	var do func(context.Context, int64) (outbox.Delivery, error)
	switch {
	case retry && r.Method == http.MethodPost:
		do = s.Retry
	case retry:
		return notAllowed(http.MethodPost)
	case r.Method == http.MethodGet:
		do = s.Get
	case r.Method == http.MethodDelete:
		do = s.Outbox().Discard
	default:
		return notAllowed("GET or DELETE")
	}
	d, err := do(r.Context(), n)
	if err != nil {
		return storeError(err)
	}
	d.Callback.Sealed = nil
	return writeJSON(w, d)
}

func badRequest(format string, args ...any) error {
	return caddy.APIError{HTTPStatus: http.StatusBadRequest, Err: fmt.Errorf(format, args...)}
}

func storeError(err error) error {
	code := http.StatusServiceUnavailable
	switch {
	case errors.Is(err, outbox.ErrNotFound), errors.Is(err, ErrNoQueue):
		code = http.StatusNotFound
	case errors.Is(err, outbox.ErrState):
		code = http.StatusConflict
	}
	return caddy.APIError{HTTPStatus: code, Err: err}
}

func writeJSON(w http.ResponseWriter, value any) error {
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(value)
}

// Interface guards
var _ caddy.AdminRouter = (*adminDeliveries)(nil)
