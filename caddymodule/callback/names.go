// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// appendNormalized appends what is left of a parameter's, a field's or a
// command's name without the differences that some stacks ignore: letter case,
// white space, separators (PHP turns dots and spaces into underscores, Java's
// binders drop hyphens and underscores), a question mark in front (JavaScript's
// URLSearchParams), invisible characters and bytes that are not UTF-8.
func appendNormalized(dst, name []byte) []byte {
	for len(name) > 0 {
		r, size := utf8.DecodeRune(name)
		name = name[size:]
		if r = normalizedRune(r); r >= 0 {
			dst = utf8.AppendRune(dst, r)
		}
	}
	return dst
}

// normalizedRune returns the letter that r is compared as, or -1 if r is dropped.
func normalizedRune(r rune) rune {
	switch {
	case 'a' <= r && r <= 'z', '0' <= r && r <= '9':
		return r
	case 'A' <= r && r <= 'Z':
		return r + 'a' - 'A'
	case strings.ContainsRune("._-?", r), r == utf8.RuneError, unicode.IsSpace(r), !unicode.IsGraphic(r):
		return -1
	case r == 'ı', r == 'İ': // Java compares both as i
		return 'i'
	}
	// Lower case alone would leave U+017F, whose upper case is S.
	return unicode.ToLower(unicode.ToUpper(r))
}

// normalizeName returns the name as [appendNormalized] leaves it. Names that are
// equal then are look-alikes.
func normalizeName(name string) string {
	return string(appendNormalized(nil, []byte(name)))
}

// spellings are all ways in which the protocol writes one name, such as MsgId and
// MsgID.
type spellings struct {
	all []string
	bit uint8 // of names with several spellings, 0 for the others
}

func (s *spellings) has(name []byte) bool {
	return slices.ContainsFunc(s.all, func(spelling string) bool { return spelling == string(name) })
}

// protocolNames holds every field name of every command by its normalized form.
var protocolNames = collectNames(commands)

// containers holds, by their names, the fields of the objects that any command
// describes: what is checked of such an object in a payload whose schema does
// not have it.
var containers = collectContainers(commands)

func collectNames(commands []Command) map[string]*spellings {
	names := make(map[string]*spellings)
	bit := uint8(1)
	eachField(commands, func(f Field) {
		key := normalizeName(f.Name)
		s := names[key]
		if s == nil {
			s = new(spellings)
			names[key] = s
		}
		if slices.Contains(s.all, f.Name) {
			return
		}
		if s.all = append(s.all, f.Name); len(s.all) == 2 {
			s.bit, bit = bit, bit<<1
		}
	})
	return names
}

func collectContainers(commands []Command) map[string]*object {
	fields := make(map[string][]Field)
	eachField(commands, func(f Field) {
		for _, inner := range f.Fields {
			known := func(g Field) bool { return g.Name == inner.Name }
			if !slices.ContainsFunc(fields[f.Name], known) {
				fields[f.Name] = append(fields[f.Name], Field{Name: inner.Name, Type: anyType})
			}
		}
	})
	containers := make(map[string]*object, len(fields))
	for name, inner := range fields {
		containers[name] = prepare(inner, nil)
	}
	return containers
}

// eachField calls f for every field of every command, also for those in objects.
func eachField(commands []Command, f func(Field)) {
	var walk func([]Field)
	walk = func(fields []Field) {
		for _, field := range fields {
			f(field)
			walk(field.Fields)
		}
	}
	for _, c := range commands {
		walk(c.Fields)
	}
}
