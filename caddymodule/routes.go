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
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
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
	// not accepted is delivered again.
	//
	// - `sound` takes JSON that does not say `"ActionStatus":"FAIL"`, nothing, or a plain
	//   word such as `ok` or `success`. It does not take HTML, JSON that is cut off or
	//   that has a name twice, another charset than UTF-8, and what cannot be unpacked.
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

// FinalizeUnmarshalCaddyfile parses the blocks of backend and consumers, which need the
// helper for the directives in them. It must be called after UnmarshalCaddyfile.
func (h *Handler) FinalizeUnmarshalCaddyfile(helper httpcaddyfile.Helper) error {
	for _, d := range h.blocks {
		d.Next() // consume backend or consumer
		word := d.Token()
		if word.Quoted() {
			return d.Errf("%s: write it without quotes", word.Text)
		}
		if word.Text == "backend" {
			if h.Backend != nil {
				return d.Errf("backend is given twice: write all its upstreams in one")
			}
			h.Backend = new(Backend)
			if err := h.Backend.unmarshal(helper, d, word); err != nil {
				return err
			}
			continue
		}
		if !d.NextArg() {
			return d.Errf("consumer: want <name> <upstream>..., or <name> and a block")
		}
		c := Consumer{Name: d.Val()}
		if err := c.checkName(h.Consumers); err != nil {
			return d.Err(err.Error())
		}
		if err := c.unmarshal(helper, d, word); err != nil {
			return err
		}
		h.Consumers = append(h.Consumers, c)
	}
	h.blocks = nil
	return nil
}

// unmarshal parses the upstreams or the block after the name. word is the token of backend
// or consumer.
func (b *Backend) unmarshal(helper httpcaddyfile.Helper, d *caddyfile.Dispenser, word caddyfile.Token) error {
	handlers, err := asReverseProxy(d, word)
	if err != nil {
		return err
	}
	short := len(handlers) > 0
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		if short {
			return d.Errf("write either upstreams or a block with reverse_proxy, not both")
		}
		known, err := b.unmarshalOption(d)
		if err != nil {
			return err
		}
		if !known {
			handlers = append(handlers, d.NextSegment()...)
		}
	}
	if len(handlers) == 0 {
		return d.Err(errNoHandler.Error())
	}
	end := d.Line()
	if short {
		end++
	}
	block := slices.Concat(caddyfile.Segment{word, structural(word, "{", word.Line)}, handlers, caddyfile.Segment{structural(word, "}", end)})
	parsed, err := httpcaddyfile.ParseSegmentAsSubroute(helper.WithDispenser(caddyfile.NewDispenser(block)))
	if err != nil {
		return err
	}
	subroute, ok := parsed.(*caddyhttp.Subroute)
	if !ok {
		return d.Errf("the block was not parsed as routes, but as a %T", parsed)
	}
	b.Routes = subroute.Routes
	return nil
}

// asReverseProxy parses upstreams, and returns the directive that they are short for.
func asReverseProxy(d *caddyfile.Dispenser, word caddyfile.Token) (caddyfile.Segment, error) {
	var directive caddyfile.Segment
	for d.NextArg() {
		if slices.Contains(queueOptions, d.Val()) {
			return nil, d.Errf("%s belongs in a block: write %s { %s … } with reverse_proxy and the upstreams in it", d.Val(), word.Text, d.Val())
		}
		if directive == nil {
			directive = caddyfile.Segment{structural(word, "reverse_proxy", d.Line())}
		}
		directive = append(directive, d.Token())
	}
	return directive, nil
}

// structural returns a token that is written nowhere. It is a copy of another one, because a
// token from an imported snippet is only on the same line as others from there.
func structural(like caddyfile.Token, text string, line int) caddyfile.Token {
	like.Text, like.Line = text, line
	return like
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
