// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestCommandTableIsConsistent(t *testing.T) {
	t.Parallel()
	all := Commands()
	if len(all) == 0 || all[0].Name != RecallCommand {
		t.Fatal("the front example is not the first command")
	}
	seen := map[string]bool{}
	for _, c := range all {
		if seen[c.Name] {
			t.Errorf("%s is twice in the table", c.Name)
		}
		seen[c.Name] = true
		if c.Class != ClassOf(c.Name) {
			t.Errorf("%s: class %q against its name", c.Name, c.Class)
		}
		if c.Family == "" {
			t.Errorf("%s: no family", c.Name)
		}
		if got, ok := Lookup(c.Name); !ok || got.Name != c.Name {
			t.Errorf("%s: Lookup does not find it", c.Name)
		}
		soundFields(t, c.Name, c.Fields)
	}
}

func soundFields(t *testing.T, at string, fields []Field) {
	t.Helper()
	if len(fields) > 64 {
		t.Errorf("%s: %d fields, more than a word has bits", at, len(fields))
	}
	for i, f := range fields {
		where := at + "/" + f.Name
		if f.Name == "" || strings.ContainsFunc(f.Name, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' || r == '\\' }) {
			t.Errorf("%s: the name is not written in a payload as it is", where)
		}
		for _, other := range fields[:i] {
			if strings.EqualFold(f.Name, other.Name) {
				t.Errorf("%s folds onto %s", where, other.Name)
			}
		}
		if f.Type == 0 || f.Type >= 1<<len(typeNames) {
			t.Errorf("%s: type %b", where, f.Type)
		}
		if len(f.Fields) > 0 && f.Type&(Object|Objects) == 0 {
			t.Errorf("%s: fields in something that is no object", where)
		}
		soundFields(t, where, f.Fields)
	}
}

func TestLookupIsExact(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"", "group.callbackafterrecallmsg", RecallCommand + " ", "Group.CallbackAfterRecallMs", "*"} {
		if c, ok := Lookup(name); ok || c.Name != "" {
			t.Errorf("%q: got %+v", name, c)
		}
	}
}

func TestCommandsReturnsACopy(t *testing.T) {
	t.Parallel()
	Commands()[0] = Command{}
	if Commands()[0].Name != RecallCommand {
		t.Error("a caller has changed the table")
	}
}

func TestClassOfFollowsTencentsNaming(t *testing.T) {
	t.Parallel()
	for command, want := range map[string]Class{
		"Group.CallbackBeforeSendMsg":   Before,
		"Sns.CallbackPrevFriendAdd":     Before,
		"Group.CallbackAfterRecallMsg":  After,
		"C2C.CallbackAfterMsgWithDraw":  After,
		"State.StateChange":             After,
		"Push.AllMemberPush":            After,
		"Future.CallbackBeforeAnything": Before,
	} {
		if got := ClassOf(command); got != want {
			t.Errorf("%s: got %s, want %s", command, got, want)
		}
	}
}

func TestTypesHaveTencentsNames(t *testing.T) {
	t.Parallel()
	for want, set := range map[string]Type{
		"String": String, "Integer (uint32)": Uint32, "Integer or String of digits": Integer | Digits, "Array of Objects": Objects,
		"String or Object": String | Object, "Array of Strings": Strings, "Array": Array,
	} {
		text, err := set.MarshalText()
		if err != nil || string(text) != want || set.String() != want {
			t.Errorf("got %q, %v; want %q", text, err, want)
		}
	}
}

// place is an object inside a decoded payload.
type place struct {
	object map[string]any
	path   string
}

func (p *place) pointer(name string) string {
	return p.path + "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
}

// decodeTree decodes a body into maps that tests may change.
func decodeTree(t *testing.T, body []byte) map[string]any {
	t.Helper()
	var tree map[string]any
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber()
	if err := dec.Decode(&tree); err != nil {
		t.Fatal(err)
	}
	return tree
}

// visit calls f for every field of the schema, at any depth, with the object of the
// payload that contains it. In an array, it visits the first element.
func visit(fields []Field, object map[string]any, at *place, f func(Field, *place)) {
	if at == nil {
		at = &place{object: object}
	}
	for _, field := range fields {
		below := &place{path: at.pointer(field.Name)}
		switch value := at.object[field.Name].(type) {
		case map[string]any:
			below.object = value
		case []any:
			below.path += "/0"
			if len(value) > 0 {
				below.object, _ = value[0].(map[string]any)
			}
		}
		if below.object != nil {
			visit(field.Fields, below.object, below, f)
		}
		f(field, at)
	}
}

