// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"

	"github.com/timguard/timguard/caddymodule/outbox"
)

func init() {
	caddy.RegisterModule(adminDeliveries{})
}

// adminDeliveries is a module that provides the /tim_callback/ endpoints for
// the Caddy admin API:
//
//	GET    /tim_callback/status                  counts by state and the oldest age
//	GET    /tim_callback/deliveries              the newest; ?state=, ?before=<id>, ?limit=
//	GET    /tim_callback/deliveries/{id}         one, with its body and failed attempts
//	POST   /tim_callback/deliveries/{id}/retry   makes it due at once
//	DELETE /tim_callback/deliveries/{id}         gives it up; it stays listed as discarded,
//	                                             or is deleted if it was dead
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

// serve finds the endpoint. The standard library's patterns cannot be used: the
// admin API matches the path before it calls.
func (a adminDeliveries) serve(w http.ResponseWriter, r *http.Request) error {
	d := runningDelivery()
	if d == nil {
		return caddy.APIError{HTTPStatus: http.StatusNotFound, Err: errors.New("no tim_callback of the running configuration stores deliveries")}
	}
	path := strings.Split(strings.Trim(strings.TrimPrefix(r.URL.Path, "/tim_callback/"), "/"), "/")
	switch {
	case len(path) == 1 && path[0] == "status":
		return only(http.MethodGet, r, func() error { return d.serveStatus(w, r) })
	case len(path) == 1 && path[0] == "deliveries":
		return only(http.MethodGet, r, func() error { return d.serveList(w, r) })
	case len(path) == 2 && path[0] == "deliveries" && r.Method == http.MethodGet:
		return serveOne(w, r, path[1], d.outbox.Get)
	case len(path) == 2 && path[0] == "deliveries":
		return only(http.MethodDelete, r, func() error { return serveOne(w, r, path[1], d.outbox.Discard) })
	case len(path) == 3 && path[0] == "deliveries" && path[2] == "retry":
		return only(http.MethodPost, r, func() error { return serveOne(w, r, path[1], d.outbox.Retry) })
	}
	return caddy.APIError{HTTPStatus: http.StatusNotFound, Err: errors.New("want /tim_callback/status or /tim_callback/deliveries")}
}

func only(method string, r *http.Request, serve func() error) error {
	if r.Method != method {
		return caddy.APIError{HTTPStatus: http.StatusMethodNotAllowed, Err: fmt.Errorf("method not allowed: want %s", method)}
	}
	return serve()
}

// deliveryStatus is what /tim_callback/status answers.
type deliveryStatus struct {
	Store            string               `json:"store"`
	Guards           []string             `json:"guards"`
	Deliveries       map[outbox.State]int `json:"deliveries"`
	OldestAgeSeconds float64              `json:"oldest_delivery_age_seconds"`
}

func (d *Delivery) serveStatus(w http.ResponseWriter, r *http.Request) error {
	stats, err := d.outbox.Stats(r.Context())
	if err != nil {
		return storeError(err)
	}
	status := deliveryStatus{Store: d.Store.Driver, Guards: []string{}, Deliveries: stats.Count, OldestAgeSeconds: stats.OldestAge.Seconds()}
	for name := range d.guards {
		status.Guards = append(status.Guards, name)
	}
	slices.Sort(status.Guards)
	return writeJSON(w, status)
}

func (d *Delivery) serveList(w http.ResponseWriter, r *http.Request) error {
	query := r.URL.Query()
	filter := outbox.Filter{State: outbox.State(query.Get("state"))}
	if filter.State != "" && !slices.Contains(outbox.States(), filter.State) {
		return badRequest("state: want one of %v", outbox.States())
	}
	var err error
	if text := query.Get("before"); text != "" {
		if filter.Before, err = strconv.ParseInt(text, 10, 64); err != nil || filter.Before < 1 {
			return badRequest("before: want the id of a delivery")
		}
	}
	if text := query.Get("limit"); text != "" {
		if filter.Limit, err = strconv.Atoi(text); err != nil || filter.Limit < 1 || filter.Limit > 1000 {
			return badRequest("limit: want a number from 1 to 1000")
		}
	}
	items, err := d.outbox.List(r.Context(), filter)
	if err != nil {
		return storeError(err)
	}
	if items == nil {
		items = []outbox.Item{} // an empty list in JSON, not null
	}
	return writeJSON(w, items)
}

// serveOne does something with the delivery of the id and answers it.
func serveOne(w http.ResponseWriter, r *http.Request, id string, do func(ctx context.Context, id int64) (outbox.Item, error)) error {
	n, err := strconv.ParseInt(id, 10, 64)
	if err != nil {
		return badRequest("%q is not the id of a delivery", id)
	}
	item, err := do(r.Context(), n)
	if err != nil {
		return storeError(err)
	}
	return writeJSON(w, item)
}

func badRequest(format string, args ...any) error {
	return caddy.APIError{HTTPStatus: http.StatusBadRequest, Err: fmt.Errorf(format, args...)}
}

func storeError(err error) error {
	status := http.StatusServiceUnavailable
	switch {
	case errors.Is(err, outbox.ErrNotFound):
		status = http.StatusNotFound
	case errors.Is(err, outbox.ErrState):
		status = http.StatusConflict
	}
	return caddy.APIError{HTTPStatus: status, Err: err}
}

func writeJSON(w http.ResponseWriter, value any) error {
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(value)
}

// Interface guards
var _ caddy.AdminRouter = (*adminDeliveries)(nil)
