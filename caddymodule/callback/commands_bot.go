// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

// botCommands are about chat bots.
var botCommands = []Command{
	{
		Name: "Bot.OnC2CMessage", Class: After, Family: "bot",
		Source: []Page{zh("269/90407", "2025-05-27"), intl("1047/68952", "2025-04-01")},
		Fields: []Field{
			callbackCommand, fromAccount, toAccount, msgSeq, msgRandom, msgTime, msgKey,
			optional(msgID), onlineOnlyFlag, msgBody, cloudCustomData,
			{Name: "SendMsgResult", Type: Integer},
			{Name: "ErrorInfo", Type: String},
			unreadMsgNum, optional(eventTime),
		},
	},
	{
		Name: "Bot.OnGroupMessage", Class: After, Family: "bot",
		Source: []Page{zh("269/89994", ""), intl("1047/68953", "2025-07-24")},
		Fields: []Field{
			callbackCommand, groupID, groupType, fromAccount, operator, random, onlineOnlyFlag,
			{Name: "MsgSeq", Type: Integer, Required: true},
			msgTime, msgBody, cloudCustomData,
			{Name: "AtRobots_Account", Type: Strings, Required: true},
			topicID, eventTime,
		},
	},
	{
		Name: "Chatbot.OnC2CSignalMessage", Class: After, Family: "bot",
		Source:   []Page{zh("269/103730", ""), intl("1047/59057", "")},
		Answered: true, // RspData is passed on to the bot
		Fields: []Field{
			callbackCommand, fromAccount, toAccount,
			{Name: "MsgSeq", Type: Integer, Required: true},
			{Name: "MsgRandom", Type: Integer, Required: true},
			msgKey, eventTime,
			{Name: "Data", Type: String, Required: true},
		},
	},
	{ // the payload has no schema here yet
		Name: "Chatbot.InterfaceInvocation", Class: After, Family: "bot",
		Source:   []Page{zh("269/113786", "")},
		Answered: true, // Body is passed on to the bot
	},
}