// inspectTree inspects the encoded tree.
func inspectTree(t *testing.T, tree map[string]any, command string) error {
	t.Helper()
	body, err := json.Marshal(tree)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Inspect(body, command)
	return err
}

// eachCommand calls f for every command with a schema.
func eachCommand(t *testing.T, f func(t *testing.T, c Command, tree map[string]any)) {
	t.Helper()
	for _, c := range Commands() {
		if len(c.Fields) == 0 {
			continue
		}
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			f(t, c, decodeTree(t, Sample(c.Name)))
		})
	}
}

func TestOnlyRequiredFieldsAreMandatory(t *testing.T) {
	t.Parallel()
	eachCommand(t, func(t *testing.T, c Command, tree map[string]any) {
		t.Helper()
		visit(c.Fields, tree, nil, func(f Field, at *place) {
			value := at.object[f.Name]
			delete(at.object, f.Name)
			err := inspectTree(t, tree, c.Name)
			at.object[f.Name] = value
			switch {
			case f.Required:
				wantRejection(t, err, ReasonPayload, at.pointer(f.Name))
			case err != nil:
				t.Errorf("without %s: %v", at.pointer(f.Name), err)
			}
		})
	})
}

// A literal, and the types whose values it can be.
var literals = []struct {
	json  string
	types Type
	below string // the path of the fault below the value, if it is not the value itself
}{
	{`null`, 0, ""},
	{`true`, 0, ""},
	{`false`, 0, ""},
	{`"x"`, String, ""},
	{`"1"`, String | Digits, ""},
	{`"-1"`, String, ""},
	{`"1.0"`, String, ""},
	{`1`, Integer | Uint32, ""},
	{`4294967295`, Integer | Uint32, ""},
	{`4294967296`, Integer, ""},
	{`9007199254740991`, Integer, ""},
	{`9007199254740992`, 0, ""},
	{`9223372036854775807`, 0, ""},
	{`1.0`, 0, ""},
	{`1.5`, 0, ""},
	{`1e2`, 0, ""},
	{`{}`, Object, ""},
	{`[]`, Array | Strings | Objects, ""},
	{`[null]`, Array, "/0"},
	{`[1]`, Array, "/0"},
	{`["x"]`, Array | Strings, "/0"},
	{`[{}]`, Array | Objects, "/0"},
	{`[[]]`, Array, "/0"},
}

func TestEveryFieldsTypeIsChecked(t *testing.T) {
	t.Parallel()
	eachCommand(t, func(t *testing.T, c Command, tree map[string]any) {
		t.Helper()
		visit(c.Fields, tree, nil, func(f Field, at *place) {
			value := at.object[f.Name]
			for _, literal := range literals {
				at.object[f.Name] = json.RawMessage(literal.json)
				wantTyped(t, inspectTree(t, tree, c.Name), f, at.pointer(f.Name), literal.json, literal.types, literal.below)
			}
			at.object[f.Name] = value
		})
	})
}

// wantTyped checks the result of Inspect for a literal in place of the field's value.
func wantTyped(t *testing.T, err error, f Field, path, literal string, types Type, below string) {
	t.Helper()
	if below != "" && f.Type&(Array|Strings|Objects) != 0 {
		path += below
	}
	switch {
	case f.Type&types == 0:
		wantRejection(t, err, ReasonPayload, path)
	case f.Name == "CallbackCommand":
		wantRejection(t, err, ReasonMismatch, path)
	case err == nil || strings.HasPrefix(literal, `[`) && f.Min > 0:
	case strings.ContainsAny(literal, `{`): // an object without its required fields
		if r := wantReason(t, err, ReasonPayload); !strings.HasPrefix(r.Path, path) {
			t.Errorf("%s for %s: %v", literal, path, &r)
		}
	default:
		t.Errorf("%s for %s: %v", literal, path, err)
	}
}

func TestIntegersAreAtLeastTheirMinimum(t *testing.T) {
	t.Parallel()
	eachCommand(t, func(t *testing.T, c Command, tree map[string]any) {
		t.Helper()
		visit(c.Fields, tree, nil, func(f Field, at *place) {
			if f.Type&(Integer|Uint32) == 0 {
				return
			}
			value := at.object[f.Name]
			defer func() { at.object[f.Name] = value }()
			least := f.Min
			if least == 0 && f.Type&Uint32 == 0 && f.Name != "EventTime" {
				at.object[f.Name] = json.Number("-9007199254740991") // no minimum
				if err := inspectTree(t, tree, c.Name); err != nil {
					t.Errorf("%s: %v", at.pointer(f.Name), err)
				}
				return
			}
			at.object[f.Name] = json.Number(strconv.FormatInt(least, 10))
			if err := inspectTree(t, tree, c.Name); err != nil {
				t.Errorf("%s: the least value: %v", at.pointer(f.Name), err)
			}
			at.object[f.Name] = json.Number(strconv.FormatInt(least-1, 10))
			wantRejection(t, inspectTree(t, tree, c.Name), ReasonPayload, at.pointer(f.Name))
		})
	})
}

