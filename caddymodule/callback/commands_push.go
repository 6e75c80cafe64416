// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

// pushCommands are about push notifications.
var pushCommands = []Command{
	{
		Name: "Push.OfflinePush", Class: After, Family: "push",
		Source: []Page{zh("269/102567", "2026-01-20"), intl("1047/67552", "2025-07-31")},
		Fields: []Field{pushEvents(
			Field{Name: "From_Account", Type: String, Optional: true},
			Field{Name: "GroupID", Type: String, Optional: true}, // sic; only for a group
			Field{Name: "MsgKey", Type: String, Optional: true},  // only for a one-to-one message
			Field{Name: "MsgSeq", Type: Integer},
			Field{Name: "MsgRandom", Type: Integer, Optional: true},
			Field{Name: "MsgTime", Type: Integer},               // seconds
			Field{Name: "PushID", Type: String, Optional: true}, // since about 2025
		)},
	},
	{
		Name: "Push.AllMemberPush", Class: After, Family: "push",
		Source: []Page{zh("269/102568", ""), intl("1047/67551", "2025-10-27")},
		Fields: []Field{pushEvents(
			Field{Name: "TaskId", Type: String},
			Field{Name: "TaskTime", Type: Integer}, // seconds
		)},
	},
}

// pushEvents returns the only field of a push payload, an array of events with the given
// fields after those that all have.
func pushEvents(fields ...Field) Field {
	common := []Field{
		callbackCommand,
		{Name: "EventType", Type: Integer, Required: true},
		{Name: "EventTime", Type: Integer, Required: true}, // seconds
		toAccount,
		{Name: "PushPlatform", Type: Integer},
		{Name: "PushStage", Type: Integer},
		{Name: "ErrCode", Type: Integer},
		{Name: "ErrInfo", Type: String, Optional: true},
	}
	return Field{Name: "Events", Type: Objects, Required: true, Min: 1, Fields: append(common, fields...)}
}
