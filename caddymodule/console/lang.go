// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package console

import (
	"fmt"
	"net/http"
	"strings"

	"golang.org/x/text/language"
)

// lang is a language of the page, and an index into each of texts.
type lang int

const (
	english lang = iota
	chinese
)

var (
	langs   = []lang{english, chinese}
	matcher = language.NewMatcher([]language.Tag{language.English, language.SimplifiedChinese}) // in the order of langs
)

// String is the language as HTML has it.
func (l lang) String() string { return [...]string{"en", "zh-CN"}[l] }

func (l lang) other() lang { return chinese - l }

// langCookie keeps the language that a reader has chosen.
const langCookie = "tim_console_lang"

// langOf returns the language for a request: that in the address, that was chosen before, or
// what the browser asks for.
func langOf(r *http.Request) lang {
	if l, ok := langIn(r.URL.Query().Get("lang")); ok {
		return l
	}
	if cookie, err := r.Cookie(langCookie); err == nil {
		if l, ok := langIn(cookie.Value); ok {
			return l
		}
	}
	_, i := language.MatchStrings(matcher, r.Header.Get("Accept-Language"))
	return langs[i]
}

// langIn returns the language for a tag such as zh or en-US.
func langIn(tag string) (l lang, ok bool) {
	wanted, err := language.Parse(tag)
	if err != nil {
		return english, false
	}
	_, i, confidence := matcher.Match(wanted)
	return langs[i], confidence >= language.High
}

// t returns a text. Numbers among the arguments get commas. A text with | has a form for one
// and one for several, by the first argument.
func (l lang) t(key string, args ...any) string {
	text := texts[key][l]
	singular, plural, counted := strings.Cut(text, "|")
	if counted {
		if text = plural; len(args) > 0 && args[0] == 1 {
			text = singular
		}
	}
	for i, arg := range args {
		if n, ok := arg.(int); ok {
			args[i] = number(n)
		}
	}
	if len(args) == 0 {
		return text
	}
	return fmt.Sprintf(text, args...)
}

// word returns the text of a name, or the name if there is none.
func (l lang) word(group, name string) string {
	if pair, known := texts[group+"."+name]; known {
		return pair[l]
	}
	return name
}
