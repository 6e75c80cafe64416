// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

// c2cCommands are about one-to-one messages.
var c2cCommands = []Command{
	{ // https://trtc.io/document/34364
		Name: "C2C.CallbackBeforeSendMsg", Class: Before, Family: "c2c",
		Codes: []CodeRange{forbidCode, discardCode, ownCodes},
		Fields: []Field{
			callbackCommand, fromAccount, toAccount, msgSeq, msgRandom, msgTime,
			msgKey, onlineOnlyFlag, msgBody, cloudCustomData, eventTime,
			{Name: "FriendShip", Type: Integer},
		},
	},
	{ // https://trtc.io/document/34365
		Name: "C2C.CallbackAfterSendMsg", Class: After, Family: "c2c",
		Fields: []Field{
			callbackCommand, fromAccount, toAccount, msgSeq, msgRandom, msgTime,
			msgKey, onlineOnlyFlag, msgBody, cloudCustomData,
			{Name: "MsgId", Type: String},
			{Name: "SendMsgResult", Type: Integer},
			{Name: "ErrorInfo", Type: String},
			{Name: "UnreadMsgNum", Type: Integer}, // -1 when delivery failed
			eventTime,
		},
	},
	{ // https://trtc.io/document/43465
		Name: "C2C.CallbackAfterMsgReport", Class: After, Family: "c2c",
		Fields: []Field{
			callbackCommand,
			{Name: "Report_Account", Type: String, Required: true},
			{Name: "Peer_Account", Type: String, Required: true},
			{Name: "LastReadTime", Type: Integer, Required: true},
			{Name: "UnreadMsgNum", Type: Integer},
			eventTime,
		},
	},
	{ // https://cloud.tencent.cn/document/product/269/61697
		Name: "C2C.CallbackAfterMsgWithDraw", Class: After, Family: "c2c",
		Fields: []Field{
			callbackCommand, fromAccount, toAccount, msgKey,
			{Name: "UnreadMsgNum", Type: Integer},
			eventTime,
		},
	},
	{ // https://cloud.tencent.com/document/product/269/128224
		Name: "C2C.CallbackAfterModifyMsg", Class: After, Family: "c2c",
		Fields: []Field{
			callbackCommand, operator, fromAccount, toAccount, msgSeq, msgRandom,
			msgTime, msgKey,
			{Name: "MsgBody", Type: Objects},
			cloudCustomData, eventTime,
		},
	},
}
