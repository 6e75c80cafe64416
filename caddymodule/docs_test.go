// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	"github.com/timguard/timguard"
	"github.com/timguard/timguard/caddymodule/callback"
)

// docPage is a Markdown page, as far as the tests look at it. Paths are relative to
// the repository's root.
type docPage struct {
	path       string
	source     string
	levels     []int // of the headings
	anchors    []string
	blocks     []docBlock
	tables     [][][]docCell // of rows
	links      []string
	paragraphs []string
}

type docBlock struct{ mark, text string }

type docCell struct{ text, code string }

const docRoot = ".."

// docPairs returns the English pages with their Chinese ones.
func docPairs(t *testing.T) map[string]string {
	t.Helper()
	pairs := map[string]string{"README.md": "README.zh-CN.md"}
	english, err := filepath.Glob(filepath.Join(docRoot, "docs", "*.md"))
	if err != nil || len(english) == 0 {
		t.Fatalf("no pages in docs: %v", err)
	}
	for _, path := range english {
		name := filepath.Base(path)
		pairs["docs/"+name] = "docs/zh-CN/" + name
	}
	chinese, err := filepath.Glob(filepath.Join(docRoot, "docs", "zh-CN", "*.md"))
	if err != nil || len(chinese) != len(english) {
		t.Errorf("%d pages in docs/zh-CN and %d in docs; %v", len(chinese), len(english), err)
	}
	return pairs
}

// docPages returns all pages by their paths.
func docPages(t *testing.T) map[string]*docPage {
	t.Helper()
	pages := make(map[string]*docPage)
	for english, chinese := range docPairs(t) {
		pages[english], pages[chinese] = readPage(t, english), readPage(t, chinese)
	}
	return pages
}

func readPage(t *testing.T, path string) *docPage {
	t.Helper()
	source, err := os.ReadFile(filepath.Join(docRoot, path))
	if err != nil {
		t.Fatal(err)
	}
	p := &docPage{path: path, source: string(source)}
	lines := strings.Split(strings.TrimSuffix(p.source, "\n"), "\n")
	for len(lines) > 0 {
		n := p.readPart(lines)
		if n == 0 {
			t.Fatalf("%s: a block of code has no end: %s", path, lines[0])
		}
		lines = lines[n:]
	}
	return p
}

// What the pages use of Markdown. Code blocks, tables and paragraphs may be in a list.
var (
	markdownHeading  = regexp.MustCompile(`^(#{1,6}) +(.*)$`)
	markdownFence    = regexp.MustCompile("^( *)```(.*)$")
	markdownRow      = regexp.MustCompile(`^ *\|(.*)\|$`)
	markdownRule     = regexp.MustCompile(`^ *\|[-:| ]*\|$`)
	markdownComment  = regexp.MustCompile(`^<!--.*-->$`)
	markdownListItem = regexp.MustCompile(`^ *(?:-|\d+\.) +`)
	markdownLink     = regexp.MustCompile(`!?\[([^]]*)\]\(([^()]+)\)`)
	markdownCode     = regexp.MustCompile("`[^`]*`")
)

// readPart reads what the lines begin with, and returns the number of its lines. It
// returns 0 for a code block without an end.
func (p *docPage) readPart(lines []string) int {
	first := lines[0]
	switch {
	case strings.TrimSpace(first) == "" || markdownComment.MatchString(first):
		return 1
	case markdownFence.MatchString(first):
		return p.readBlock(lines)
	case markdownHeading.MatchString(first):
		heading := markdownHeading.FindStringSubmatch(first)
		p.levels = append(p.levels, len(heading[1]))
		p.anchors = append(p.anchors, anchorOf(plainText(heading[2]).text))
		p.readLinks(heading[2])
		return 1
	case beginsTable(lines):
		return p.readTable(lines)
	}
	n := 1
	for n < len(lines) && !endsParagraph(lines[n:]) {
		n++
	}
	paragraph := strings.Join(lines[:n], " ")
	p.readLinks(paragraph)
	p.paragraphs = append(p.paragraphs, plainText(paragraph).text)
	return n
}

func (p *docPage) readBlock(lines []string) int {
	fence := markdownFence.FindStringSubmatch(lines[0])
	var text strings.Builder
	for i, line := range lines[1:] {
		if strings.TrimSpace(line) == "```" {
			p.blocks = append(p.blocks, docBlock{fence[2], text.String()})
			return i + 2
		}
		text.WriteString(strings.TrimPrefix(line, fence[1]) + "\n")
	}
	return 0
}

func beginsTable(lines []string) bool {
	return len(lines) > 1 && markdownRow.MatchString(lines[0]) && markdownRule.MatchString(lines[1])
}

