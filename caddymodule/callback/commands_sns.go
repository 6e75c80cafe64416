// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

// snsCommands are about friends, block lists and followers.
var snsCommands = []Command{
	{
		Name: "Sns.CallbackPrevFriendAdd", Class: Before, Family: "sns",
		Source: []Page{zh("269/61698", ""), intl("1047/43468", "2025-03-10")},
		Codes:  []CodeRange{snsCodes},
		Fields: []Field{
			callbackCommand,
			{Name: "Requester_Account", Type: String, Required: true},
			fromAccount,
			{Name: "FriendItem", Type: Objects, Required: true, Fields: []Field{
				toAccount,
				{Name: "Remark", Type: String, Optional: true},
				{Name: "GroupName", Type: String, Optional: true},
				{Name: "AddSource", Type: String, Optional: true},
				{Name: "AddWording", Type: String, Optional: true},
			}},
			{Name: "AddType", Type: String},
			{Name: "ForceAddFlags", Type: Integer},
			eventTime,
		},
	},
	{
		Name: "Sns.CallbackPrevFriendResponse", Class: Before, Family: "sns",
		Source: []Page{zh("269/61699", ""), intl("1047/43467", "")},
		Codes:  []CodeRange{snsCodes},
		Fields: []Field{
			callbackCommand,
			{Name: "Requester_Account", Type: String, Required: true},
			fromAccount,
			{Name: "ResponseFriendItem", Type: Objects, Required: true, Fields: []Field{
				toAccount,
				{Name: "Remark", Type: String, Optional: true},
				{Name: "TagName", Type: String, Optional: true},
				{Name: "ResponseAction", Type: String, Required: true},
			}},
			eventTime,
		},
	},
	{
		Name: "Sns.CallbackFriendAdd", Class: After, Family: "sns",
		Source: []Page{zh("269/1657", "2023-07-27"), intl("1047/34359", "2024-08-20")},
		Fields: []Field{
			callbackCommand,
			{Name: "PairList", Type: Objects, Required: true, Fields: []Field{
				fromAccount,
				toAccount,
				{Name: "Initiator_Account", Type: String, Required: true},
			}},
			{Name: "ClientCmd", Type: String},
			{Name: "Admin_Account", Type: String, Optional: true},
			{Name: "ForceFlag", Type: Integer},
			optional(eventTime), // not documented
		},
	},
	{
		Name: "Sns.CallbackFriendDelete", Class: After, Family: "sns",
		Source: []Page{zh("269/1659", "2023-05-04"), intl("1047/34360", "2024-02-19")},
		Fields: []Field{
			callbackCommand,
			{Name: "PairList", Type: Objects, Required: true, Fields: []Field{
				fromAccount,
				toAccount,
			}},
			optional(eventTime), // not documented
		},
	},
	{
		Name: "Sns.CallbackBlackListAdd", Class: After, Family: "sns",
		Source: []Page{zh("269/1660", ""), intl("1047/34361", "")},
		Fields: []Field{
			callbackCommand,
			{Name: "PairList", Type: Objects, Required: true, Fields: []Field{
				fromAccount,
				toAccount,
			}},
			optional(eventTime), // not documented
		},
	},
	{
		Name: "Sns.CallbackBlackListDelete", Class: After, Family: "sns",
		Source: []Page{zh("269/1661", ""), intl("1047/34362", "")},
		Fields: []Field{
			callbackCommand,
			{Name: "PairList", Type: Objects, Required: true, Fields: []Field{
				fromAccount,
				toAccount,
			}},
			optional(eventTime), // not documented
		},
	},
	{
		Name: "Follow.CallbackAfterFollowAdd", Class: After, Family: "follow",
		Source: []Page{zh("269/118915", "2025-05-29"), intl("1047/70355", "2025-06-09")},
		Fields: []Field{
			callbackCommand, fromAccount,
			{Name: "FollowList", Type: Objects, Required: true, Fields: []Field{
				toAccount,
			}},
			eventTime,
		},
	},
	{
		Name: "Follow.CallbackAfterFollowDelete", Class: After, Family: "follow",
		Source: []Page{intl("647/74357", "2026-03-27")},
		Fields: []Field{
			callbackCommand, fromAccount,
			{Name: "To_Account", Type: Strings, Required: true}, // an array only here
			eventTime,
		},
	},
}
