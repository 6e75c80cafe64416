// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package command

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/timguard/timguard/caddymodule/callback"
)

// prober knocks at a callback URL.
type prober struct {
	url     *url.URL
	app     string
	token   string // "" if there is none
	command string // of the genuine call
	client  http.Client
}

// probed is the result of a probe, as printed with --json.
type probed struct {
	URL   string   `json:"url"`
	App   string   `json:"app"`
	GotIn int      `json:"got_in"`
	Calls []*knock `json:"calls"`
	Hint  string   `json:"hint,omitempty"`
}

func probeCommand() *cobra.Command {
	var token tokenFlag
	var asJSON, insecure bool
	p := new(prober)
	cmd := subcommand("probe URL [--app <sdk_app_id>] [--token <token>] [--command <command>] [--timeout <duration>] [--insecure] [--json]",
		"Tries a callback URL from outside as a stranger would", `
Calls a URL in ways that a guard refuses, such as unsigned or with a forged Sign,
at the URL itself and at other spellings of its path, and prints what happened to
each call. Exits with 1 if one got in: if it was answered OK, or reached a backend.

With a token, it also tries what only somebody with a captured or guessed Sign
could, and makes one genuine call, which has to be answered OK. The payloads are
recalls of a message in a group named timguard-probe.

A guard is told from a backend by the form of its refusals. A site whose
rejections are handled by error routes answers otherwise, and so does a backend
that refuses by itself: where it cannot be told which one it was, this says so.

The token may be a placeholder such as {env.TOKEN} or {file./run/secrets/token},
which keeps it out of the process list.`,
		cobra.ExactArgs(1), func(cmd *cobra.Command, args []string) (err error) {
			if p.token, err = token.resolve(); err != nil {
				return err
			}
			if err := checkKnown(p.command); err != nil {
				return err
			}
			if p.url, err = parseURL(args[0]); err != nil {
				return err
			}
			p.url.RawQuery, p.url.Fragment = callback.WithoutAuth(p.url.RawQuery), ""
			p.client.Transport, p.client.CheckRedirect = transport(1, insecure), noRedirect
			result, err := p.probe(cmd.Context())
			if err != nil {
				return err
			}
			if err := result.print(cmd.OutOrStdout(), asJSON); err != nil {
				return err
			}
			return result.err()
		})
	flags := cmd.Flags()
	flags.StringVar(&p.app, "app", "1400000000", "SdkAppid")
	token.add(flags, "the token of the app; without one, some calls are not made")
	flags.StringVar(&p.command, "command", callback.RecallCommand, "CallbackCommand of the genuine call")
	flags.DurationVar(&p.client.Timeout, "timeout", 2*time.Second, "how long to wait for each answer")
	flags.BoolVar(&insecure, "insecure", false, "accept any server certificate")
	flags.BoolVar(&asJSON, "json", false, "print the result as JSON")
	return cmd
}

// How a call is signed.
type signing int

const (
	unsigned signing = iota
	forged           // by a token that nobody has
	bySign           // by the token, or else unsigned
)

// knock is a call, and what happened to it.
type knock struct {
	Name   string          `json:"call"`
	Path   string          `json:"path"`
	Status int             `json:"status,omitempty"`
	Result outcome         `json:"result"`
	Reason callback.Reason `json:"reason,omitempty"` // of the guard
	Detail string          `json:"detail,omitempty"`

	method  string
	app     string
	command string
	signing signing
	age     time.Duration
	extra   string // added to the query
	form    bool   // the body is a form
	other   bool   // the path is not that of the URL
	genuine bool
	needs   bool // the token
	refusal int  // the status with which a guard refuses it

	answer   []byte
	hops     int // proxies that the answer has passed
	location string
	err      error
}

// twice is a parameter of the protocol that is given again, by which a guard refuses a call
// before it looks at the Sign, and a backend hardly does.
const twice = "contenttype=json"

// knocks returns the calls to make.
func (p *prober) knocks() []*knock {
	path := p.url.EscapedPath()
	if path == "" {
		path = "/"
	}
	one := func(name string, refusal int, signing signing) *knock {
		return &knock{Name: name, Path: path, method: http.MethodPost, app: p.app, command: callback.RecallCommand, refusal: refusal, signing: signing}
	}
	stale := one("stale by 2 minutes", http.StatusUnauthorized, bySign)
	stale.age, stale.needs = 2*time.Minute, true
	foreign := one("of another app", http.StatusForbidden, bySign)
	foreign.app = otherApp(p.app)
	doubled := one("a parameter twice", http.StatusBadRequest, bySign)
	doubled.extra = "SdkAppid=" + url.QueryEscape(foreign.app)
	// Not signed: a guard would count its refusal as that of a genuine callback.
	form := one("a form body", http.StatusUnauthorized, unsigned)
	form.form = true
	get := one("by GET", http.StatusMethodNotAllowed, bySign)
	get.method = http.MethodGet
	all := []*knock{
		one("unsigned", http.StatusUnauthorized, unsigned), one("forged Sign", http.StatusUnauthorized, forged),
		stale, foreign, doubled, form, get,
	}
	for _, spelling := range spellings(path) {
		k := one("to "+spelling, http.StatusBadRequest, bySign)
		k.Path, k.extra, k.other = spelling, twice, true
		all = append(all, k)
	}
	elsewhere := one("to any other path", http.StatusBadRequest, bySign)
	elsewhere.Path, elsewhere.extra, elsewhere.other = "/"+strings.ToLower(rand.Text()), twice, true
	genuine := one("genuine", 0, bySign)
	genuine.command, genuine.genuine, genuine.needs = p.command, true, true
	return append(all, elsewhere, genuine)
}

