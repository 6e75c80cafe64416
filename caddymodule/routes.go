// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/timguard/timguard/caddymodule/callback"
	"github.com/timguard/timguard/caddymodule/internal/name"
	"github.com/timguard/timguard/caddymodule/internal/option"
)

// Backend is where callbacks go: handlers that the guard runs itself, and the options of the
// queue of callbacks that are stored for them.
type Backend struct {
	QueueOptions

	// The handlers, which are run with each callback. They do not fall through to the
	// site: a callback that none of them answers is answered 502, and is not accepted. When a
	// stored callback is delivered, the site's `root` is set, but no other variable, `map` or
	// capture of a regular expression: set what the handlers need in the block.
	Routes caddyhttp.RouteList `json:"routes,omitempty"`

	handler caddyhttp.Handler // the compiled Routes
	accepts callback.Acceptance
}

// Consumer is a service that gets copies of callbacks.
type Consumer struct {
	// The name of the consumer in rules and stored callbacks, with the same syntax as
	// the name of a guard.
	Name string `json:"name,omitempty"`

	Backend
}

// QueueOptions says how stored callbacks are delivered.
type QueueOptions struct {
	// Which answers accept a callback. A 2xx status is required in each case. What is
	// not accepted is delivered again. With `fallback deliver`, it also judges the answers
	// to what is forwarded: what is not accepted is stored.
	//
	// - `sound` takes JSON that does not say `"ActionStatus":"FAIL"`, an empty body, or a
	//   plain word such as `ok` or `success`. It does not take `false`, a word that means a
	//   failure such as `error` or `busy`, HTML, JSON that is cut off or that has a name
	//   twice, another charset than UTF-8, and what cannot be unpacked.
	// - `answer` takes only a JSON object that does not say FAIL, as Tencent asks for.
	// - `2xx` takes everything.
	// - A JSON pointer, such as `/code`, takes JSON that has one of `accept_values` there.
	//
	// Default: `sound`.
	Accept string `json:"accept,omitempty"`

	// The accepted values if `accept` is a JSON pointer: strings, or the text of numbers,
	// `true`, `false` or `null`.
	AcceptValues []string `json:"accept_values,omitempty"`

	// Whether the callbacks of a conversation are delivered one at a time, in the order in
	// which they were stored: an attempt only begins when no earlier callback of the
	// conversation waits. Callbacks without a conversation are not ordered.
	//
	// While callbacks of a conversation wait for the backend, `fallback deliver` stores
	// later ones behind them instead of forwarding them. Callbacks that are forwarded at
	// the same time are not ordered; use `deliver` where the order matters more than a
	// quick delivery.
	Ordered bool `json:"ordered,omitempty"`

	// The maximum number of attempts per second on this instance of Caddy. Default: no
	// maximum.
	Rate float64 `json:"rate,omitempty"`

	// The maximum number of concurrent attempts. Default: that of `tim_delivery`.
	Workers int `json:"workers,omitempty"`

	// The timeout of an attempt. Default: that of `tim_delivery`.
	Timeout caddy.Duration `json:"timeout,omitempty"`

	// The maximum number of attempts for each callback. Default: that of `tim_delivery`.
	MaxAttempts int `json:"max_attempts,omitempty"`
}

// attempts returns the options that tim_delivery has as well.
func (q *QueueOptions) attempts() option.Attempts {
	return option.Attempts{Workers: &q.Workers, Timeout: &q.Timeout, MaxAttempts: &q.MaxAttempts}
}

// check rejects invalid settings.
func (q *QueueOptions) check() error {
	if q.Rate < 0 {
		return errors.New("rate must be positive")
	}
	if _, err := q.acceptance(); err != nil {
		return err
	}
	return q.attempts().Check()
}

func (q *QueueOptions) acceptance() (callback.Acceptance, error) {
	return callback.NewAcceptance(cmp.Or(q.Accept, callback.AcceptSound), q.AcceptValues...)
}

// checkRoutes rejects invalid routes, and rules without the routes that they need.
func (h *Handler) checkRoutes() error {
	if h.Backend != nil {
		if err := h.Backend.checkRoute(); err != nil {
			return fmt.Errorf("backend: %w", err)
		}
	}
	for i, c := range h.Consumers {
		if err := c.checkName(h.Consumers[:i]); err != nil {
			return err
		}
		if err := c.checkRoute(); err != nil {
			return fmt.Errorf("consumer %s: %w", c.Name, err)
		}
	}
	for _, rule := range h.Rules {
		if err := h.checkRoutesOf(rule); err != nil {
			return err
		}
	}
	return nil
}

// checkName rejects an invalid name. earlier are the consumers before this one.
func (c Consumer) checkName(earlier []Consumer) error {
	if strings.ContainsAny(c.Name, ":/.") {
		return fmt.Errorf("consumer %s: want <name> and then its upstreams, such as consumer archive %s", c.Name, c.Name)
	}
	if err := name.Check(c.Name); err != nil {
		return fmt.Errorf("consumer: %w", err)
	}
	if slices.ContainsFunc(earlier, func(e Consumer) bool { return e.Name == c.Name }) {
		return fmt.Errorf("consumer %s is given twice: write all its upstreams in one", c.Name)
	}
	return nil
}

