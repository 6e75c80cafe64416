// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

// pushCommands are about push notifications.
var pushCommands = []Command{
	{ // https://www.tencentcloud.com/document/product/1047/67551
		Name: "Push.OfflinePush", Class: After, Family: "push",
		Fields: []Field{
			{Name: "Events", Type: Objects, Required: true, Min: 1, Fields: []Field{
				{Name: "CallbackCommand", Type: String, Required: true},
				{Name: "EventType", Type: Integer, Required: true},
				{Name: "EventTime", Type: Integer, Required: true}, // seconds
				{Name: "To_Account", Type: String, Required: true},
				{Name: "PushPlatform", Type: Integer},
				{Name: "PushStage", Type: Integer},
				{Name: "ErrCode", Type: Integer},
				{Name: "ErrInfo", Type: String},
				{Name: "From_Account", Type: String},
				{Name: "GroupID", Type: String}, // sic
				{Name: "MsgKey", Type: String},
				{Name: "MsgSeq", Type: Integer},
				{Name: "MsgRandom", Type: Integer},
				{Name: "MsgTime", Type: Integer},
			}},
		},
	},
	{ // https://www.tencentcloud.com/document/product/1047/67552
		Name: "Push.AllMemberPush", Class: After, Family: "push",
		Fields: []Field{
			{Name: "Events", Type: Objects, Required: true, Min: 1, Fields: []Field{
				{Name: "CallbackCommand", Type: String, Required: true},
				{Name: "EventType", Type: Integer, Required: true},
				{Name: "EventTime", Type: Integer, Required: true}, // seconds
				{Name: "To_Account", Type: String, Required: true},
				{Name: "PushPlatform", Type: Integer},
				{Name: "PushStage", Type: Integer},
				{Name: "ErrCode", Type: Integer},
				{Name: "ErrInfo", Type: String},
				{Name: "TaskId", Type: String},
				{Name: "TaskTime", Type: Integer},
			}},
		},
	},
}
