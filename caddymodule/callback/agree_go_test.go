// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

import (
	"bytes"
	"encoding/json"
	"net/url"
	"reflect"
	"strconv"
	"sync"

	jsonv2 "github.com/go-json-experiment/json"
)

// goReadings are what Go endpoints read that decode into an any, with numbers as
// float64 or as json.Number.
func goReadings(body []byte) map[string]*value {
	all := map[string]*value{}
	for name, decode := range map[string]func(*any) error{
		"encoding/json":             func(v *any) error { return json.Unmarshal(body, v) },
		"encoding/json with Number": func(v *any) error { return numbered(body).Decode(v) },
		"encoding/json/v2":          func(v *any) error { return jsonv2.Unmarshal(body, v) },
	} {
		var v any
		if err := decode(&v); err != nil {
			all[name] = &value{Kind: "refused", Text: hexed(err.Error())}
			continue
		}
		all[name] = ofAny(v)
	}
	return all
}

func numbered(body []byte) *json.Decoder {
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber()
	return dec
}

func ofAny(v any) *value {
	switch v := v.(type) {
	case nil:
		return &value{Kind: "literal", Text: hexed("null")}
	case bool:
		return &value{Kind: "literal", Text: hexed(strconv.FormatBool(v))}
	case string:
		return &value{Kind: "string", Text: hexed(v)}
	case json.Number:
		return numberOf(v.String())
	case float64:
		return numberOf(strconv.FormatFloat(v, 'f', -1, 64))
	case []any:
		list := &value{Kind: "array"}
		for _, element := range v {
			list.Elements = append(list.Elements, ofAny(element))
		}
		return list
	case map[string]any:
		object := &value{Kind: "object", Members: map[string]*value{}}
		for name, member := range v {
			object.Members[hexed(name)] = ofAny(member)
		}
		return object
	}
	panic("not of JSON")
}

// structReadings are what Go endpoints read that decode into a struct with the
// command's fields. encoding/json matches names in any case, and uses the last of
// several.
func structReadings(body []byte, fields []Field) map[string]*value {
	all := map[string]*value{}
	for name, unmarshal := range map[string]func([]byte, any) error{
		"encoding/json to a struct":    json.Unmarshal,
		"encoding/json/v2 to a struct": func(body []byte, v any) error { return jsonv2.Unmarshal(body, v) },
	} {
		v := reflect.New(structOf(fields))
		if err := unmarshal(body, v.Interface()); err != nil {
			all[name] = &value{Kind: "refused", Text: hexed(err.Error())}
			continue
		}
		all[name] = ofStruct(v.Elem(), fields)
	}
	return all
}

var structs sync.Map // types by the first of their Fields

// structOf returns a struct of pointers, which distinguish an absent field from a zero.
func structOf(fields []Field) reflect.Type {
	if t, ok := structs.Load(&fields[0]); ok {
		return t.(reflect.Type)
	}
	members := make([]reflect.StructField, len(fields))
	for i, f := range fields {
		members[i] = reflect.StructField{
			Name: "F" + strconv.Itoa(i),
			Type: reflect.PointerTo(typeOf(f)),
			Tag:  reflect.StructTag(`json:"` + f.Name + `"`),
		}
	}
	t := reflect.StructOf(members)
	structs.Store(&fields[0], t)
	return t
}

func typeOf(f Field) reflect.Type {
	switch {
	case f.Type == String:
		return reflect.TypeFor[string]()
	case f.Type == Integer:
		return reflect.TypeFor[int64]()
	case f.Type == Uint32:
		return reflect.TypeFor[uint32]()
	case f.Type == Strings:
		return reflect.TypeFor[[]string]()
	case f.Type == Object && len(f.Fields) > 0:
		return structOf(f.Fields)
	case f.Type == Objects && len(f.Fields) > 0:
		return reflect.SliceOf(structOf(f.Fields))
	}
	return reflect.TypeFor[json.RawMessage]()
}

func ofStruct(v reflect.Value, fields []Field) *value {
	object := &value{Kind: "object", Members: map[string]*value{}}
	for i, f := range fields {
		if at := v.Field(i); !at.IsNil() {
			object.Members[hexed(f.Name)] = ofField(at.Elem(), f)
		}
	}
	return object
}

func ofField(v reflect.Value, f Field) *value {
	switch known := v.Interface().(type) {
	case string:
		return &value{Kind: "string", Text: hexed(known)}
	case int64:
		return numberOf(strconv.FormatInt(known, 10))
	case uint32:
		return numberOf(strconv.FormatUint(uint64(known), 10))
	case json.RawMessage:
		raw, err := exactlyOf(known)
		if err != nil {
			panic(err)
		}
		return raw
	case []string:
		list := &value{Kind: "array"}
		for _, element := range known {
			list.Elements = append(list.Elements, &value{Kind: "string", Text: hexed(element)})
		}
		return list
	}
	if v.Kind() == reflect.Struct {
		return ofStruct(v, f.Fields)
	}
	list := &value{Kind: "array"}
	for i := range v.Len() {
		list.Elements = append(list.Elements, ofStruct(v.Index(i), f.Fields))
	}
	return list
}

// pruned returns the part of a payload that a struct with the fields keeps.
func (v *value) pruned(fields []Field) *value {
	kept := &value{Kind: v.Kind, Members: map[string]*value{}}
	for _, f := range fields {
		member := v.member(f.Name)
		if member == nil {
			continue
		}
		if len(f.Fields) > 0 && (f.Type == Object || f.Type == Objects) {
			list := &value{Kind: member.Kind}
			for _, element := range member.Elements {
				list.Elements = append(list.Elements, element.pruned(f.Fields))
			}
			if member.Kind == "object" {
				list = member.pruned(f.Fields)
			}
			member = list
		}
		kept.Members[hexed(f.Name)] = member
	}
	return kept
}

// goQueryReadings are what a Go endpoint reads in a query.
func goQueryReadings(raw string) map[string]*value {
	values, err := url.ParseQuery(raw)
	if err != nil {
		return map[string]*value{"net/url": {Kind: "refused", Text: hexed(err.Error())}}
	}
	object := &value{Kind: "object", Members: map[string]*value{}}
	for name, several := range values {
		list := &value{Kind: "array"}
		for _, one := range several {
			list.Elements = append(list.Elements, &value{Kind: "string", Text: hexed(one)})
		}
		object.Members[hexed(name)] = list
	}
	return map[string]*value{"net/url": object}
}