func (b *Backend) checkRoute() error {
	if len(b.Routes) == 0 {
		return errNoHandler
	}
	return b.check()
}

var errNoHandler = errors.New("no handler: write the address of an upstream, or handlers such as reverse_proxy in its block")

// checkRoutesOf rejects a rule that stores callbacks for which there is no route. The error
// shows the block to write.
func (h *Handler) checkRoutesOf(rule Rule) error {
	if rule.storesForBackend() && h.Backend == nil {
		//nolint:staticcheck // the position follows in a line of its own
		return fmt.Errorf("on %s … %s needs a backend block, which says where stored callbacks go:\n\n\tbackend 10.0.0.5:9000\n\n"+
			"or, with any handlers,\n\n\tbackend {\n\t\treverse_proxy 10.0.0.5:9000\n\t}\n", rule.Commands[0], rule.what())
	}
	for _, consumer := range rule.Copy {
		if !slices.ContainsFunc(h.Consumers, func(c Consumer) bool { return c.Name == consumer }) {
			//nolint:staticcheck // the position follows in a line of its own
			return fmt.Errorf("copy %s needs a consumer block, which says where its copies go:\n\n\tconsumer %s 10.0.0.6:9000\n\n"+
				"or, with any handlers,\n\n\tconsumer %s {\n\t\treverse_proxy 10.0.0.6:9000\n\t}\n", consumer, consumer, consumer)
		}
	}
	return nil
}

// provisionRoutes sets up the handlers of the backend and the consumers.
func (h *Handler) provisionRoutes(ctx caddy.Context) error {
	if h.Backend != nil {
		if err := h.Backend.provision(ctx); err != nil {
			return fmt.Errorf("backend: %w", err)
		}
	}
	for i := range h.Consumers {
		c := &h.Consumers[i]
		if err := c.provision(ctx); err != nil {
			return fmt.Errorf("consumer %s: %w", c.Name, err)
		}
	}
	return nil
}

func (b *Backend) provision(ctx caddy.Context) (err error) {
	if b.accepts, err = b.acceptance(); err != nil {
		return err
	}
	if err := b.Routes.Provision(ctx); err != nil {
		return err
	}
	b.handler = b.Routes.Compile(unanswered)
	return nil
}

// ErrUnanswered is the error of a callback that no handler of a block answers.
var ErrUnanswered = errors.New("no handler in the block answered")

// unanswered is run if no handler of a block answers.
var unanswered caddyhttp.Handler = caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error {
	return caddyhttp.Error(http.StatusBadGateway, ErrUnanswered)
})

// CheckAnswer returns an error unless the answer accepts a callback.
func (b *Backend) CheckAnswer(answer callback.BackendAnswer) error { return b.accepts.Check(answer) }

// routes returns the routes by the names of their consumers, and "" for the backend.
func (h *Handler) routes() map[string]*Backend {
	routes := make(map[string]*Backend)
	if h.Backend != nil {
		routes[""] = h.Backend
	}
	for i := range h.Consumers {
		routes[h.Consumers[i].Name] = &h.Consumers[i].Backend
	}
	return routes
}

// queueOptions are the names of the options in a block.
var queueOptions = []string{"accept", "ordered", "rate", "workers", "timeout", "max_attempts"}

// unmarshalOption parses an option of the queue. It returns false if the dispenser is at
// something else, which is a handler directive or a matcher.
func (q *QueueOptions) unmarshalOption(d *caddyfile.Dispenser) (known bool, err error) {
	switch d.Val() {
	case "accept":
		args := d.RemainingArgs()
		if len(args) == 0 {
			return true, d.Errf("accept: want sound, answer, 2xx, or a JSON pointer and its values")
		}
		q.Accept, q.AcceptValues = args[0], args[1:]
		if _, err := q.acceptance(); err != nil {
			return true, d.Err(err.Error())
		}
		return true, nil
	case "ordered":
		return true, option.Flag(d, &q.Ordered)
	case "rate":
		return true, q.unmarshalRate(d)
	}
	return q.attempts().Unmarshal(d)
}

func (q *QueueOptions) unmarshalRate(d *caddyfile.Dispenser) (err error) {
	var text string
	if !d.AllArgs(&text) {
		return d.Errf("rate: want <n>/s, such as 50/s")
	}
	number, perSecond := strings.CutSuffix(text, "/s")
	if q.Rate, err = strconv.ParseFloat(number, 64); err != nil || !perSecond || !(q.Rate > 0 && q.Rate <= 1e6) {
		return d.Errf("rate %q: want <n>/s, such as 50/s", text)
	}
	return nil
}
