// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

// officialAccountCommands are about official accounts.
var officialAccountCommands = []Command{
	{ // https://trtc.io/document/60795
		Name: "OfficialAccount.CallbackBeforeCreateOfficialAccount", Class: Before, Family: "official_account",
		Codes: []CodeRange{forbidCode, ownCodes},
		Fields: []Field{
			callbackCommand, operator, ownerAccount, name, eventTime,
		},
	},
	{ // https://trtc.io/document/60796
		Name: "OfficialAccount.CallbackAfterCreateOfficialAccount", Class: After, Family: "official_account",
		Fields: []Field{
			callbackCommand, officialAccount, operator, ownerAccount, name, eventTime,
		},
	},
	{ // https://trtc.io/document/60797
		Name: "OfficialAccount.CallbackAfterOfficialAccountInfoChanged", Class: After, Family: "official_account",
		Fields: []Field{
			callbackCommand, officialAccount, operator,
			{Name: "Name", Type: String},
			{Name: "Introduction", Type: String},
			{Name: "FaceUrl", Type: String},
			{Name: "Organization", Type: String},
			eventTime,
		},
	},
	{ // https://trtc.io/document/60798
		Name: "OfficialAccount.CallbackAfterOfficialAccountDestroyed", Class: After, Family: "official_account",
		Fields: []Field{
			callbackCommand, officialAccount, ownerAccount, name, eventTime,
		},
	},
	{ // https://trtc.io/document/60799
		Name: "OfficialAccount.CallbackBeforeAddSubscriber", Class: Before, Family: "official_account",
		Codes: []CodeRange{forbidCode},
		Fields: []Field{
			callbackCommand, officialAccount, operator,
			{Name: "SubscribeAccountList", Type: Objects, Required: true, Fields: []Field{
				{Name: "Subscriber_Account", Type: String, Required: true},
			}},
			eventTime,
		},
	},
	{ // https://trtc.io/document/60800
		Name: "OfficialAccount.CallbackAfterAddSubscriber", Class: After, Family: "official_account",
		Fields: []Field{
			callbackCommand, officialAccount, operator,
			{Name: "SubscribeAccountList", Type: Objects, Required: true, Fields: []Field{
				{Name: "Subscriber_Account", Type: String, Required: true},
			}},
			eventTime,
		},
	},
	{ // https://trtc.io/document/60801
		Name: "OfficialAccount.CallbackAfterOfficialAccountFull", Class: After, Family: "official_account",
		Fields: []Field{
			callbackCommand, officialAccount, eventTime,
		},
	},
	{ // https://trtc.io/document/60802
		Name: "OfficialAccount.CallbackAfterDeleteSubscriber", Class: After, Family: "official_account",
		Fields: []Field{
			callbackCommand, officialAccount, operator,
			{Name: "SubscribeAccountList", Type: Objects, Required: true, Fields: []Field{
				{Name: "Subscriber_Account", Type: String, Required: true},
			}},
			eventTime,
		},
	},
	{ // https://trtc.io/document/60803
		Name: "OfficialAccount.CallbackBeforeSendMsg", Class: Before, Family: "official_account",
		Codes: []CodeRange{forbidCode, discardCode, ownCodes},
		Fields: []Field{
			callbackCommand, officialAccount, onlineOnlyFlag, msgBody, cloudCustomData, eventTime,
		},
	},
	{ // https://trtc.io/document/60804
		Name: "OfficialAccount.CallbackAfterSendMsg", Class: After, Family: "official_account",
		Fields: []Field{
			callbackCommand, officialAccount, msgKey, msgTime, onlineOnlyFlag, msgBody,
			cloudCustomData, eventTime,
		},
	},
	{ // https://trtc.io/document/60805
		Name: "OfficialAccount.CallbackAfterMsgWithDraw", Class: After, Family: "official_account",
		Fields: []Field{
			callbackCommand, officialAccount,
			{Name: "WithdrawMsgList", Type: Objects, Required: true, Fields: []Field{ // sic: Withdraw, not WithDraw
				{Name: "MsgKey", Type: String, Required: true},
			}},
			eventTime,
		},
	},
}
