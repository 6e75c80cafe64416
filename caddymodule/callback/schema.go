// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

import "slices"

// schema is a Command in the form that the inspector uses.
type schema struct {
	Command
	object *object
}

// object is a list of Fields in the form that the inspector uses.
type object struct {
	fields   []field
	required uint64 // the bits of the required fields
	usual    uint64 // the bits of the other fields whose absence is drift
	complete bool   // fields are all that Tencent documents, so that others are drift
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
	roleRoomID
	roleChannel // an official account, whose events are a conversation
	roleOperator
	roleGroupType
	roleMsgKey // the last role with a string in inspector.envelope
	roleFrom
	roleTo
	roleCommand
	roleSdkAppID
	roleEventTime
	roleMsgSeq
	roleIdentity // not in the Event, but distinguishes it from others
)

// roles maps field names to roles. These fields have the same meaning in all commands;
// the requester's field has one of several names, but only one in each command.
var roles = map[string]role{
	"CallbackCommand":   roleCommand,
	"SdkAppId":          roleSdkAppID,
	"GroupId":           roleGroupID,
	"TopicId":           roleTopicID,
	"RoomId":            roleRoomID,
	"Official_Account":  roleChannel,
	"Operator_Account":  roleOperator,
	"Requestor_Account": roleOperator,
	"Requester_Account": roleOperator,
	"Report_Account":    roleOperator,
	"Admin_Account":     roleOperator,
	"From_Account":      roleFrom,
	"OldOwner_Account":  roleFrom,
	"To_Account":        roleTo,
	"Peer_Account":      roleTo,
	"Member_Account":    roleTo,
	"Modified_Account":  roleTo,
	"NewOwner_Account":  roleTo,
	"Type":              roleGroupType,
	"EventTime":         roleEventTime,
	"MsgSeq":            roleMsgSeq,
	"MsgKey":            roleMsgKey,
	"MsgID":             roleIdentity,
}

// deepRoles are the roles of fields in nested objects.
var deepRoles = map[string]role{
	"CallbackCommand":    roleCommand,
	"From_Account":       roleFrom,
	"To_Account":         roleTo,
	"Member_Account":     roleTo,
	"Subscriber_Account": roleTo,
	"MsgSeq":             roleMsgSeq,
	"MsgKey":             roleMsgKey,
	"EventTime":          roleEventTime,
}

var (
	schemas = prepareAll(commands)

	// anyCommand is the schema of commands without one. It requires no fields, but if
	// there is a CallbackCommand, it must match the query's, and a numeric EventTime
	// must be in range.
	anyCommand = prepare([]Field{
		ifCommand,
		{Name: "GroupId", Type: anyType},
		{Name: "TopicId", Type: anyType},
		{Name: "RoomId", Type: anyType},
		{Name: "Operator_Account", Type: anyType},
		{Name: "From_Account", Type: anyType},
		{Name: "To_Account", Type: anyType},
		{Name: "Type", Type: anyType},
		{Name: "EventTime", Type: anyType},
	}, roles)
)

// ifCommand is the CallbackCommand of payloads in which Tencent does not repeat the
// query's. A backend may read the body's first, so it must be the same if it is there.
var ifCommand = Field{Name: "CallbackCommand", Type: String, Optional: true}

// anyType accepts any value, including null.
const anyType Type = 1 << 15

func prepareAll(commands []Command) map[string]*schema {
	all := make(map[string]*schema, len(commands))
	for _, c := range commands {
		s := &schema{Command: c, object: anyCommand}
		if len(c.Fields) > 0 {
			s.object = prepare(withCommand(c.Fields), roles)
			s.object.noteDrift()
		}
		all[c.Name] = s
	}
	return all
}

// withCommand returns the fields of a payload, with ifCommand if they do not have a
// CallbackCommand of their own.
func withCommand(fields []Field) []Field {
	if slices.ContainsFunc(fields, func(f Field) bool { return f.Name == ifCommand.Name }) {
		return fields
	}
	return append(slices.Clip(fields), ifCommand)
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

// noteDrift makes the inspector note what is missing or unknown in the object, and in the
// objects in it.
func (o *object) noteDrift() {
	o.complete = true
	for i, f := range o.fields {
		if !f.Required && !f.Optional {
			o.usual |= 1 << i
		}
		if f.object != nil {
			f.object.noteDrift()
		}
	}
}

// schemaOf returns the schema of the command's payload, the command's class, and whether
// its events recur.
func schemaOf(command string) (o *object, class Class, recurs bool) {
	if s := schemas[command]; s != nil {
		return s.object, s.Class, s.Recurs
	}
	return anyCommand, ClassOf(command), false
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
