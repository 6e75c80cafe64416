// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

// otherCommands are about content moderation, alerts, and the customer service. The
// payloads of the latter have no schema here yet.
var otherCommands = []Command{
	{ // the payload has no CallbackCommand
		Name: "ContentCallback.ResultNotify", Class: After, Family: "content",
		Source: []Page{zh("269/95616", ""), intl("1047/78240", "2026-03-13")},
		Fields: []Field{
			{Name: "Scene", Type: String},
			{Name: "SdkAppId", Type: Integer},
			expected(fromAccount),
			{Name: "ContactItem", Type: String | Object, Optional: true, Fields: []Field{ // only for messages
				{Name: "ContactType", Type: Integer},
				optional(toAccount),
				{Name: "ToGroupId", Type: String, Optional: true},
			}},
			{Name: "ContentType", Type: String},
			{Name: "TextContent", Type: Array | String, Optional: true}, // a String in the table of 1047/77840
			{Name: "FileURL", Type: String, Optional: true},
			{Name: "MsgID", Type: String | Integer, Optional: true}, // the MsgKey, or the MsgSeq in a group
			{Name: "CtxcbResult", Type: Integer},
			{Name: "CtxcbRequestId", Type: String},
			{Name: "CtxcbKeywords", Type: Array, Optional: true},
			{Name: "CtxcbSuggestion", Type: String, Optional: true},
			{Name: "CtxcbLabel", Type: String, Optional: true},
			{Name: "CtxcbSubLabel", Type: String, Optional: true},
			{Name: "CtxcbSubLabelDesc", Type: String, Optional: true},
			{Name: "CtxcbLibName", Type: String, Optional: true},
			cloudCustomData,
		},
	},
	{
		Name: "Alert.RequestOverLimit", Class: After, Family: "alert",
		Source: []Page{{URL: "https://trtc.io/document/60256"}},
		Fields: []Field{
			callbackCommand,
			{Name: "ServiceName", Type: String, Required: true},
			{Name: "Command", Type: String, Required: true},
			{Name: "Request", Type: Integer, Required: true},
			{Name: "Limit", Type: Integer, Required: true},
		},
	},
	{
		Name: "Desk.SessionEventNotify", Class: After, Family: "desk",
		Source: []Page{zh("269/111212", ""), intl("1229/68989", "2025-04-07")},
	},
	{
		Name: "Member.EventNotify", Class: After, Family: "member",
		Source: []Page{zh("269/133254", "2026-07-01")},
	},
}
