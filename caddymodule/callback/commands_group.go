// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

// RecallCommand is sent after a group message was recalled, by a client user or
// by an administrator over REST.
const RecallCommand = "Group.CallbackAfterRecallMsg"

// The fields that many group callbacks share.
var (
	callbackCommand = Field{Name: "CallbackCommand", Type: String, Required: true}
	groupID         = Field{Name: "GroupId", Type: String, Required: true, Min: 1}
	groupType       = Field{Name: "Type", Type: String, Required: true}
	operator        = Field{Name: "Operator_Account", Type: String, Required: true}
	topicID         = Field{Name: "TopicId", Type: String}

	// Milliseconds. The tables say Integer, the samples show a quoted string, and
	// real traffic holds both.
	groupEventTime = Field{Name: "EventTime", Type: Integer | Digits}
)

var groupCommands = []Command{
	{ // https://www.tencentcloud.com/document/product/1047/46979
		Name: RecallCommand, Class: After, Family: "group",
		Fields: []Field{
			callbackCommand, operator, groupType, groupID,
			{Name: "MsgSeqList", Type: Objects, Required: true, Min: 1, Fields: []Field{
				{Name: "MsgSeq", Type: Uint32, Required: true, Min: 1},
				{Name: "MsgId", Type: String},
			}},
			topicID, groupEventTime,
		},
	},
}
