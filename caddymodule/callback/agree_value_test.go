// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"sync"

	"github.com/go-json-experiment/json/jsontext"
)

// value is what a parser read, in a form that can be printed in all languages.
type value struct {
	// object, array, string, number, literal; table if the language has one type
	// for objects and arrays; refused if the parser takes no such text.
	Kind string `json:"k"`

	// Of a string its text, of a literal its word, of a number its digits if it is
	// an integer; in hex, so that nothing gets lost on the way.
	Text string `json:"t"`

	Members  map[string]*value `json:"m"` // by their names, in hex
	Elements []*value          `json:"e"`
}

func hexed(text string) string { return hex.EncodeToString([]byte(text)) }

func unhexed(text string) string {
	plain, err := hex.DecodeString(text)
	if err != nil {
		return "not hex: " + text
	}
	return string(plain)
}

// exactly parses the text according to the grammar, with numbers as they are written.
func exactly(dec *jsontext.Decoder) (*value, error) {
	token, err := dec.ReadToken()
	if err != nil {
		return nil, err
	}
	switch token.Kind() {
	case '"':
		return &value{Kind: "string", Text: hexed(token.String())}, nil
	case '0':
		return numberOf(token.String()), nil
	case '{':
		v := &value{Kind: "object", Members: map[string]*value{}}
		for dec.PeekKind() != '}' {
			name, err := dec.ReadToken()
			if err != nil {
				return nil, err
			}
			key := hexed(name.String())
			if v.Members[key], err = exactly(dec); err != nil {
				return nil, err
			}
		}
		_, err = dec.ReadToken()
		return v, err
	case '[':
		v := &value{Kind: "array"}
		for dec.PeekKind() != ']' {
			element, err := exactly(dec)
			if err != nil {
				return nil, err
			}
			v.Elements = append(v.Elements, element)
		}
		_, err = dec.ReadToken()
		return v, err
	default:
		return &value{Kind: "literal", Text: hexed(token.String())}, nil
	}
}

func exactlyOf(text []byte) (*value, error) {
	return exactly(jsontext.NewDecoder(bytes.NewReader(text)))
}

func numberOf(literal string) *value {
	if bytes.ContainsAny([]byte(literal), ".eE") || literal == "-0" {
		return &value{Kind: "number"}
	}
	return &value{Kind: "number", Text: hexed(literal)}
}

// safe reports whether every parser can represent the number exactly.
func (v *value) safe() bool {
	n, err := strconv.ParseInt(unhexed(v.Text), 10, 64)
	return err == nil && n > -1<<53 && n < 1<<53
}

func (v *value) member(name string) *value {
	if v == nil {
		return nil
	}
	return v.Members[hexed(name)]
}

// differ describes where and how a parser's result differs from what is written, or
// returns "" if it does not. Numbers must be equal if the guard has checked them or if
// every parser can represent them. Parsers may round others, in unknown fields.
func differ(written, got *value, fields []Field, checked bool) string {
	if got.Kind == "table" {
		got = got.untangled(written)
	}
	switch {
	case written.Kind != got.Kind:
		return ": it is " + got.Kind + " " + strconv.Quote(unhexed(got.Text)) + ", not " + written.Kind
	case written.Kind == "number" && !checked && !written.safe():
		return ""
	case written.Text != got.Text:
		return fmt.Sprintf(": it is %s %q, not %q", got.Kind, unhexed(got.Text), unhexed(written.Text))
	case len(written.Members) != len(got.Members) || len(written.Elements) != len(got.Elements):
		return fmt.Sprintf(": it has %d members and %d elements, not %d and %d",
			len(got.Members), len(got.Elements), len(written.Members), len(written.Elements))
	}
	for name, w := range written.Members {
		g := got.Members[name]
		if g == nil {
			return fmt.Sprintf(": it has no %q", unhexed(name))
		}
		f := fieldNamed(fields, unhexed(name))
		if d := differ(w, g, f.Fields, f.Type&(Integer|Uint32) != 0); d != "" {
			return "/" + unhexed(name) + d
		}
	}
	for i, w := range written.Elements {
		if d := differ(w, got.Elements[i], fields, false); d != "" {
			return "/" + strconv.Itoa(i) + d
		}
	}
	return ""
}

var fieldLists sync.Map // by their object

// fieldsOf returns the fields of the command's payload, as the same slice each time.
func fieldsOf(command string) []Field {
	o, _, _ := schemaOf(command)
	if fields, ok := fieldLists.Load(o); ok {
		return fields.([]Field)
	}
	var fields []Field
	for _, f := range o.fields {
		fields = append(fields, f.Field)
	}
	kept, _ := fieldLists.LoadOrStore(o, fields)
	return kept.([]Field)
}

func fieldNamed(fields []Field, name string) Field {
	i := slices.IndexFunc(fields, func(f Field) bool { return f.Name == name })
	if i < 0 || fields[i].Type&anyType != 0 {
		return Field{}
	}
	return fields[i]
}

// untangled converts the table to the value that is written, if possible.
func (v *value) untangled(written *value) *value {
	if written.Kind != "array" {
		return &value{Kind: "object", Members: v.Members}
	}
	list := &value{Kind: "array"}
	for i := range len(v.Members) {
		element := v.member(strconv.Itoa(i))
		if element == nil {
			return v
		}
		list.Elements = append(list.Elements, element)
	}
	return list
}
