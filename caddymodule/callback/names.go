// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// appendNormalized appends the name of a parameter, field or command without the
// differences that some web stacks ignore: letter case, white space, separators (PHP
// converts dots and spaces to underscores, Java binders drop hyphens and
// underscores), a leading question mark (JavaScript's URLSearchParams), invisible
// characters and invalid UTF-8.
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

// normalizedRune returns the normalized form of r, or -1 if r is dropped.
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
	// ToLower alone would not fold U+017F, whose upper case is S.
	return unicode.ToLower(unicode.ToUpper(r))
}

// normalizeName returns the name as [appendNormalized] normalizes it. Different names
// with the same normalized form are look-alikes.
func normalizeName(name string) string {
	return string(appendNormalized(nil, []byte(name)))
}

// queryNames are the normalized names of parameters that must not be in a body, because
// some frameworks read a body before the query.
var queryNames = []string{normalizeName("SdkAppid"), normalizeName("Sign"), normalizeName("RequestTime")}

// isQueryName reports whether a name at the top level of a body, whose normalized form is
// given, would replace a parameter of the query, or the method of the request.
func isQueryName(name, form []byte) bool {
	return slices.Contains(queryNames, string(form)) || isMethodName(string(name))
}

// isMethodName reports whether frameworks such as Laravel, Symfony, ThinkPHP and Rails
// take a parameter or top-level field of that name as the method of the request. PHP
// ignores leading spaces in the name of a parameter, replaces a dot or an unpaired bracket
// by an underscore, and truncates it at NUL or at a bracket.
func isMethodName(name string) bool {
	const method = "method"
	name = strings.TrimLeft(name, " ")
	if len(name) <= len(method) || !strings.ContainsAny(name[:1], "_.[") || !strings.EqualFold(name[1:len(method)+1], method) {
		return false
	}
	rest := name[len(method)+1:]
	return rest == "" || rest[0] == '[' || rest[0] == 0
}

// spellings are all the ways in which the protocol spells one name, such as MsgId and
// MsgID.
type spellings struct {
	all     []string
	hasRole bool // it provides a part of an Event
}

func (s *spellings) has(name []byte) bool {
	return slices.ContainsFunc(s.all, func(spelling string) bool { return spelling == string(name) })
}

// protocolNames maps the normalized field names of all commands to their spellings.
var protocolNames = collectNames(commands)

// containers maps the names of fields that hold objects, in any command, to the fields
// of these objects. It is used if such a field occurs in a payload whose schema does
// not have it.
var containers = collectContainers(commands)

func collectNames(commands []Command) map[string]*spellings {
	names := make(map[string]*spellings)
	eachField(commands, func(f Field) {
		key := normalizeName(f.Name)
		if names[key] == nil {
			names[key] = new(spellings)
		}
		s := names[key]
		if !slices.Contains(s.all, f.Name) {
			s.all = append(s.all, f.Name)
		}
		s.hasRole = s.hasRole || roles[f.Name] != roleNone || deepRoles[f.Name] != roleNone
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

// eachField calls f for every field of every command, including nested fields.
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