func TestFieldNamesAreCaseSensitive(t *testing.T) {
	t.Parallel()
	eachCommand(t, func(t *testing.T, c Command, tree map[string]any) {
		t.Helper()
		visit(c.Fields, tree, nil, func(f Field, at *place) {
			for _, alike := range []string{strings.ToLower(f.Name), strings.ToUpper(f.Name)} {
				if alike == f.Name {
					continue
				}
				at.object[alike] = at.object[f.Name]
				wantRejection(t, inspectTree(t, tree, c.Name), ReasonPayload, at.pointer(alike))
				delete(at.object, alike)
			}
		})
	})
}

func TestUnknownFieldsAreIgnoredInEveryObject(t *testing.T) {
	t.Parallel()
	eachCommand(t, func(t *testing.T, c Command, tree map[string]any) {
		t.Helper()
		objects := []map[string]any{tree}
		visit(c.Fields, tree, nil, func(_ Field, at *place) { objects = append(objects, at.object) })
		for _, object := range objects {
			maps.Copy(object, map[string]any{"": nil, "New_Field": []any{1.5, map[string]any{"CallbackCommand": "x", "groupid": -1}}})
		}
		if err := inspectTree(t, tree, c.Name); err != nil {
			t.Error(err)
		}
	})
}

func TestCommandsWithoutASchemaMustHaveTheQuerysCommand(t *testing.T) {
	t.Parallel()
	for _, c := range slices.DeleteFunc(Commands(), func(c Command) bool { return len(c.Fields) > 0 }) {
		event, err := Inspect([]byte(`{"Anything":[null]}`), c.Name)
		if err != nil || event.Class != c.Class {
			t.Errorf("%s: got class %q, %v", c.Name, event.Class, err)
		}
		_, err = Inspect([]byte(`{"CallbackCommand":"Other"}`), c.Name)
		wantRejection(t, err, ReasonMismatch, "/CallbackCommand")
	}
}

func TestMisspelledCommandsSuggestTheKnownOne(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"group.callbackafterrecallmsg":   RecallCommand,
		" " + RecallCommand:              RecallCommand,
		"Group.CallbackAfterRecallMsg\t": RecallCommand,
		"Group_CallbackAfterRecallMsg":   RecallCommand,
		"Group.CallbackAfterRecalMsg":    RecallCommand,
		"Group.CallbackAfterRecallMsgs":  RecallCommand,
		"Group.CallbackAfterRecllaMsg":   RecallCommand,
		"Group.AfterRecallMsg":           RecallCommand,
		"CallbackAfterRecallMsg":         RecallCommand,
		"AfterRecallMsg":                 RecallCommand,
		"C2C.CallbackAfterMsgWithdraw":   "C2C.CallbackAfterMsgWithDraw",
		"State.StatChange":               "State.StateChange",
		RecallCommand:                    "",
		"Group.CallbackAfterMemberMuted": "",
		"Group.CallbackAfterUnrecallMsg": RecallCommand,
		"Group.CallbackBeforeRecallMsg":  "",
		"Future.CallbackAfterAnything":   "",
		"Call.CallbackAfterSendMsg":      "",
		"New":                            "",
		"":                               "",
	} {
		if got := Suggest(name); got != want {
			t.Errorf("%q: got %q, want %q", name, got, want)
		}
	}
	for _, c := range Commands() {
		if got := Suggest(c.Name); got != "" {
			t.Errorf("%s is taken for %s", c.Name, got)
		}
	}
}

func TestKnownCommandsAreNoLookAlikes(t *testing.T) {
	t.Parallel()
	for _, c := range Commands() {
		if got := LookAlike(c.Name); got != "" {
			t.Errorf("%s passes for %s", c.Name, got)
		}
		for _, alike := range []string{c.Name + " ", " " + c.Name, strings.ToUpper(c.Name), strings.Replace(c.Name, ".", "", 1), c.Name + "\u00a0", c.Name + "\u202e", "\u0085" + c.Name, strings.Replace(c.Name, "s", "\u017f", 1)} {
			if alike != c.Name && LookAlike(alike) != c.Name {
				t.Errorf("%q passes for %q, want %s", alike, LookAlike(alike), c.Name)
			}
		}
	}
	if got := LookAlike("Future.CallbackAfterAnything"); got != "" {
		t.Errorf("a new command passes for %s", got)
	}
}
