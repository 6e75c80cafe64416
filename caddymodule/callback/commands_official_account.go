// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

// officialAccountCommands are about official accounts.
var officialAccountCommands = []Command{
	{
		Name: "OfficialAccount.CallbackBeforeCreateOfficialAccount", Class: Before, Family: "official_account",
		Source: []Page{zh("269/102315", "2025-08-21"), intl("1047/60795", "2024-06-18")},
		Codes:  []CodeRange{forbidCode, ownCodes},
		Fields: []Field{
			callbackCommand, operator, ownerAccount, name, eventTime,
		},
	},
	{
		Name: "OfficialAccount.CallbackAfterCreateOfficialAccount", Class: After, Family: "official_account",
		Source: []Page{intl("1047/60796", "2024-06-18")},
		Fields: []Field{
			callbackCommand, officialAccount, operator, ownerAccount, name, eventTime,
		},
	},
	{
		Name: "OfficialAccount.CallbackAfterOfficialAccountInfoChanged", Class: After, Family: "official_account",
		Source: []Page{intl("1047/60797", "")},
		Fields: []Field{
			callbackCommand, officialAccount, operator,
			changedName, introduction, faceURL,
			{Name: "Organization", Type: String, Optional: true},
			eventTime,
		},
	},
	{
		Name: "OfficialAccount.CallbackAfterOfficialAccountDestroyed", Class: After, Family: "official_account",
		Source: []Page{zh("269/102318", "2025-08-21"), intl("1047/60798", "2025-03-10")},
		Fields: []Field{
			callbackCommand, officialAccount, ownerAccount, name, eventTime,
		},
	},
	{
		Name: "OfficialAccount.CallbackBeforeAddSubscriber", Class: Before, Family: "official_account",
		Source: []Page{zh("269/102319", "2025-08-21"), intl("1047/60799", "")},
		Codes:  []CodeRange{forbidCode},
		Fields: []Field{
			callbackCommand, officialAccount, operator,
			{Name: "SubscribeAccountList", Type: Objects, Required: true, Fields: []Field{
				{Name: "Subscriber_Account", Type: String, Required: true},
			}},
			eventTime,
		},
	},
	{
		Name: "OfficialAccount.CallbackAfterAddSubscriber", Class: After, Family: "official_account",
		Source: []Page{zh("269/102320", "2025-08-21"), intl("1047/60800", "")},
		Fields: []Field{
			callbackCommand, officialAccount, operator,
			{Name: "SubscribeAccountList", Type: Objects, Required: true, Fields: []Field{
				{Name: "Subscriber_Account", Type: String, Required: true},
			}},
			eventTime,
		},
	},
	{
		Name: "OfficialAccount.CallbackAfterOfficialAccountFull", Class: After, Family: "official_account",
		Source: []Page{intl("1047/60801", "2024-06-18")},
		Fields: []Field{
			callbackCommand, officialAccount, eventTime,
		},
	},
	{
		Name: "OfficialAccount.CallbackAfterDeleteSubscriber", Class: After, Family: "official_account",
		Source: []Page{intl("1047/60802", "")},
		Fields: []Field{
			callbackCommand, officialAccount, operator,
			{Name: "SubscribeAccountList", Type: Objects, Required: true, Fields: []Field{
				{Name: "Subscriber_Account", Type: String, Required: true},
			}},
			eventTime,
		},
	},
	{
		Name: "OfficialAccount.CallbackBeforeSendMsg", Class: Before, Family: "official_account",
		Source: []Page{zh("269/102323", "2025-08-21"), intl("1047/60803", "2025-03-10")},
		Codes:  []CodeRange{forbidCode, discardCode, ownCodes},
		Fields: []Field{
			callbackCommand, officialAccount, onlineOnlyFlag, msgBody, cloudCustomData, eventTime,
		},
	},
	{
		Name: "OfficialAccount.CallbackAfterSendMsg", Class: After, Family: "official_account",
		Source: []Page{zh("269/102324", "2025-08-21"), intl("1047/60804", "2025-03-10")},
		Fields: []Field{
			callbackCommand, officialAccount, msgKey, msgTime, onlineOnlyFlag, msgBody,
			cloudCustomData, eventTime,
		},
	},
	{
		Name: "OfficialAccount.CallbackAfterMsgWithDraw", Class: After, Family: "official_account",
		Source: []Page{zh("269/102325", "2025-08-21"), intl("1047/60805", "2024-06-18")},
		Fields: []Field{
			callbackCommand, officialAccount,
			{Name: "WithdrawMsgList", Type: Objects, Required: true, Fields: []Field{ // sic: Withdraw, not WithDraw
				msgKey,
			}},
			eventTime,
		},
	},
}
