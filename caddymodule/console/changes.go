// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package console

import (
	"net/http"
	"net/url"
	"strconv"

	"go.uber.org/zap"

	"github.com/timguard/timguard/caddymodule/outbox"
)

// What can be changed. The names are parts of addresses.
const (
	retry   = "retry"
	discard = "discard"
	pause   = "pause"
	resume  = "resume"
)

// confirm is what the page asks before a change.
type confirm struct {
	Change string
	Query  url.Values       // the filters, of a change of many
	N      int              // how many they select
	One    *outbox.Delivery // of a change of one
	Action string           // where to send the answer
	Back   string
}

// change refuses what cannot be changed.
func (c *Console) change(do func(*reply)) func(*reply) {
	return func(p *reply) {
		switch {
		case c.ReadOnly:
			p.fail(http.StatusForbidden, "error.readonly")
		case c.stored() == nil:
			p.fail(http.StatusNotFound, "error.nothing")
		default:
			do(p)
		}
	}
}

func (c *Console) confirmOne(change string) func(*reply) {
	return c.change(func(p *reply) {
		d, ok := p.delivery()
		if !ok {
			return
		}
		here := "/deliveries/" + strconv.FormatInt(d.ID, 10)
		p.show(http.StatusOK, "confirm", page{Section: "deliveries", Title: p.lang.t("confirm." + change), Data: confirm{
			Change: change, One: &d, N: 1, Action: p.base + here + "/" + change, Back: p.base + here,
		}})
	})
}

func (c *Console) changeOne(change string) func(*reply) {
	return func(p *reply) {
		d, ok := p.delivery()
		if !ok {
			return
		}
		var changed outbox.Delivery
		var err error
		if change == retry {
			changed, err = c.stored().Retry(p.r.Context(), d.ID)
		} else {
			changed, err = c.stored().Outbox().Discard(p.r.Context(), d.ID)
		}
		if err != nil {
			p.failWith(err)
			return
		}
		p.log("delivery "+pastOf[change], changed)
		done := url.Values{"done": {change}}
		if change == discard && d.State == outbox.Dead { // it is no longer there
			p.redirect("/deliveries", done)
			return
		}
		p.redirect("/deliveries/"+strconv.FormatInt(d.ID, 10), done)
	}
}

// pastOf are the words of log lines.
var pastOf = map[string]string{retry: "retried", discard: "discarded", pause: "paused", resume: "resumed"}

// many returns the filter of a change of many deliveries.
func (p *reply) many() (f outbox.Filter, query url.Values, ok bool) {
	query = p.filters()
	query.Del("before")
	if len(query) == 0 {
		p.fail(http.StatusBadRequest, "error.nofilter")
		return f, query, false
	}
	ctx, cancel := p.context()
	defer cancel()
	f, err := p.c.stored().ParseFilter(ctx, query.Encode())
	if err != nil {
		p.failWith(err)
		return f, query, false
	}
	return f, query, true
}

func (c *Console) confirmMany(change string) func(*reply) {
	return c.change(func(p *reply) {
		f, query, ok := p.many()
		if !ok {
			return
		}
		ctx, cancel := p.context()
		defer cancel()
		n, err := c.stored().Outbox().CountAll(ctx, f)
		if err != nil {
			p.failWith(err)
			return
		}
		p.show(http.StatusOK, "confirm", page{Section: "deliveries", Title: p.lang.t("confirm." + change), Data: confirm{
			Change: change, Query: query, N: n,
			Action: p.base + "/deliveries/all/" + change + "?" + query.Encode(), Back: p.base + "/deliveries?" + query.Encode(),
		}})
	})
}

func (c *Console) changeMany(change string) func(*reply) {
	return func(p *reply) {
		f, query, ok := p.many()
		if !ok {
			return
		}
		var n int
		var err error
		if change == retry {
			n, err = c.stored().RetryAll(p.r.Context(), f)
		} else {
			n, err = c.stored().Outbox().DiscardAll(p.r.Context(), f)
		}
		c.logger.Info("deliveries "+pastOf[change], zap.String("user", p.user), zap.Int("deliveries", n), zap.String("filters", query.Encode()), zap.Error(err))
		if err != nil {
			p.failWith(err)
			return
		}
		query.Set("done", change)
		query.Set("n", strconv.Itoa(n))
		p.redirect("/deliveries", query)
	}
}

// maxForm limits the body of a form.
const maxForm = 4 << 10

func (c *Console) changeQueue(change string) func(*reply) {
	return func(p *reply) {
		p.r.Body = http.MaxBytesReader(p.w, p.r.Body, maxForm)
		q := outbox.Queue{Guard: p.r.PostFormValue("guard"), Consumer: p.r.PostFormValue("consumer")}
		ctx, cancel := p.context()
		defer cancel()
		if err := c.stored().SetPaused(ctx, q, change == pause); err != nil {
			p.failWith(err)
			return
		}
		c.logger.Info("queue "+pastOf[change], zap.String("user", p.user), zap.String("guard", q.Guard), zap.String("consumer", q.Consumer))
		p.redirect("/", url.Values{"done": {change}})
	}
}
