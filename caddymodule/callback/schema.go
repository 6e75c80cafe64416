// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

// schema is a Command prepared for one pass over a payload.
type schema struct {
	Command
	object *object
}

// object is the prepared form of a list of Fields.
type object struct {
	fields   []field
	required uint64 // a bit for each field that must be there
}

// field is the prepared form of a Field.
type field struct {
	Field
	normalized string // the name as normalizeName leaves it
	object     *object
	role       role
}

// role says which part of the Event a field is.
type role uint8

const (
	roleNone role = iota
	roleGroupID
	roleTopicID
	roleOperator
	roleGroupType // the last of the Event's strings
	roleCommand
	roleEventTime
	roleMsgSeq
	roleIdentity // no part, but tells one event from another
)

// roles are given by name: the envelope's fields mean the same in every command,
// and the requester has a different name by command, but one in each.
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

// deepRoles are those that also hold in objects inside the payload.
var deepRoles = map[string]role{
	"CallbackCommand": roleCommand,
	"MsgSeq":          roleMsgSeq,
	"MsgKey":          roleIdentity,
	"EventTime":       roleEventTime,
}

var (
	schemas = prepareAll(commands)

	// anyCommand is for commands without a schema. Nothing may be demanded of
	// their payload but that its CallbackCommand, if any, is the query's, and that
	// an EventTime that is a number is a time.
	anyCommand = prepare([]Field{
		{Name: "CallbackCommand", Type: String},
		{Name: "GroupId", Type: anyType},
		{Name: "TopicId", Type: anyType},
		{Name: "Operator_Account", Type: anyType},
		{Name: "Type", Type: anyType},
		{Name: "EventTime", Type: anyType},
	}, roles)
)

// anyType takes a value as it is, also null.
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

// schemaOf returns what is demanded of the command's payload, and its class.
func schemaOf(command string) (*object, Class) {
	if s := schemas[command]; s != nil {
		return s.object, s.Class
	}
	return anyCommand, ClassOf(command)
}

// find returns the index of the field of that name, -1 if there is none. It begins
// at hint, where the next field is when they come in the table's order.
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
