// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

// otherCommands are about content moderation, alerts, and the neighbouring Live and Room products.
var otherCommands = []Command{
	{ // not documented by Tencent; the fields are taken from public libraries
		Name: "ContentCallback.ResultNotify", Class: After, Family: "content",
		Fields: []Field{
			{Name: "Scene", Type: String},
			{Name: "From_Account", Type: String},
			{Name: "ContactItem", Type: String | Object},
			{Name: "ContentType", Type: String},
			{Name: "TextContent", Type: Array},
			{Name: "FileURL", Type: String},
			{Name: "MsgID", Type: String},
			{Name: "CtxcbResult", Type: Integer},
			{Name: "CtxcbRequestId", Type: String},
			{Name: "CtxcbKeywords", Type: Array},
			{Name: "CtxcbSuggestion", Type: String},
			{Name: "CtxcbLabel", Type: String},
			cloudCustomData,
		},
	},
	{ // https://trtc.io/document/60256
		Name: "Alert.RequestOverLimit", Class: After, Family: "alert",
		Fields: []Field{
			callbackCommand,
			{Name: "ServiceName", Type: String, Required: true},
			{Name: "Command", Type: String, Required: true},
			{Name: "Request", Type: Integer, Required: true},
			{Name: "Limit", Type: Integer, Required: true},
		},
	},
	// https://trtc.io/document/64412; the payloads have no schema here yet
	{Name: "Live.CallbackAfterCreateRoom", Class: After, Family: "live_room"},
	{Name: "Live.CallbackAfterDestroyRoom", Class: After, Family: "live_room"},
	{Name: "Live.CallbackAfterMemberStateChanged", Class: After, Family: "live_room"},
	{Name: "Live.CallbackAfterStartBattle", Class: After, Family: "live_room"},
	{Name: "Live.CallbackAfterEndBattle", Class: After, Family: "live_room"},
	{Name: "Live.CallbackAfterSetMetadata", Class: After, Family: "live_room"},
	{Name: "Live.CallbackAfterChangeOwner", Class: After, Family: "live_room"},
	{Name: "Room.CallbackAfterCreateRoom", Class: After, Family: "live_room"},
	{Name: "Room.CallbackAfterMemberEnter", Class: After, Family: "live_room"},
	{Name: "Room.CallbackAfterMemberLeave", Class: After, Family: "live_room"},
	{Name: "Room.CallbackAfterUpdateRoomInfo", Class: After, Family: "live_room"},
	{Name: "Mic.CallbackAfterSeatInfoChanged", Class: After, Family: "live_room"},
}
