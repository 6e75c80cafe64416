// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package console

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/timguard/timguard/caddymodule"
	"github.com/timguard/timguard/caddymodule/callback"
	"github.com/timguard/timguard/caddymodule/outbox"
)

var verbs = regexp.MustCompile(`%(\[\d\])?[a-z]`)

func TestTextsAreInBothLanguages(t *testing.T) {
	t.Parallel()
	sameInBoth := []string{"none", "store.sqlite", "store.postgres", "delivery.of"}
	for key, pair := range texts {
		for i, text := range pair {
			if strings.TrimSpace(text) == "" && key != "paren.close" {
				t.Errorf("%s has no text in %s", key, lang(i))
			}
		}
		if pair[english] == pair[chinese] && !slices.Contains(sameInBoth, key) {
			t.Errorf("%s is %q in both languages", key, pair[english])
		}
		for form := range strings.SplitSeq(pair[english], "|") {
			if en, zh := len(verbs.FindAllString(form, -1)), len(verbs.FindAllString(pair[chinese], -1)); en != zh {
				t.Errorf("%s has %d arguments in English and %d in Chinese", key, en, zh)
			}
		}
		hasHan := strings.ContainsFunc(pair[english], func(r rune) bool { return r >= 0x4e00 && r <= 0x9fff })
		if hasHan && key != "nav.language" {
			t.Errorf("%s: the English is %q", key, pair[english])
		}
	}
}

// sources returns the text of all templates and of the package, but for texts and tests.
func sources(t *testing.T) (all string) {
	t.Helper()
	for _, pattern := range []string{"templates/*.html", "*.go", "assets/*.js"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %d files, %v", pattern, len(files), err)
		}
		for _, file := range files {
			if file == "texts.go" || strings.HasSuffix(file, "_test.go") {
				continue
			}
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			all += string(data)
		}
	}
	return all
}

func TestTextsAreThoseThatAreUsed(t *testing.T) {
	t.Parallel()
	all := sources(t)
	for _, m := range regexp.MustCompile(`\bt "([a-z0-9.]+)"`).FindAllStringSubmatch(all, -1) {
		if _, known := texts[m[1]]; !known {
			t.Errorf("no text %s", m[1])
		}
	}
	for _, reason := range callback.Reasons() {
		if _, known := texts["reason."+string(reason)]; !known {
			t.Errorf("no text for the reason %s", reason)
		}
	}
	for _, state := range outbox.States() {
		if _, known := texts["state."+string(state)]; !known || marks[state] == "" {
			t.Errorf("no text or color for the state %s", state)
		}
	}
	for key := range texts {
		isUsed := strings.Contains(all, `"`+key+`"`)
		for i, r := range key {
			isUsed = isUsed || r == '.' && (strings.Contains(all, `"`+key[:i]+`"`) || strings.Contains(all, `"`+key[:i+1]))
		}
		if !isUsed {
			t.Errorf("the text %s is not used", key)
		}
	}
}

func TestSegmentsNameWhatIsNotSeen(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][]segment{
		"":              nil,
		"plain 会话\n\tx": {{Text: "plain 会话\n\tx"}},
		"a\u202eb":      {{Text: "a"}, {"U+202E", true}, {Text: "b"}},
		"\u2066\u200b":  {{"U+2066", true}, {"U+200B", true}},
		"\x00\x1b[31m":  {{"U+0000", true}, {"U+001B", true}, {Text: "[31m"}},
		"a\r\nb\rc":     {{Text: "a\r\nb"}, {"U+000D", true}, {Text: "c"}},
		"a\xffb":        {{Text: "a\uFFFDb"}},
		"\U000e0041":    {{"U+E0041", true}},
	} {
		if got := segments(text); !slices.Equal(got, want) {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}

func TestPayloadIsBounded(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		body, text string
		cut        int
	}{
		{`{"a":[1,2.50e3,"\u0041"]}`, "{\n  \"a\": [\n    1,\n    2.50e3,\n    \"\\u0041\"\n  ]\n}", 0},
		{"not JSON", "not JSON", 0},
		{strings.Repeat("会", maxPayload), strings.Repeat("会", maxPayload/3), maxPayload / 3 * 3},
	} {
		if p := payloadOf(c.body); p.Text != c.text || p.Cut != c.cut || p.Size != len(c.body) {
			t.Errorf("%.20s: %.60q, cut %d, size %d", c.body, p.Text, p.Cut, p.Size)
		}
	}
	nested := strings.Repeat("[", maxPayload/2-1) + strings.Repeat("]", maxPayload/2-1)
	if p := payloadOf(nested); len(p.Text) > 4*maxPayload {
		t.Errorf("%d bytes of brackets become %d", len(nested), len(p.Text))
	}
}

