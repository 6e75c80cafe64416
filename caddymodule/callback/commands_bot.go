// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

// botCommands are about chat bots.
var botCommands = []Command{
	{ // https://trtc.io/document/68952
		Name: "Bot.OnC2CMessage", Class: After, Family: "bot",
		Fields: []Field{
			callbackCommand, fromAccount, toAccount, msgSeq, msgRandom, msgTime,
			msgKey, onlineOnlyFlag, msgBody, cloudCustomData,
			{Name: "MsgId", Type: String},
			{Name: "SendMsgResult", Type: Integer},
			{Name: "ErrorInfo", Type: String},
			{Name: "UnreadMsgNum", Type: Integer},
			eventTime,
		},
	},
	{ // https://trtc.io/document/68953
		Name: "Bot.OnGroupMessage", Class: After, Family: "bot",
		Fields: []Field{
			callbackCommand, groupID, groupType, fromAccount, operator,
			{Name: "Random", Type: Uint32, Required: true},
			onlineOnlyFlag,
			{Name: "MsgSeq", Type: Integer, Required: true},
			msgTime, msgBody, cloudCustomData,
			{Name: "AtRobots_Account", Type: Strings, Required: true},
			topicID, eventTime,
		},
	},
	{ // not documented by Tencent; the fields are taken from public libraries
		Name: "Chatbot.OnC2CSignalMessage", Class: After, Family: "bot",
		Fields: []Field{
			callbackCommand, fromAccount, toAccount,
			{Name: "MsgSeq", Type: Integer, Required: true},
			{Name: "MsgRandom", Type: Integer, Required: true},
			msgKey, eventTime,
			{Name: "Data", Type: String, Required: true},
		},
	},
}
