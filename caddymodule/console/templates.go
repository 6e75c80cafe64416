// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package console

import (
	"cmp"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"html/template"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/timguard/timguard/caddymodule"
	"github.com/timguard/timguard/caddymodule/delivery"
	"github.com/timguard/timguard/caddymodule/outbox"
)

//go:embed templates/*.html
var templateFiles embed.FS

//go:embed assets/*
var assetFiles embed.FS

// pageNames are the templates of pages, each of which fills in the layout.
var pageNames = []string{"overview", "live", "deliveries", "delivery", "confirm", "error"}

// templates are the pages by language and name.
var templates = parseTemplates()

func parseTemplates() map[lang]map[string]*template.Template {
	all := make(map[lang]map[string]*template.Template)
	for _, l := range langs {
		all[l] = make(map[string]*template.Template)
		layout := template.Must(template.New("layout.html").Funcs(l.funcs()).ParseFS(templateFiles, "templates/layout.html", "templates/parts.html"))
		for _, name := range pageNames {
			all[l][name] = template.Must(template.Must(layout.Clone()).ParseFS(templateFiles, "templates/"+name+".html"))
		}
	}
	return all
}

// funcs are the functions of templates.
func (l lang) funcs() template.FuncMap {
	return template.FuncMap{
		"t": l.t, "word": l.word, "number": number, "duration": l.duration, "ms": milliseconds, "skew": func(s *float64) string { return skew(*s) }, "isOff": isOff, "size": size,
		"segments": segments, "at": func(t time.Time) stamp { return timeOf(t, time.Now()) },
		"asset": func(name string) string { return name + "?v=" + versions[name] },
		"query": encoded, "several": severalGuards,
		"queue": l.queue, "condition": conditionOf, "result": resultOf, "words": l.words,
		"shares": func(group, mark string, of []share) shares { return shares{group, mark, of} },
		"rows": func(base, label string, several bool, of []outbox.Delivery) rows {
			return rows{base, label, several, of}
		},
		"options": func(group, chosen string, values []string) options { return options{group, chosen, values} },
		"used":    used, "count": func(n map[outbox.State]int, s outbox.State) int { return n[s] }, "waiting": func(n map[outbox.State]int) int { return delivery.QueueStatus{Deliveries: n}.Waiting() },
		"queueQuery": queueQuery, "queueMark": func(condition string) string { return queueMarks[condition] }, "filterWord": l.filterWord,
		"mark": func(s outbox.State) string { return marks[s] },
	}
}

// shares, rows and options are what the parts of these names show.
type (
	shares struct {
		Group, Mark string
		Shares      []share
	}
	rows struct {
		Base, Label string
		Several     bool
		Deliveries  []outbox.Delivery
	}
	options struct {
		Group, Chosen string
		Values        []string
	}
)

// used returns the positions of the tokens that have signed a callback.
func used(tokens []caddymodule.TokenUse) string {
	var positions []string
	for i, token := range tokens {
		if token.Uses > 0 {
			positions = append(positions, strconv.Itoa(i+1))
		}
	}
	return strings.Join(positions, ", ")
}

// encoded returns a query as a part of an address.
func encoded(query url.Values) template.URL {
	return template.URL(query.Encode()) //nolint:gosec // nothing is left to escape
}

// queueQuery returns the filters for a queue.
func queueQuery(guard, consumer string) template.URL {
	return encoded(url.Values{"guard": {guard}, "consumer": {cmp.Or(consumer, outbox.Own)}})
}

// filterWord returns the value of a filter for readers.
func (l lang) filterWord(name, value string) string {
	switch {
	case name == "consumer" && value == outbox.Own:
		return l.t("queue.backend")
	case name == "state":
		return l.word("state", value)
	case name == "since":
		return l.word("filter.since", value)
	}
	return value
}

// queue returns the name of a queue for readers. That of its guard is only needed if there are
// several.
func (l lang) queue(guard, consumer string, several bool) string {
	if consumer == "" {
		consumer = l.t("queue.backend")
	}
	if several {
		return guard + " / " + consumer
	}
	return consumer
}

// result is what happened to a call, as the page shows it.
type result struct {
	Mark   string // class of its color
	Group  string // of the word
	Word   string
	Reason string
}

// resultOf returns the result of a call. The script does the same.
func resultOf(c caddymodule.Call) result {
	action, verdict, reason := c.Values["action"], c.Values["verdict"], c.Values["reason"]
	switch {
	case reason != "" && action == "reject":
		return result{"bad", "action", action, reason}
	case reason != "" && action == "forward":
		return result{"warn", "result", "would", reason}
	case reason != "", action == "forward" && verdict != "":
		return result{"warn", "fallback", verdict, reason}
	}
	return result{"ok", "action", action, ""}
}

// words returns the texts that the script needs, in JSON.
func (l lang) words() (string, error) {
	words := make(map[string]string)
	for key := range texts {
		for _, prefix := range []string{"action.", "fallback.", "result.", "reason.", "live.", "zone."} {
			if strings.HasPrefix(key, prefix) {
				words[key] = texts[key][l]
			}
		}
	}
	text, err := json.Marshal(words)
	return string(text), err
}

// marks are the classes of the colors of states.
var marks = map[outbox.State]string{
	outbox.Pending: "off", outbox.Running: "on", outbox.Retrying: "warn", outbox.Delivered: "ok", outbox.Dead: "bad", outbox.Discarded: "off",
}

// assets are the files that pages refer to, with a part of their hashes, so that browsers can
// keep them.
var assets, versions = readAssets()

func readAssets() (files map[string][]byte, versions map[string]string) {
	files, versions = make(map[string][]byte), make(map[string]string)
	entries, err := assetFiles.ReadDir("assets")
	if err != nil {
		panic(err)
	}
	for _, e := range entries {
		data, err := assetFiles.ReadFile("assets/" + e.Name())
		if err != nil {
			panic(err)
		}
		sum := sha256.Sum256(data)
		files[e.Name()], versions[e.Name()] = data, hex.EncodeToString(sum[:6])
	}
	return files, versions
}

var assetTypes = map[string]string{".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}

func serveAsset(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("file")
	data, found := assets[name]
	if !found {
		http.NotFound(w, r)
		return
	}
	if r.URL.Query().Get("v") == versions[name] {
		w.Header().Set("Cache-Control", "private, max-age=31536000, immutable")
	}
	w.Header().Set("Content-Type", assetTypes[name[strings.LastIndexByte(name, '.'):]])
	_, _ = w.Write(data)
}