// otherApp returns the SdkAppid of an app that is not the given one.
func otherApp(app string) string {
	if app == "1499999999" {
		return "1499999998"
	}
	return "1499999999"
}

// spellings returns paths that some server or framework takes for the given one. Caddy's
// path matchers decode escapes, merge slashes, resolve dots and ignore case, but do not
// ignore a slash at the end, or what follows a semicolon.
func spellings(path string) []string {
	bare := strings.TrimRight(path, "/")
	if bare == "" { // each other path is another one
		return []string{"//", "/%2f", "/;x"}
	}
	all := []string{bare + "/", "/" + bare, bare + "%2f", bare + ";x", strings.ToUpper(bare), "/." + bare}
	if path != bare {
		all[0] = bare
	}
	if all[4] == bare {
		all[4] = strings.ToLower(bare)
	}
	if all[4] == bare { // no letters
		return append(all[:4], all[5])
	}
	return all
}

// probe makes the calls one after the other, and judges their answers.
func (p *prober) probe(ctx context.Context) (*probed, error) {
	result := &probed{URL: p.url.String(), App: p.app, Calls: p.knocks()}
	for i, k := range result.Calls {
		if k.needs && p.token == "" {
			continue
		}
		k.err = p.do(ctx, k)
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case k.err != nil && i == 0:
			return nil, k.err
		case k.Status == http.StatusBadRequest && bytes.Contains(k.answer, []byte("HTTP request to an HTTPS server")):
			return nil, errors.New("this port speaks TLS: write https:// in place of http://")
		}
	}
	result.judge(p.token != "")
	return result, nil
}

// do makes a call. Its errors do not contain the query.
func (p *prober) do(ctx context.Context, k *knock) error {
	target, err := p.target(k)
	if err != nil {
		return err
	}
	var body []byte
	contentType := "application/json"
	switch {
	case k.form:
		body, contentType = []byte("CallbackCommand="+url.QueryEscape(k.command)+"&GroupId=timguard-probe"), "application/x-www-form-urlencoded"
	case k.method != http.MethodGet:
		body = bytes.Replace(sampleOf(k.command, k.app, time.Now()), []byte(`"GroupId":"1213456"`), []byte(`"GroupId":"timguard-probe"`), 1)
	}
	req, err := http.NewRequestWithContext(ctx, k.method, target, bytes.NewReader(body))
	if err != nil {
		return withoutURL(err)
	}
	if k.method != http.MethodGet {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return explained(err)
	}
	defer func() { _ = resp.Body.Close() }()
	k.Status, k.hops, k.location = resp.StatusCode, hops(resp.Header), location(resp)
	if k.answer, err = io.ReadAll(io.LimitReader(resp.Body, 1<<20)); err != nil {
		return withoutURL(err)
	}
	return nil
}

// target returns the URL of a call.
func (p *prober) target(k *knock) (string, error) {
	u := *p.url
	path, err := url.PathUnescape(k.Path)
	if err != nil {
		return "", err
	}
	u.Path, u.RawPath = path, k.Path
	s := sender{url: u.String(), app: k.app, command: k.command, age: k.age}
	switch k.signing {
	case forged:
		s.token = rand.Text()
	case bySign:
		s.token = p.token
	case unsigned:
	}
	target, err := s.target(time.Now())
	if k.extra != "" {
		target += "&" + k.extra
	}
	return target, err
}

// hops returns how many proxies say that they have passed the answer on, as Caddy's
// reverse_proxy does.
func hops(h http.Header) (n int) {
	for _, via := range h.Values("Via") {
		n += 1 + strings.Count(via, ",")
	}
	return n
}

// location returns where the answer redirects to, without the query, which may have the Sign.
func location(resp *http.Response) string {
	to, err := resp.Location()
	if err != nil || resp.StatusCode < 300 || resp.StatusCode > 399 {
		return ""
	}
	to.RawQuery, to.Fragment = "", ""
	return to.String()
}

func (r *probed) print(w io.Writer, asJSON bool) error {
	if asJSON {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(r)
	}
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "CALL\tSTATUS\tRESULT\tDETAIL")
	for _, k := range r.Calls {
		status := "-"
		if k.Status > 0 {
			status = strconv.Itoa(k.Status)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", k.Name, status, k.Result, k.Detail)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if r.Hint != "" {
		fmt.Fprintln(w, r.Hint)
	}
	return nil
}