func (p *docPage) readTable(lines []string) (n int) {
	var rows [][]docCell
	for ; n < len(lines) && markdownRow.MatchString(lines[n]); n++ {
		if n == 1 {
			continue
		}
		p.readLinks(lines[n])
		var cells []docCell
		for cell := range strings.SplitSeq(markdownRow.FindStringSubmatch(lines[n])[1], "|") {
			cells = append(cells, plainText(strings.TrimSpace(cell)))
		}
		rows = append(rows, cells)
	}
	p.tables = append(p.tables, rows)
	return n
}

func endsParagraph(lines []string) bool {
	return strings.TrimSpace(lines[0]) == "" || markdownFence.MatchString(lines[0]) || markdownHeading.MatchString(lines[0]) ||
		markdownListItem.MatchString(lines[0]) || beginsTable(lines)
}

func (p *docPage) readLinks(text string) {
	for _, link := range markdownLink.FindAllStringSubmatch(markdownCode.ReplaceAllString(text, "code"), -1) {
		p.links = append(p.links, link[2])
	}
}

// plainText returns the text without its markup, and the code in it.
func plainText(text string) (c docCell) {
	for i, part := range strings.Split(markdownLink.ReplaceAllString(text, "$1"), "`") {
		if i%2 == 1 {
			c.code += part + " "
		} else {
			part = strings.ReplaceAll(part, "*", "")
		}
		c.text += part
	}
	return c
}

// anchorOf makes an anchor of a heading as GitHub does.
func anchorOf(heading string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r == '-', r == '_', unicode.IsLetter(r), unicode.IsNumber(r):
			return unicode.ToLower(r)
		}
		return -1
	}, heading)
}

func TestDocsAreTheSameInBothLanguages(t *testing.T) {
	t.Parallel()
	for english, chinese := range docPairs(t) {
		t.Run(english, func(t *testing.T) {
			t.Parallel()
			en, zh := readPage(t, english), readPage(t, chinese)
			if !slices.Equal(en.levels, zh.levels) {
				t.Errorf("the levels of the headings are %v, in Chinese %v", en.levels, zh.levels)
			}
			compareBlocks(t, en.blocks, zh.blocks)
			compareTables(t, en.tables, zh.tables)
		})
	}
}

func compareBlocks(t *testing.T, en, zh []docBlock) {
	t.Helper()
	if len(en) != len(zh) {
		t.Errorf("%d blocks of code, in Chinese %d", len(en), len(zh))
	}
	for i := range min(len(en), len(zh)) {
		if en[i] != zh[i] && (en[i].mark != "mermaid" || zh[i].mark != "mermaid") {
			t.Errorf("block %d is %s:\n%s\nin Chinese %s:\n%s", i+1, en[i].mark, en[i].text, zh[i].mark, zh[i].text)
		}
	}
}

// compareTables compares shapes, and the code in the first columns.
func compareTables(t *testing.T, en, zh [][][]docCell) {
	t.Helper()
	if len(en) != len(zh) {
		t.Errorf("%d tables, in Chinese %d", len(en), len(zh))
	}
	for i := range min(len(en), len(zh)) {
		if len(en[i]) != len(zh[i]) {
			t.Errorf("table %d has %d rows, in Chinese %d", i+1, len(en[i]), len(zh[i]))
		}
		for row := range min(len(en[i]), len(zh[i])) {
			if a, b := en[i][row], zh[i][row]; len(a) != len(b) || a[0].code != b[0].code {
				t.Errorf("table %d, row %d is %v, in Chinese %v", i+1, row, a, b)
			}
		}
	}
}

func TestDocsLinksLeadSomewhere(t *testing.T) {
	t.Parallel()
	pages := docPages(t)
	for _, p := range pages {
		for _, link := range p.links {
			if strings.Contains(link, "://") {
				continue
			}
			path, anchor, _ := strings.Cut(link, "#")
			target := p.path
			if path != "" {
				target = filepath.ToSlash(filepath.Join(filepath.Dir(p.path), path))
			}
			if _, err := os.Stat(filepath.Join(docRoot, target)); err != nil {
				t.Errorf("%s links to %s: %v", p.path, link, err)
				continue
			}
			if anchor == "" {
				continue
			}
			if to := pages[target]; to == nil || !slices.Contains(to.anchors, anchor) {
				t.Errorf("%s links to %s, which has no such heading", p.path, link)
			}
		}
	}
}

