// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"slices"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

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
