// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

// snsCommands are about friends, block lists and followers.
var snsCommands = []Command{
	{ // https://trtc.io/document/43468
		Name: "Sns.CallbackPrevFriendAdd", Class: Before, Family: "sns",
		Codes: []CodeRange{snsCodes},
		Fields: []Field{
			callbackCommand,
			{Name: "Requester_Account", Type: String, Required: true},
			fromAccount,
			{Name: "FriendItem", Type: Objects, Required: true, Fields: []Field{
				{Name: "To_Account", Type: String, Required: true},
				{Name: "Remark", Type: String},
				{Name: "GroupName", Type: String},
				{Name: "AddSource", Type: String},
				{Name: "AddWording", Type: String},
			}},
			{Name: "AddType", Type: String},
			{Name: "ForceAddFlags", Type: Integer},
			eventTime,
		},
	},
	{ // https://trtc.io/document/43467
		Name: "Sns.CallbackPrevFriendResponse", Class: Before, Family: "sns",
		Codes: []CodeRange{snsCodes},
		Fields: []Field{
			callbackCommand,
			{Name: "Requester_Account", Type: String, Required: true},
			fromAccount,
			{Name: "ResponseFriendItem", Type: Objects, Required: true, Fields: []Field{
				{Name: "To_Account", Type: String, Required: true},
				{Name: "Remark", Type: String},
				{Name: "TagName", Type: String},
				{Name: "ResponseAction", Type: String, Required: true},
			}},
			eventTime,
		},
	},
	{ // https://cloud.tencent.com/document/product/269/1657
		Name: "Sns.CallbackFriendAdd", Class: After, Family: "sns",
		Fields: []Field{
			callbackCommand,
			{Name: "PairList", Type: Objects, Required: true, Fields: []Field{
				{Name: "From_Account", Type: String, Required: true},
				{Name: "To_Account", Type: String, Required: true},
				{Name: "Initiator_Account", Type: String, Required: true},
			}},
			{Name: "ClientCmd", Type: String},
			{Name: "Admin_Account", Type: String},
			{Name: "ForceFlag", Type: Integer},
		},
	},
	{ // https://cloud.tencent.com/document/product/269/1659
		Name: "Sns.CallbackFriendDelete", Class: After, Family: "sns",
		Fields: []Field{
			callbackCommand,
			{Name: "PairList", Type: Objects, Required: true, Fields: []Field{
				{Name: "From_Account", Type: String, Required: true},
				{Name: "To_Account", Type: String, Required: true},
			}},
			eventTime,
		},
	},
	{ // https://cloud.tencent.com/document/product/269/1660
		Name: "Sns.CallbackBlackListAdd", Class: After, Family: "sns",
		Fields: []Field{
			callbackCommand,
			{Name: "PairList", Type: Objects, Required: true, Fields: []Field{
				{Name: "From_Account", Type: String, Required: true},
				{Name: "To_Account", Type: String, Required: true},
			}},
			eventTime,
		},
	},
	{ // https://cloud.tencent.com/document/product/269/1661
		Name: "Sns.CallbackBlackListDelete", Class: After, Family: "sns",
		Fields: []Field{
			callbackCommand,
			{Name: "PairList", Type: Objects, Required: true, Fields: []Field{
				{Name: "From_Account", Type: String, Required: true},
				{Name: "To_Account", Type: String, Required: true},
			}},
			eventTime,
		},
	},
	{ // https://trtc.io/document/70355
		Name: "Follow.CallbackAfterFollowAdd", Class: After, Family: "follow",
		Fields: []Field{
			callbackCommand, fromAccount,
			{Name: "FollowList", Type: Objects, Required: true, Fields: []Field{
				{Name: "To_Account", Type: String, Required: true},
			}},
			eventTime,
		},
	},
	{ // https://trtc.io/document/70356
		Name: "Follow.CallbackAfterFollowDelete", Class: After, Family: "follow",
		Fields: []Field{
			callbackCommand, fromAccount,
			{Name: "To_Account", Type: Strings, Required: true}, // an array only here
			eventTime,
		},
	},
}