func TestDocsPagesSayWhomTheyAreForAndLinkTheOtherLanguage(t *testing.T) {
	t.Parallel()
	for english, chinese := range docPairs(t) {
		en, zh := readPage(t, english), readPage(t, chinese)
		for _, p := range []struct {
			*docPage
			other, begin string
		}{{en, chinese, "For who"}, {zh, english, "适用读者："}} {
			if len(p.links) == 0 || filepath.ToSlash(filepath.Join(filepath.Dir(p.path), p.links[0])) != p.other {
				t.Errorf("%s does not begin with a link to %s", p.path, p.other)
			}
			if english != "README.md" && !strings.HasPrefix(p.paragraphs[1], p.begin) {
				t.Errorf("%s does not say first whom it is for: %q", p.path, p.paragraphs[1])
			}
		}
	}
}

func TestDocsPagesAreAllLinkedFromTheIndexAndTheREADME(t *testing.T) {
	t.Parallel()
	pages := docPages(t)
	for english := range docPairs(t) {
		name, isDoc := strings.CutPrefix(english, "docs/")
		if !isDoc || name == "README.md" {
			continue
		}
		for from, link := range map[string]string{
			"README.md": english, "README.zh-CN.md": "docs/zh-CN/" + name, "docs/README.md": name, "docs/zh-CN/README.md": name,
		} {
			if !slices.Contains(pages[from].links, link) {
				t.Errorf("%s does not link %s", from, link)
			}
		}
	}
}

func TestREADMEIsShort(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"README.md", "README.zh-CN.md"} {
		p := readPage(t, path)
		lines := strings.Split(strings.TrimSuffix(p.source, "\n"), "\n")
		if len(lines) > 200 {
			t.Errorf("%s has %d lines, which is more than 200", path, len(lines))
		}
		if path != "README.md" { // a line break in Chinese text would be a space
			continue
		}
		for i, line := range lines {
			if utf8.RuneCountInString(line) > 100 && !strings.HasPrefix(line, "|") && !isOutput(p.blocks, line) {
				t.Errorf("%s:%d has more than 100 columns", path, i+1)
			}
		}
	}
}

// isOutput reports whether the line is something that a command prints.
func isOutput(blocks []docBlock, line string) bool {
	return slices.ContainsFunc(blocks, func(b docBlock) bool {
		return b.mark == "console" && !strings.HasPrefix(line, "$ ") && slices.Contains(strings.Split(b.text, "\n"), line)
	})
}

func TestDocsConfigurationsLoad(t *testing.T) {
	t.Setenv("TIM_CALLBACK_TOKEN", "token")
	t.Setenv("DATABASE_URL", "postgres://user@127.0.0.1/database")
	t.Setenv("AMQP_URL", "amqp://user:password@10.0.0.8/")
	t.Setenv("KAFKA_USER", "user")
	t.Setenv("KAFKA_PASSWORD", "password")
	t.Setenv("TIM_CONSOLE_PASSWORD_HASH", "$2a$14$TaLlHg.TJXphyx5AxEisge6FFcGU/pmsoBvV/MlSU7MvvLR.B8tnq")
	t.Setenv("XDG_DATA_HOME", t.TempDir())
	key := strings.Repeat("a", 43) + "="
	here := strings.NewReplacer( // what this machine does not have
		"{file./run/secrets/tim_callback_token}", "{env.TIM_CALLBACK_TOKEN}",
		"{file./etc/timguard/key}", key, "{file./etc/timguard/key_new}", strings.Replace(key, "a", "b", 1),
		"{file./run/secrets/tim_key}", key,
		"/var/log/timguard", t.TempDir(),
	)
	for _, p := range docPages(t) {
		for i, b := range p.blocks {
			t.Run(fmt.Sprintf("%s, block %d", p.path, i+1), func(t *testing.T) {
				if err := loadBlock(docBlock{b.mark, here.Replace(b.text)}); err != nil {
					t.Errorf("%v:\n%s", err, b.text)
				}
			})
		}
	}
}

