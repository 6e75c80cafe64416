// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

// liveCommands are about the neighbouring products Live and Room. Except for gifts, the
// payloads have no schema here yet.
var liveCommands = []Command{
	{
		Name: "Live.CallbackBeforeSendGift", Class: Before, Family: "live_room",
		Source:  []Page{zh("647/121916", "2025-12-04"), intl("647/72210", "2025-12-08")},
		Codes:   []CodeRange{forbidCode, giftCodes},
		Silence: Blocks, // unless the app has set Live.CallbackBeforeCallBackNotBlock
		Fields: []Field{
			callbackCommand, operator,
			{Name: "RoomId", Type: String, Required: true},
			// The samples have the gift's fields in GiftWater, the tables have them
			// without it.
			{Name: "GiftWater", Type: Object, Fields: []Field{
				expected(fromAccount),
				{Name: "To_Account", Type: Strings},
				{Name: "Time", Type: Integer}, // seconds
				{Name: "GiftId", Type: String},
				{Name: "Count", Type: Integer},
				{Name: "Coins", Type: Integer},
			}},
			optional(eventTime), // not documented
		},
	},
	{Name: "Live.CallbackAfterCreateRoom", Class: After, Family: "live_room", Source: livePages},
	{Name: "Live.CallbackAfterDestroyRoom", Class: After, Family: "live_room", Source: livePages},
	{
		Name: "Live.CallbackAfterUpdateRoomInfo", Class: After, Family: "live_room",
		Source: []Page{intl("647/67938", "")},
	},
	{Name: "Live.CallbackAfterSetMetadata", Class: After, Family: "live_room", Source: livePages},
	{ // the page's table has the name of Live.CallbackAfterSetMetadata
		Name: "Live.CallbackAfterDelMetadata", Class: After, Family: "live_room",
		Source: []Page{intl("647/68223", "")},
	},
	{
		Name: "Live.CallbackAfterCreateRoomReachingThreshold", Class: After, Family: "live_room",
		Source: []Page{intl("647/70485", "")},
	},
	{
		Name: "Live.CallbackAfterMemberStateChanged", Class: After, Family: "live_room",
		Source: []Page{zh("647/110526", "2026-01-26"), intl("647/64424", "2024-09-24")},
	},
	{Name: "Live.CallbackAfterChangeOwner", Class: After, Family: "live_room", Source: livePages},
	{
		Name: "Live.CallbackAfterModifyAdmin", Class: After, Family: "live_room",
		Source: []Page{intl("647/72554", "")},
	},
	{
		Name: "Live.CallbackAfterCreateBattle", Class: After, Family: "live_room",
		Source: []Page{intl("647/68259", "")},
	},
	{Name: "Live.CallbackAfterStartBattle", Class: After, Family: "live_room", Source: livePages},
	{Name: "Live.CallbackAfterEndBattle", Class: After, Family: "live_room", Source: livePages},
	{Name: "Room.CallbackAfterCreateRoom", Class: After, Family: "live_room", Source: roomPages},
	{Name: "Room.CallbackAfterDestroyRoom", Class: After, Family: "live_room", Source: roomPages},
	{Name: "Room.CallbackAfterUpdateRoomInfo", Class: After, Family: "live_room", Source: roomPages},
	{Name: "Room.CallbackAfterMemberEnter", Class: After, Family: "live_room", Source: roomPages},
	{Name: "Room.CallbackAfterMemberLeave", Class: After, Family: "live_room", Source: roomPages},
	{Name: "Mic.CallbackAfterSeatInfoChanged", Class: After, Family: "live_room", Source: roomPages},
}

// The lists of commands, for those whose own pages were not compared.
var (
	livePages = []Page{zh("269/117536", ""), intl("647/64413", "2026-03-26")}
	roomPages = []Page{intl("647/60720", "2025-12-08")}
)
