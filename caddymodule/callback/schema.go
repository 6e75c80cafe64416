// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

import (
	"slices"
	"strconv"
	"strings"
)

// schema is a Command prepared for one pass over a payload.
type schema struct {
	object *object
	Command
}

// object is the prepared form of a list of Fields.
type object struct {
	fields   []field // what every payload needs of them
	required uint64  // a bit for each field that must be there

	table  []Field  // as they stand in the table
	folded []string // their names as undress leaves them
}

// field is one of an object's. It is small, because by the time of the next
// callback nothing of it is in the processor's cache any more.
type field struct {
	quoted string // the name and its colon as they nearly always stand in a payload
	object *object
	min    int64
	types  Type
	role   role
}

// role says what of the Event a field fills.
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
	roleIdentity // fills nothing, but tells one event from another
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
	"EventTime":       roleIdentity,
}

var (
	schemas = prepareAll(commands)

	// anyCommand is for commands without a schema. Nothing may be demanded of
	// their payload but that its CallbackCommand, if any, is the query's.
	anyCommand = &schema{object: prepare([]Field{
		{Name: "CallbackCommand", Type: String},
		{Name: "GroupId", Type: anyType},
		{Name: "TopicId", Type: anyType},
		{Name: "Operator_Account", Type: anyType},
		{Name: "Type", Type: anyType},
		{Name: "EventTime", Type: anyType},
	}, roles)}
)

const anyType Type = 1<<15 | 1<<14 // taken as it is, also null

func prepareAll(commands []Command) map[string]*schema {
	all := make(map[string]*schema, len(commands))
	for _, c := range commands {
		s := &schema{Command: c}
		if len(c.Fields) > 0 {
			s.object = prepare(c.Fields, roles)
		}
		all[c.Name] = s
	}
	return all
}

func prepare(fields []Field, roles map[string]role) *object {
	o := &object{fields: make([]field, len(fields)), table: slices.Clone(fields)}
	for i, f := range fields {
		o.fields[i] = field{quoted: strconv.Quote(f.Name) + ":", object: prepareNested(f), min: f.Min, types: f.Type, role: roles[f.Name]}
		o.folded = append(o.folded, undress(f.Name))
		if f.Required {
			o.required |= 1 << i
		}
	}
	return o
}

func prepareNested(f Field) *object {
	if len(f.Fields) == 0 {
		return nil
	}
	return prepare(f.Fields, deepRoles)
}

// classOf returns the class of the command that the schema was found for.
func (s *schema) classOf(command string) Class {
	if s == anyCommand {
		return ClassOf(command)
	}
	return s.Class
}

func schemaOf(command string) *schema {
	if s := schemas[command]; s != nil && s.object != nil {
		return s
	}
	return anyCommand
}

// find returns the index of the field whose quoted name and colon the text begins
// with, -1 if there is none or they are written otherwise. It begins at hint, where
// the next field is when they come in the table's order.
func (o *object) find(text []byte, hint int) int {
	for i := range o.fields {
		if i += hint; i >= len(o.fields) {
			i -= len(o.fields)
		}
		quoted := o.fields[i].quoted
		if len(quoted) <= len(text) && string(text[:len(quoted)]) == quoted {
			return i
		}
	}
	return -1
}

// named returns the index of the field of that name, -1 if there is none.
func (o *object) named(name []byte) int {
	for i := range o.table {
		if o.table[i].Name == string(name) {
			return i
		}
	}
	return -1
}

// fold returns the index of the field whose name some parser would take the name
// for, -1 if there is none.
func (o *object) fold(name []byte) int {
	folded := undress(string(name))
	return slices.IndexFunc(o.folded, func(known string) bool { return strings.EqualFold(known, folded) })
}
