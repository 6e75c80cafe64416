// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

// schema is a Command in the form that the inspector uses.
type schema struct {
	Command
	object *object
}

// object is a list of Fields in the form that the inspector uses.
type object struct {
	fields   []field
	required uint64 // the bits of the required fields
}

// field is a Field in the form that the inspector uses.
type field struct {
	Field
	normalized string  // the normalized name
	object     *object // the prepared Fields; nil if there are none
	role       role
}

// role is the part of an Event that a field provides.
type role uint8

const (
	roleNone role = iota
	roleGroupID
	roleTopicID
	roleOperator
	roleGroupType // the last role with a string in inspector.envelope
	roleCommand
	roleEventTime
	roleMsgSeq
	roleIdentity // not in the Event, but distinguishes it from others
)

// roles maps field names to roles. These fields have the same meaning in all commands;
// the requester's field has one of several names, but only one in each command.
var roles = map[string]role{
	"CallbackCommand":   roleCommand,
	"GroupId":           roleGroupID,
	"TopicId":           roleTopicID,
	"Operator_Account":  roleOperator,
	"Requestor_Account": roleOperator,
	"Requester_Account": roleOperator,
	"Report_Account":    roleOperator,
	"Admin_Account":     roleOperator,
	"Type":              roleGroupType,
	"EventTime":         roleEventTime,
	"MsgSeq":            roleMsgSeq,
	"MsgKey":            roleIdentity,
	"MsgID":             roleIdentity,
}

// deepRoles are the roles of fields in nested objects.
var deepRoles = map[string]role{
	"CallbackCommand": roleCommand,
	"MsgSeq":          roleMsgSeq,
	"MsgKey":          roleIdentity,
	"EventTime":       roleEventTime,
}

var (
	schemas = prepareAll(commands)

	// anyCommand is the schema of commands without one. It requires no fields, but if
	// there is a CallbackCommand, it must match the query's, and a numeric EventTime
	// must be in range.
	anyCommand = prepare([]Field{
		{Name: "CallbackCommand", Type: String},
		{Name: "GroupId", Type: anyType},
		{Name: "TopicId", Type: anyType},
		{Name: "Operator_Account", Type: anyType},
		{Name: "Type", Type: anyType},
		{Name: "EventTime", Type: anyType},
	}, roles)
)

// anyType accepts any value, including null.
const anyType Type = 1 << 15

func prepareAll(commands []Command) map[string]*schema {
	all := make(map[string]*schema, len(commands))
	for _, c := range commands {
		s := &schema{Command: c, object: anyCommand}
		if len(c.Fields) > 0 {
			s.object = prepare(c.Fields, roles)
		}
		all[c.Name] = s
	}
	return all
}

func prepare(fields []Field, roles map[string]role) *object {
	o := new(object)
	for i, f := range fields {
		prepared := field{Field: f, normalized: normalizeName(f.Name), role: roles[f.Name]}
		if len(f.Fields) > 0 {
			prepared.object = prepare(f.Fields, deepRoles)
		}
		o.fields = append(o.fields, prepared)
		if f.Required {
			o.required |= 1 << i
		}
	}
	return o
}

// schemaOf returns the schema of the command's payload, and the command's class.
func schemaOf(command string) (*object, Class) {
	if s := schemas[command]; s != nil {
		return s.object, s.Class
	}
	return anyCommand, ClassOf(command)
}

// find returns the index of the field with that name, or -1 if there is none. The
// search begins at hint, which is right if fields are in the order of the schema.
func (o *object) find(name []byte, hint int) int {
	for i := hint; i < len(o.fields); i++ {
		if o.fields[i].Name == string(name) {
			return i
		}
	}
	for i := range min(hint, len(o.fields)) {
		if o.fields[i].Name == string(name) {
			return i
		}
	}
	return -1
}