func TestFormats(t *testing.T) {
	t.Parallel()
	for seconds, want := range map[float64]string{0: "0 s", 89: "89 s", 90: "2 min", 5399: "90 min", 5400: "2 h", 200000: "2 d"} {
		if got := english.duration(seconds); got != want {
			t.Errorf("%v seconds: %q, want %q", seconds, got, want)
		}
	}
	for seconds, want := range map[float64]string{0.2: "+0.2 s", -12: "-12.0 s", 0.01: "0.0 s"} {
		if got := skew(seconds); got != want {
			t.Errorf("skew %v: %q, want %q", seconds, got, want)
		}
	}
	now := time.Date(2026, 3, 4, 1, 2, 3, 4e6, time.UTC)
	for ago, want := range map[time.Duration]string{0: "01:02:03", 2 * time.Hour: "03-03 23:02:03", 90 * 24 * time.Hour: "2025-12-04 01:02:03"} {
		if got := timeOf(now.Add(-ago), now); got.Short != want {
			t.Errorf("%v ago: %q, want %q", ago, got.Short, want)
		}
	}
	if got := english.t("guard.rules", 1); got != "1 rule, all else is refused" {
		t.Error(got)
	}
	if got := english.t("guard.rules", 1200); got != "1,200 rules, all else is refused" {
		t.Error(got)
	}
}

func TestChartOfAnHour(t *testing.T) {
	t.Parallel()
	c := chartOf([]caddymodule.Minute{{Calls: 0}, {Calls: 1000, Refused: 1}, {Calls: 500, Refused: 500}})
	if c.Calls != 1500 || c.Refused != 501 || c.PerMinute != 1000 {
		t.Errorf("%+v", c)
	}
	for i, want := range []bar{
		{X: 0, Y: 72, RefusedY: 72},
		{X: 10, Y: 2, Height: 70, RefusedHeight: 2, Calls: 1000, Refused: 1},
		{X: 20, Y: 72, RefusedY: 36, RefusedHeight: 36, Calls: 500, Refused: 500},
	} {
		got := c.Bars[i]
		if got.Time = want.Time; got != want {
			t.Errorf("bar %d: %+v, want %+v", i, got, want)
		}
	}
	if empty := chartOf(nil); len(empty.Bars) != 0 {
		t.Errorf("%+v", empty)
	}
}

func TestSharesAreSorted(t *testing.T) {
	t.Parallel()
	got := sharesOf(map[string]int{"b": 1, "a": 1, "c": 1000, "none": 0})
	want := []share{{"c", 1000, 100}, {"a", 1, 1}, {"b", 1, 1}}
	if !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// The page, `status` and the alert call the same clock wrong.
func TestClockIsOffFromTheSameSkewOn(t *testing.T) {
	t.Parallel()
	alerts, err := os.ReadFile("../../dashboards/alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("(rate(caddy_tim_callback_clock_skew_seconds_bucket[10m]))) > %d\n", caddymodule.MaxSkewSeconds); !strings.Contains(string(alerts), want) {
		t.Errorf("no alert has %q", want)
	}
	for skew, want := range map[float64]bool{0: false, 30: false, -30: false, 30.1: true, -30.1: true} {
		if got := isOff(&skew); got != want {
			t.Errorf("%v s is off: %t", skew, got)
		}
	}
	if isOff(nil) {
		t.Error("an unknown clock is off")
	}
}
