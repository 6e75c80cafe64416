// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package console

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/url"
	"time"

	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2"

	"github.com/timguard/timguard/caddymodule/delivery"
	"github.com/timguard/timguard/caddymodule/outbox"
)

// reply is the answer to one request.
type reply struct {
	c    *Console
	w    http.ResponseWriter
	r    *http.Request
	lang lang
	base string // path of the page as the browser sees it, without a slash at the end
	user string
}

// page is what the layout shows, around what a page shows.
type page struct {
	*reply
	Section string // of the navigation
	Title   string
	Notice  string // what was done
	Now     time.Time
	Data    any
}

func (c *Console) newReply(w http.ResponseWriter, r *http.Request) *reply {
	p := &reply{c: c, w: w, r: r, lang: langOf(r)}
	p.base, _ = r.Context().Value(baseKey{}).(string)
	if repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		p.user, _ = repl.GetString("http.auth.user.id")
	}
	return p
}

// Lang is the language of the page as HTML has it.
func (p *reply) Lang() string { return p.lang.String() }

// Base is the path of the page.
func (p *reply) Base() string { return p.base }

// User is the authenticated user.
func (p *reply) User() string { return p.user }

// ReadOnly reports whether nothing can be changed.
func (p *reply) ReadOnly() bool { return p.c.ReadOnly }

// Unguarded reports whether nobody has authenticated the request, as far as can be seen.
func (p *reply) Unguarded() bool {
	client := p.r.TLS != nil && len(p.r.TLS.VerifiedChains) > 0
	return p.user == "" && !client && p.c.front.auth != elsewhere
}

// OtherName is the other language.
func (p *reply) OtherName() string { return p.lang.other().String() }

// OtherLang is the address of this page in the other language.
func (p *reply) OtherLang() string {
	query := p.r.URL.Query()
	query.Set("lang", p.lang.other().String())
	return p.base + p.r.URL.Path + "?" + query.Encode()
}

// show writes a page of the template.
func (p *reply) show(status int, name string, view page) {
	if p.switchLang() {
		return
	}
	view.reply, view.Now = p, time.Now().UTC()
	if p.Unguarded() {
		p.c.warned.Do(func() {
			if !p.c.front.found || p.c.front.auth != noAuth { // otherwise the load has said so
				p.c.logger.Warn("the page of tim_console was opened without an authenticated user; put basic_auth before it, in the same block")
			}
		})
	}
	var b bytes.Buffer
	if err := templates[p.lang][name].Execute(&b, view); err != nil {
		p.c.logger.Error("rendering the page failed", zap.String("page", name), zap.Error(err))
		http.Error(p.w, "internal error", http.StatusInternalServerError)
		return
	}
	p.w.Header().Set("Content-Type", "text/html; charset=utf-8")
	p.w.Header().Set("Content-Language", p.Lang())
	p.w.Header().Add("Vary", "Accept-Language, Cookie")
	p.w.WriteHeader(status)
	_, _ = b.WriteTo(p.w)
}

// switchLang keeps a language that was chosen, and shows the page without that choice in its
// address.
func (p *reply) switchLang() bool {
	query := p.r.URL.Query()
	if _, ok := langIn(query.Get("lang")); !ok || p.r.Method != http.MethodGet {
		return false
	}
	http.SetCookie(p.w, &http.Cookie{ //nolint:gosec // it is Secure if the page is
		Name: langCookie, Value: p.Lang(), Path: p.base + "/", MaxAge: 365 * 24 * 3600, HttpOnly: true, Secure: p.r.TLS != nil, SameSite: http.SameSiteLaxMode,
	})
	query.Del("lang")
	p.redirect(p.r.URL.Path, query)
	return true
}

// redirect sends the browser to another page.
func (p *reply) redirect(path string, query url.Values) {
	p.w.Header().Set("Location", (&url.URL{Path: p.base + path, RawQuery: query.Encode()}).RequestURI())
	p.w.WriteHeader(http.StatusSeeOther)
}

// failure is what the page of an error shows.
type failure struct {
	Text   string
	Detail string // what the program says, if that is more
}

func (p *reply) fail(status int, text string) {
	p.show(status, "error", page{Title: p.lang.t("error.title"), Data: failure{Text: p.lang.t(text)}})
}

// failWith shows an error of the store, or of what was asked of it.
func (p *reply) failWith(err error) {
	status, text := http.StatusServiceUnavailable, "error.store"
	api, isAPI := errors.AsType[caddy.APIError](err)
	switch {
	case errors.Is(err, outbox.ErrNotFound):
		status, text = http.StatusNotFound, "error.delivery"
	case errors.Is(err, delivery.ErrNoQueue):
		status, text = http.StatusNotFound, "error.queue"
	case errors.Is(err, outbox.ErrState):
		status, text = http.StatusConflict, "error.state"
	case isAPI && api.HTTPStatus == http.StatusBadRequest:
		status, text = http.StatusBadRequest, "error.filter"
	}
	if isAPI && api.Err != nil {
		err = api.Err
	}
	p.show(status, "error", page{Section: "deliveries", Title: p.lang.t("error.title"), Data: failure{p.lang.t(text), err.Error()}})
}

// queryTimeout limits the queries for a page.
const queryTimeout = 5 * time.Second

func (p *reply) context() (context.Context, context.CancelFunc) {
	return context.WithTimeout(p.r.Context(), queryTimeout)
}

// stored returns the service, or nil if it does not use its store.
func (c *Console) stored() *delivery.Service {
	if c.service.IsOpen() {
		return c.service
	}
	return nil
}
