// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

import (
	"cmp"
	"slices"
	"strings"

	"github.com/agnivade/levenshtein"
)

// Class says whether Tencent sends a callback before or after the event, which
// determines the meaning of the answer.
type Class string

const (
	// Before is the class of callbacks that ask for permission. The answer is a
	// verdict; Tencent waits 2 seconds for it and does not retry.
	Before Class = "before"
	// After is the class of callbacks that notify. The answer only acknowledges.
	After Class = "after"
)

// ClassOf returns the class of a command according to Tencent's naming convention,
// which holds for every known command and is the best guess for an unknown one.
func ClassOf(command string) Class {
	if strings.Contains(command, "CallbackBefore") || strings.Contains(command, "CallbackPrev") {
		return Before
	}
	return After
}

// Silence says what Tencent does if it gets no good answer to a callback: none within 2
// seconds, or one that is not HTTP 200 with JSON.
type Silence string

const (
	// Allows means that the action takes place, unless a switch in the console says
	// otherwise.
	Allows Silence = "allows"
	// Blocks means that the action does not take place.
	Blocks Silence = "blocks"
	// Loses means that the event is not sent again.
	Loses Silence = "loses"
)

// usualSilence returns what holds for nearly all commands of a class.
func usualSilence(class Class) Silence {
	if class == Before {
		return Allows
	}
	return Loses
}

// Command describes one callback command and the schema of its payload, which
// [Inspect] enforces.
type Command struct {
	// The CallbackCommand, as in the query.
	Name string `json:"name"`

	// Before or After.
	Class Class `json:"class"`

	// The part of the product that the command belongs to, such as "group" or "c2c".
	Family string `json:"family"`

	// The payload's fields. If there are none, only strict JSON and the
	// CallbackCommand are checked.
	Fields []Field `json:"fields,omitempty"`

	// The ErrorCodes that forbid the action of a Before command. The first one is
	// the default.
	Codes []CodeRange `json:"codes,omitempty"`

	// What no good answer means to Tencent.
	Silence Silence `json:"silence"`

	// Whether Tencent uses the answer although the command is not a Before command:
	// it is passed on to a client, so it must come from the backend.
	Answered bool `json:"answered,omitempty"`

	// Whether the same thing can happen to a message or conversation again, such as a
	// message that is modified twice. If so, only the EventTime distinguishes an event
	// from a later one.
	Recurs bool `json:"-"`

	// Tencent's pages that the fields and codes are from.
	Source []Page `json:"source,omitempty"`
}

// Page is a page of Tencent's documentation.
type Page struct {
	// The address of the page.
	URL string `json:"url"`

	// The date of the version that was read, as YYYY-MM-DD or YYYY-MM; empty if the
	// page has none.
	Date string `json:"date,omitempty"`
}

// Field describes one field of a payload, or of an object in it.
type Field struct {
	// The exact, case-sensitive name.
	Name string `json:"name"`

	// The types that the value may have, combined with |.
	Type Type `json:"type"`

	// Whether a payload without the field is rejected. Only fields that every known
	// version and sample of the payload has are required.
	Required bool `json:"required,omitempty"`

	// Whether genuine payloads often lack the field, such as the TopicId of a message
	// that is in no topic. The absence of any other field is noted as [Drift].
	Optional bool `json:"optional,omitempty"`

	// The minimum value of an integer, number of elements of an array, or length in
	// bytes of a string.
	Min int64 `json:"min,omitempty"`

	// The fields of the object, or of each object in the array.
	Fields []Field `json:"fields,omitempty"`
}

// Type is a set of JSON types.
type Type uint16

// The types of callback fields.
const (
	String  Type = 1 << iota // a string
	Integer                  // a number without fraction or exponent, between -2^53 and 2^53
	Uint32                   // an Integer from 0 to 4294967295
	Digits                   // a string of decimal digits, in the range of an Integer
	Object                   // an object, with the field's Fields
	Array                    // an array of anything
	Strings                  // an array of strings
	Objects                  // an array of objects, each with the field's Fields
)

// typeNames are the names of the types in Tencent's documentation, in bit order.
var typeNames = [...]string{"String", "Integer", "Integer (uint32)", "String of digits", "Object", "Array", "Array of Strings", "Array of Objects"}

// String returns Tencent's names of the types in the set, separated by " or ".
func (t Type) String() string {
	var names []string
	for i, name := range typeNames {
		if t&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, " or ")
}

// MarshalText implements [encoding.TextMarshaler]. It returns the same as String.
func (t Type) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// Commands returns all known commands, grouped by family. [RecallCommand] is first.
func Commands() []Command {
	return slices.Clone(commands)
}

// Lookup returns the known command with the exact name.
func Lookup(name string) (Command, bool) {
	c, ok := schemas[name]
	if !ok {
		return Command{}, false
	}
	return c.Command, true
}

// LookAlike returns the known command that the name could be mistaken for, because
// they differ only in letter case, white space or separators. It returns "" if there
// is none, or if the name itself is known.
func LookAlike(name string) string {
	if known := commandsByForm[normalizeName(name)]; known != name {
		return known
	}
	return ""
}

// Suggest returns the known command that was probably meant by a misspelled name: one
// that differs by a typo or two, lacks the prefix before the dot, or lacks the word
// Callback. It returns "" if the name is known, or resembles no command.
func Suggest(name string) string {
	if _, known := schemas[name]; known {
		return ""
	}
	nearest, least := "", maxTypos(name)+1
	for _, c := range commands {
		forms := []string{c.Name, strings.Replace(c.Name, "Callback", "", 1)}
		if _, suffix, _ := strings.Cut(c.Name, "."); !strings.Contains(name, ".") {
			forms = append(forms, suffix, strings.Replace(suffix, "Callback", "", 1))
		}
		for _, form := range forms {
			if d := distance(name, form); d < least {
				nearest, least = c.Name, d
			}
		}
	}
	return nearest
}

// maxTypos returns the edit distance up to which a name counts as misspelled. Short
// names allow less, because they resemble each other.
func maxTypos(name string) int {
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

// commandsByForm maps the normalized names of the known commands to their exact names.
var commandsByForm = func() map[string]string {
	forms := make(map[string]string, len(commands))
	for _, c := range commands {
		forms[normalizeName(c.Name)] = c.Name
	}
	return forms
}()

// commands is the table of known commands. Each family has its own file.
var commands = withSilence(slices.Concat(
	groupCommands, topicCommands, c2cCommands, snsCommands, stateCommands,
	officialAccountCommands, botCommands, pushCommands, liveCommands, callCommands, otherCommands,
))

// withSilence sets the Silence of the commands that do not set their own.
func withSilence(commands []Command) []Command {
	for i, c := range commands {
		commands[i].Silence = cmp.Or(c.Silence, usualSilence(c.Class))
	}
	return commands
}
