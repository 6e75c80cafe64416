// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package console

import (
	"bytes"
	"encoding/json"
	"fmt"
	"html/template"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"go.uber.org/zap"

	"github.com/timguard/timguard/caddymodule"
	"github.com/timguard/timguard/caddymodule/delivery"
	"github.com/timguard/timguard/caddymodule/outbox"
)

// list is what the page of deliveries shows.
type list struct {
	Stored     bool
	Query      url.Values // the filters, as in the address
	Deliveries []outbox.Delivery
	Older      url.Values // the filters for the next page, if there is one
	Filtered   bool       // by more than the page
	Several    bool       // guards
	Guards     []string
	Consumers  []string
	States     []outbox.State
	Commands   []string
}

// Bulk are the filters without the page.
func (l list) Bulk() template.URL {
	query := maps.Clone(l.Query)
	query.Del("before")
	return encoded(query)
}

// Sinces are the times that can be chosen, and the one that is in the address.
func (l list) Sinces() []string {
	return withChosen([]string{"1h", "24h", "168h"}, l.Query.Get("since"))
}

// pageSize is how many deliveries a page has.
const pageSize = 50

// notices are the parameters that say what was done, and to how many.
var notices = []string{"done", "n"}

// filters returns the filters in the address.
func (p *reply) filters() url.Values {
	query := filled(p.r.URL.Query())
	for _, name := range append([]string{"lang", "limit"}, notices...) {
		query.Del(name)
	}
	return query
}

func (c *Console) list(p *reply) {
	view := list{Query: p.filters(), States: outbox.States(), Commands: commands()}
	if s := c.stored(); s != nil {
		view.Stored = true
		if err := p.fill(s, &view); err != nil {
			p.failWith(err)
			return
		}
	}
	p.show(http.StatusOK, "deliveries", page{Section: "deliveries", Title: p.lang.t("nav.deliveries"), Notice: p.notice(), Data: view})
}

// fill gets the deliveries of the page.
func (p *reply) fill(s *delivery.Service, view *list) error {
	ctx, cancel := p.context()
	defer cancel()
	f, err := s.ParseFilter(ctx, view.Query.Encode())
	if err != nil {
		return err
	}
	f.Limit = pageSize + 1 // one more says whether there are more
	if view.Deliveries, err = s.Outbox().List(ctx, f); err != nil {
		return err
	}
	if len(view.Deliveries) > pageSize {
		view.Deliveries = view.Deliveries[:pageSize]
		view.Older = maps.Clone(view.Query)
		view.Older.Set("before", strconv.FormatInt(view.Deliveries[pageSize-1].ID, 10))
	}
	view.Filtered = view.Bulk() != ""
	view.Several = severalGuards(caddymodule.Running())
	for _, q := range s.Queues() {
		if !slices.Contains(view.Guards, q.Guard) {
			view.Guards = append(view.Guards, q.Guard)
		}
		if q.Consumer != "" && !slices.Contains(view.Consumers, q.Consumer) {
			view.Consumers = append(view.Consumers, q.Consumer)
		}
	}
	// What was filtered by is offered again, though it may be no longer configured.
	view.Guards = withChosen(view.Guards, f.Guard)
	if f.Consumer != outbox.Own {
		view.Consumers = withChosen(view.Consumers, f.Consumer)
	}
	return nil
}

func withChosen(names []string, chosen string) []string {
	if chosen != "" && !slices.Contains(names, chosen) {
		names = append(names, chosen)
	}
	return names
}

// notice says what was done before this page was shown.
func (p *reply) notice() string {
	query := p.r.URL.Query()
	key := "done." + query.Get("done")
	if _, known := texts[key]; !known {
		return ""
	}
	n, err := strconv.Atoi(query.Get("n"))
	if err != nil {
		n = 1
	}
	return p.lang.t(key, n)
}

// one is what the page of one delivery shows.
type one struct {
	outbox.Delivery
	Several bool // guards
	Payload *payload
}

// payload is what is shown of a body.
type payload struct {
	Text string
	Size int
	Cut  int // how much of it is shown, if not all
}

// maxPayload is how much of a body is shown. All of it can be downloaded.
const maxPayload = 64 << 10

func payloadOf(body string) *payload {
	p := &payload{Text: cut(body, maxPayload), Size: len(body)}
	if len(p.Text) < len(body) {
		p.Cut = len(p.Text)
		return p
	}
	var b bytes.Buffer
	if json.Indent(&b, []byte(body), "", "  ") == nil && b.Len() <= 4*maxPayload {
		p.Text = b.String()
	}
	return p
}

func (c *Console) one(p *reply) { c.showOne(p, false) }

// payload shows a delivery with its body, which is in no page before.
func (c *Console) payload(p *reply) { c.showOne(p, true) }

func (c *Console) showOne(p *reply, withPayload bool) {
	d, ok := p.delivery()
	if !ok {
		return
	}
	view := one{Delivery: d, Several: severalGuards(caddymodule.Running())}
	if withPayload && d.Unreadable == "" {
		p.log("payload shown", d)
		view.Payload = payloadOf(d.Callback.Body)
	}
	p.show(http.StatusOK, "delivery", page{Section: "deliveries", Title: p.lang.t("delivery.title", strconv.FormatInt(d.ID, 10)), Notice: p.notice(), Data: view})
}

// download answers with a body, byte for byte.
func (c *Console) download(p *reply) {
	d, ok := p.delivery()
	if !ok {
		return
	}
	if d.Unreadable != "" {
		p.fail(http.StatusConflict, "delivery.unreadable")
		return
	}
	p.log("payload downloaded", d)
	p.w.Header().Set("Content-Type", "application/octet-stream")
	p.w.Header().Set("Content-Disposition", fmt.Sprintf(`attachment; filename="delivery-%d.json"`, d.ID))
	_, _ = p.w.Write([]byte(d.Callback.Body))
}

// delivery returns the delivery in the path. If there is none, it answers.
func (p *reply) delivery() (d outbox.Delivery, ok bool) {
	s := p.c.stored()
	id, err := strconv.ParseInt(p.r.PathValue("id"), 10, 64)
	if s == nil || err != nil {
		p.fail(http.StatusNotFound, "error.delivery")
		return d, false
	}
	ctx, cancel := p.context()
	defer cancel()
	if d, err = s.Get(ctx, id); err != nil {
		p.failWith(err)
		return d, false
	}
	return d, true
}

// log logs who did something to a delivery.
func (p *reply) log(what string, d outbox.Delivery) {
	p.c.logger.Info(what, zap.String("user", p.user), zap.Int64("id", d.ID),
		zap.String("guard", d.Callback.Guard), zap.String("consumer", d.Callback.Consumer), zap.String("command", d.Callback.Command))
}
