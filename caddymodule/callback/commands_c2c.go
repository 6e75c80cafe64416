// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

// c2cCommands are about one-to-one messages.
var c2cCommands = []Command{
	{
		Name: "C2C.CallbackBeforeSendMsg", Class: Before, Family: "c2c",
		Source: []Page{zh("269/1632", ""), intl("1047/34364", "2025-03-10")},
		Codes:  []CodeRange{forbidCode, discardCode, ownCodes},
		Fields: []Field{
			callbackCommand, fromAccount, toAccount, msgSeq, msgRandom, msgTime,
			expected(msgKey), // not in payloads of 2018
			optional(msgID), onlineOnlyFlag, msgBody, cloudCustomData, optional(eventTime),
			{Name: "FriendShip", Type: Integer, Optional: true}, // only in payloads of 2018
		},
	},
	{
		Name: "C2C.CallbackAfterSendMsg", Class: After, Family: "c2c",
		Source: []Page{zh("269/2716", ""), intl("1047/34365", "2024-06-25")},
		Fields: []Field{
			callbackCommand, fromAccount, toAccount,
			expected(msgSeq), expected(msgRandom), // not in payloads of 2017
			msgTime,
			expected(msgKey), // likewise
			optional(msgID), onlineOnlyFlag, msgBody, cloudCustomData,
			{Name: "SendMsgResult", Type: Integer},
			{Name: "ErrorInfo", Type: String},
			unreadMsgNum, optional(eventTime),
		},
	},
	{
		Name: "C2C.CallbackAfterMsgReport", Class: After, Family: "c2c",
		Source: []Page{zh("269/61696", ""), intl("1047/43465", "2025-03-10")},
		Fields: []Field{
			callbackCommand,
			{Name: "Report_Account", Type: String, Required: true},
			{Name: "Peer_Account", Type: String, Required: true},
			{Name: "LastReadTime", Type: Integer, Required: true}, // seconds
			unreadMsgNum, optional(eventTime),
		},
	},
	{
		Name: "C2C.CallbackAfterMsgWithDraw", Class: After, Family: "c2c",
		Source: []Page{zh("269/61697", "2023-12-15"), intl("1047/43466", "2024-02-19")},
		Fields: []Field{
			callbackCommand, fromAccount, toAccount, msgKey, unreadMsgNum, optional(eventTime),
		},
	},
	{
		Name: "C2C.CallbackAfterModifyMsg", Class: After, Family: "c2c", Recurs: true,
		Source: []Page{zh("269/128224", "2026-02-05")},
		Fields: []Field{
			callbackCommand, operator, fromAccount, toAccount, msgSeq, msgRandom, msgTime, msgKey,
			optional(msgBody), cloudCustomData, // the REST API can change one of them alone
			eventTime,
		},
	},
	{
		Name: "C2C.CallbackAfterMsgReadReceipt", Class: After, Family: "c2c", Recurs: true,
		Source: []Page{zh("269/128223", "")},
		Fields: []Field{
			callbackCommand, operator,
			{Name: "Peer_Account", Type: String, Required: true},
			{Name: "C2CMsgInfo", Type: Objects, Fields: []Field{ // in the sample, not in the table
				expected(fromAccount), expected(toAccount), expected(msgKey), msgID,
			}},
			eventTime,
		},
	},
	{
		Name: "C2C.CallbackAfterMsgReadAll", Class: After, Family: "c2c", Recurs: true,
		Source: []Page{zh("269/128225", "2026-02-09")},
		Fields: []Field{
			callbackCommand,
			{Name: "Report_Account", Type: String, Required: true},
			{Name: "GroupReadInfo", Type: Objects, Optional: true, Fields: []Field{
				expected(groupID),
				{Name: "MsgSeq", Type: Integer},
			}},
			eventTime,
		},
	},
	{
		Name: "C2C.CallbackAfterC2CMsgExtension", Class: After, Family: "c2c", Recurs: true,
		Source: []Page{zh("269/126475", "2025-12-17"), intl("1047/76006", "2026-01-04")},
		Fields: []Field{
			callbackCommand, fromAccount, toAccount, msgKey,
			operateType, extensionList, extensionSeq, eventTime,
		},
	},
}

// Fields of the commands about the extension of a message.
var (
	operateType   = Field{Name: "OperateType", Type: Integer, Required: true} // 1 set, 2 delete, 3 clear
	extensionList = Field{Name: "ExtensionList", Type: Objects, Fields: []Field{
		{Name: "Key", Type: String},
		{Name: "Value", Type: String},
		{Name: "Seq", Type: Integer},
	}}
	extensionSeq = Field{Name: "Seq", Type: Integer}
)