func TestDocsExamplesLoad(t *testing.T) {
	t.Setenv("XDG_DATA_HOME", t.TempDir())
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("token"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ path, env string }{
		{"docs/consumers.Caddyfile", ""},
		{"docs/brokers.Caddyfile", ""},
		{"docs/brokers.Caddyfile", "BROKER=kafka"},
		{"packaging/kubernetes/Caddyfile", "TIM_SDK_APP_ID=1400000000 TIM_BACKEND=10.0.0.5:9000 TIM_POSTGRES=postgres://user@127.0.0.1/database"},
	} {
		t.Run(test.path+" "+test.env, func(t *testing.T) {
			for variable := range strings.FieldsSeq(test.env) {
				name, value, _ := strings.Cut(variable, "=")
				t.Setenv(name, value)
			}
			example, err := os.ReadFile(filepath.Join(docRoot, test.path))
			if err != nil {
				t.Fatal(err)
			}
			config := strings.ReplaceAll(string(example), "/run/secrets/timguard/token", token)
			if err := loadBlock(docBlock{"caddyfile", config}); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestDocsAndKubernetesNameTheVersion(t *testing.T) {
	t.Parallel()
	for path, text := range map[string]string{
		"packaging/kubernetes/kustomization.yaml": "newTag: " + timguard.Version + "\n",
		"docs/kubernetes.md":                      "?ref=v" + timguard.Version + "\n",
		"docs/zh-CN/kubernetes.md":                "?ref=v" + timguard.Version + "\n",
	} {
		if source, err := os.ReadFile(filepath.Join(docRoot, path)); err != nil || !strings.Contains(string(source), text) {
			t.Errorf("%s does not have %q; %v", path, text, err)
		}
	}
}

// loadBlock loads the configuration in a block, without running it.
func loadBlock(b docBlock) error {
	switch b.mark {
	case "caddyfile":
		return loadCaddyfile(b.text)
	case "caddy": // directives of a site
		return loadCaddyfile("http://:8080 {\n" + indented(b.text) + "}\n")
	case "json":
		return loadJSON([]byte(b.text))
	case "mermaid", "sh", "console", "php", "python", "sql", "yaml", "text":
		return nil
	default:
		return fmt.Errorf("the mark %q is none of those in docs/building.md", b.mark)
	}
}

func indented(directives string) string {
	var b strings.Builder
	for line := range strings.Lines(directives) {
		if line != "\n" {
			b.WriteByte('\t')
		}
		b.WriteString(line)
	}
	return b.String()
}

func loadCaddyfile(config string) error {
	if formatted := caddyfile.Format([]byte(config)); !bytes.Equal(formatted, []byte(config)) {
		return fmt.Errorf("caddy fmt would make of it:\n%s", formatted)
	}
	adapted, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(config), nil)
	if err != nil {
		return err
	}
	if len(warnings) > 0 {
		return fmt.Errorf("warnings: %v", warnings)
	}
	return loadJSON(adapted)
}

// loadJSON loads a whole configuration, or that of a handler.
func loadJSON(config []byte) error {
	var is struct{ Handler string }
	if err := json.Unmarshal(config, &is); err != nil && !errors.As(err, new(*json.UnmarshalTypeError)) {
		return err
	}
	if is.Handler != "" {
		config = fmt.Appendf(nil, `{"apps":{"http":{"servers":{"srv0":{"listen":[":8080"],"routes":[{"handle":[%s]}]}}}}}`, config)
	}
	var whole caddy.Config
	if err := caddy.StrictUnmarshalJSON(config, &whole); err != nil {
		return err
	}
	return caddy.Validate(&whole)
}

func TestDocsListTheCommands(t *testing.T) {
	t.Parallel()
	for path, toClient := range map[string]string{"docs/commands.md": "to a client", "docs/zh-CN/commands.md": "转给客户端"} {
		p := readPage(t, path)
		if len(p.tables) != 1 {
			t.Fatalf("%s has %d tables", path, len(p.tables))
		}
		var got [][]string
		for _, row := range p.tables[0][1:] {
			var cells []string
			for _, cell := range row {
				cells = append(cells, cell.text)
			}
			got = append(got, cells)
		}
		if want := commandRows(toClient); !reflect.DeepEqual(got, want) {
			t.Errorf("%s lists\n%v\nwant\n%v", path, got, want)
		}
	}
}

// commandRows returns the rows of the table of commands. toClient is what it says of an
// answer that goes to a client.
func commandRows(toClient string) (rows [][]string) {
	for _, c := range callback.Commands() {
		var codes []string
		for _, r := range c.Codes {
			codes = append(codes, strings.ReplaceAll(r.String(), "-", "–"))
		}
		answer := strings.Join(codes, ", ")
		if c.Answered {
			answer = toClient
		}
		fields := ""
		if len(c.Fields) > 0 {
			fields = strconv.Itoa(len(c.Fields))
		}
		rows = append(rows, []string{c.Name, string(c.Class), fields, string(c.Silence), answer})
	}
	return rows
}

// A page that nobody links, or that has no other language, may lie in a folder that
// the tests above do not look into.
func TestDocsHaveNoOtherPages(t *testing.T) {
	t.Parallel()
	pages := docPages(t)
	err := filepath.WalkDir(filepath.Join(docRoot, "docs"), func(path string, _ fs.DirEntry, err error) error {
		relative, _ := filepath.Rel(docRoot, path)
		if err == nil && filepath.Ext(path) == ".md" && pages[filepath.ToSlash(relative)] == nil {
			t.Errorf("%s is in one language only", relative)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
