// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

import (
	"slices"
	"strings"

	"github.com/agnivade/levenshtein"
)

// Class says when Tencent sends a callback, and so what its answer means.
type Class string

const (
	// Before is the class of callbacks that ask: the answer is a verdict, and
	// Tencent waits 2 seconds for it and never asks again.
	Before Class = "before"
	// After is the class of callbacks that tell: the answer is only noted.
	After Class = "after"
)

// ClassOf returns the class of a command by Tencent's naming, which holds for
// every known command and is the best guess for a new one.
func ClassOf(command string) Class {
	if strings.Contains(command, "CallbackBefore") || strings.Contains(command, "CallbackPrev") {
		return Before
	}
	return After
}

// Command describes one callback command: what [Inspect] demands of its payload.
type Command struct {
	// The CallbackCommand, as in the query.
	Name string `json:"name"`

	// Before or After.
	Class Class `json:"class"`

	// The part of the product that it belongs to, such as "group" or "c2c".
	Family string `json:"family"`

	// The payload's fields. Without any, the payload is checked as strict JSON
	// and for its CallbackCommand, and otherwise taken as it is.
	Fields []Field `json:"fields,omitempty"`

	// The ErrorCodes that forbid, of a Before command; the first one is the plain
	// refusal.
	Codes []CodeRange `json:"codes,omitempty"`
}

// Field describes one field of a payload, or of an object in it.
type Field struct {
	// The name, in the exact case of the wire.
	Name string `json:"name"`

	// What the value may be. Alternatives are combined with |.
	Type Type `json:"type"`

	// Whether the field is in every version and every sample seen. Any other may
	// be absent.
	Required bool `json:"required,omitempty"`

	// The least value of an integer, number of elements of an array, or number
	// of bytes of a string.
	Min int64 `json:"min,omitempty"`

	// The fields of the object, or of each object in the array.
	Fields []Field `json:"fields,omitempty"`
}

// Type is a set of JSON types.
type Type uint16

// The types that fields of callbacks have.
const (
	String  Type = 1 << iota // a string
	Integer                  // a number without fraction or exponent, nearer to 0 than 2^53
	Uint32                   // an Integer from 0 to 4294967295
	Digits                   // a string of decimal digits, an Integer from 0
	Object                   // an object, with the field's Fields
	Array                    // an array of anything
	Strings                  // an array of strings
	Objects                  // an array of objects, each with the field's Fields
)

// typeNames are Tencent's words for the types, in the order of the bits.
var typeNames = [...]string{"String", "Integer", "Integer (uint32)", "String of digits", "Object", "Array", "Array of Strings", "Array of Objects"}

// String returns Tencent's words for the types of the set, separated by " or ".
func (t Type) String() string {
	var names []string
	for i, name := range typeNames {
		if t&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, " or ")
}

// MarshalText returns what String returns.
func (t Type) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// Commands returns every known command, the front example first, the others by
// family.
func Commands() []Command {
	return slices.Clone(commands)
}

// Lookup returns the command of that name, in exact case.
func Lookup(name string) (Command, bool) {
	c, ok := schemas[name]
	if !ok {
		return Command{}, false
	}
	return c.Command, true
}

// LookAlike returns the known command that the name would pass for without being
// it, because they differ in letter case, white space or separators only; empty if
// there is none.
func LookAlike(name string) string {
	if known := commandsByForm[normalizeName(name)]; known != name {
		return known
	}
	return ""
}

// Slip returns the known command of which the name is a slip of the pen: a
// [LookAlike], or one with a letter or two too many, too few or wrong, without the
// product before the dot, or without the word Callback. Empty if the name is known
// or is none.
func Slip(name string) string {
	if _, known := schemas[name]; known {
		return ""
	}
	nearest, least := "", slips(name)+1
	for _, c := range commands {
		forms := []string{c.Name, strings.Replace(c.Name, "Callback", "", 1)}
		if _, behind, _ := strings.Cut(c.Name, "."); !strings.Contains(name, ".") {
			forms = append(forms, behind, strings.Replace(behind, "Callback", "", 1))
		}
		for _, form := range forms {
			if d := distance(name, form); d < least {
				nearest, least = c.Name, d
			}
		}
	}
	return nearest
}

// slips is how many slips a name can have and still be taken for another.
func slips(name string) int {
	switch n := len(normalizeName(name)); {
	case n < 4:
		return 0
	case n < 12:
		return 1
	}
	return 2
}

func distance(a, b string) int {
	return levenshtein.ComputeDistance(normalizeName(a), normalizeName(b))
}

// commandsByForm holds the names of the known commands by their normalized form.
var commandsByForm = func() map[string]string {
	forms := make(map[string]string, len(commands))
	for _, c := range commands {
		forms[normalizeName(c.Name)] = c.Name
	}
	return forms
}()

// commands is the whole table, one family a file.
var commands = slices.Concat(
	groupCommands, topicCommands, c2cCommands, snsCommands, stateCommands,
	officialAccountCommands, botCommands, pushCommands, otherCommands,
)
