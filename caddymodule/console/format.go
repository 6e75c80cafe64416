// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package console

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/dustin/go-humanize"
)

// number formats a number with commas, which both languages use.
func number(n int) string { return humanize.Comma(int64(n)) }

// duration formats a time span, so that it fits in a table.
func (l lang) duration(seconds float64) string {
	for _, unit := range []struct {
		key   string
		size  float64
		until float64
	}{
		{"unit.second", 1, 90}, {"unit.minute", 60, 90 * 60}, {"unit.hour", 3600, 36 * 3600}, {"unit.day", 86400, math.Inf(1)},
	} {
		if seconds < unit.until {
			return l.t(unit.key, int(math.Round(seconds/unit.size)))
		}
	}
	return ""
}

// milliseconds formats how long a call took.
func milliseconds(seconds float64) string {
	if ms := seconds * 1000; ms < 10 {
		return strconv.FormatFloat(ms, 'f', 1, 64) + " ms"
	}
	return number(int(math.Round(seconds*1000))) + " ms"
}

// skew formats the clock's skew, with its sign.
func skew(seconds float64) string {
	if math.Abs(seconds) < 0.05 {
		return "0.0 s"
	}
	return fmt.Sprintf("%+.1f s", seconds)
}

// size formats a number of bytes.
func size(bytes int) string { return humanize.IBytes(uint64(max(bytes, 0))) }

// stamp is a time on the page. It is UTC until the script shows it in the reader's zone.
type stamp struct{ Exact, Short string }

// timeOf returns how to show a time: that of day alone if it is today.
func timeOf(t, now time.Time) stamp {
	t, now = t.UTC(), now.UTC()
	layout := "2006-01-02 15:04:05"
	switch {
	case t.Format(time.DateOnly) == now.Format(time.DateOnly):
		layout = time.TimeOnly
	case t.Year() == now.Year():
		layout = "01-02 15:04:05"
	}
	return stamp{t.Format("2006-01-02T15:04:05.000Z"), t.Format(layout)}
}

// segment is a part of a text that somebody else wrote.
type segment struct {
	Text   string
	Hidden bool // it names a character that would not be seen, or would mislead
}

// segments takes a text apart, so that characters that would not be seen, or would change
// the order of others, are seen.
func segments(text string) (all []segment) {
	text = strings.ToValidUTF8(text, "\uFFFD")
	start := 0
	for i, r := range text {
		if unicode.IsGraphic(r) || r == '\n' || r == '\t' || r == '\r' && strings.HasPrefix(text[i+1:], "\n") {
			continue
		}
		if i > start {
			all = append(all, segment{Text: text[start:i]})
		}
		all = append(all, segment{fmt.Sprintf("U+%04X", r), true})
		start = i + len(string(r))
	}
	if start < len(text) {
		all = append(all, segment{Text: text[start:]})
	}
	return all
}

// cut returns the beginning of a text that is too long to be shown, up to a whole rune.
func cut(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	return strings.ToValidUTF8(text[:limit], "")
}
