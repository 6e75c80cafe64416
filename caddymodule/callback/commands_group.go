// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

// RecallCommand is the command that Tencent sends after a group message was recalled,
// by a user or by an administrator using the REST API.
const RecallCommand = "Group.CallbackAfterRecallMsg"

// groupCommands are about groups.
var groupCommands = []Command{
	{
		Name: RecallCommand, Class: After, Family: "group",
		Source: []Page{zh("269/73141", "2025-02-28"), intl("1047/46979", "")},
		Fields: []Field{
			callbackCommand, operator, groupType,
			{Name: "GroupId", Type: String, Required: true, Min: 1},
			{Name: "MsgSeqList", Type: Objects, Required: true, Min: 1, Fields: []Field{
				{Name: "MsgSeq", Type: Uint32, Required: true, Min: 1},
				optional(msgID), // since about 2025
			}},
			topicID, eventTime,
		},
	},
	{
		Name: "Group.CallbackBeforeCreateGroup", Class: Before, Family: "group",
		Source: []Page{zh("269/1662", "2025-12-04"), intl("1047/34368", "2024-02-19")},
		Codes:  []CodeRange{forbidCode, groupCodes},
		Fields: []Field{
			callbackCommand, operator,
			optional(ownerAccount), // the REST API can create groups without an owner
			groupType, name,
			{Name: "CreateGroupNum", Type: Integer, Optional: true}, // not on the newest page
			{Name: "MemberList", Type: Objects, Optional: true, Fields: []Field{
				expected(memberAccount),
			}},
			eventTime,
		},
	},
	{
		Name: "Group.CallbackAfterCreateGroup", Class: After, Family: "group",
		Source: []Page{zh("269/1663", "2024-07-24"), intl("1047/34369", "2024-02-19")},
		Fields: []Field{
			callbackCommand, groupID, operator,
			optional(ownerAccount), // likewise
			groupType, name,
			{Name: "MemberList", Type: Objects, Optional: true, Fields: []Field{
				expected(memberAccount),
			}},
			userDefinedData,
			{Name: "InviteOption", Type: String, Optional: true}, // not documented, but sent
			eventTime,
		},
	},
	{
		Name: "Group.CallbackBeforeApplyJoinGroup", Class: Before, Family: "group",
		Source: []Page{zh("269/1665", "2025-02-28"), intl("1047/34370", "2025-03-10")},
		Codes:  []CodeRange{forbidCode, groupCodes},
		Fields: []Field{
			callbackCommand, groupID, groupType,
			{Name: "Requestor_Account", Type: String, Required: true}, // sic
			{Name: "ApplyMsg", Type: String, Optional: true},          // only on the Chinese page
			topicID, eventTime,
		},
	},
	{
		Name: "Group.CallbackBeforeInviteJoinGroup", Class: Before, Family: "group",
		Source: []Page{zh("269/1666", "2025-02-08"), intl("1047/34371", "2025-03-10")},
		Codes:  []CodeRange{forbidCode, groupCodes},
		Fields: []Field{
			callbackCommand, groupID, groupType, operator,
			{Name: "DestinationMembers", Type: Objects, Required: true, Fields: []Field{memberAccount}},
			topicID, eventTime,
		},
	},
	{
		Name: "Group.CallbackAfterNewMemberJoin", Class: After, Family: "group",
		Source: []Page{zh("269/1667", "2025-02-08"), intl("1047/34372", "2025-03-10")},
		Fields: []Field{
			callbackCommand, groupID, groupType,
			{Name: "JoinType", Type: String, Required: true},
			operator,
			{Name: "NewMemberList", Type: Objects, Required: true, Fields: []Field{memberAccount}},
			topicID, eventTime,
		},
	},
	{
		Name: "Group.CallbackAfterMemberExit", Class: After, Family: "group",
		Source: []Page{zh("269/1668", "2025-02-08"), intl("1047/34373", "2025-03-10")},
		Fields: []Field{
			callbackCommand, groupID, groupType,
			{Name: "ExitType", Type: String, Required: true},
			operator,
			{Name: "ExitMemberList", Type: Objects, Required: true, Fields: []Field{memberAccount}},
			topicID, eventTime,
		},
	},
	{
		Name: "Group.CallbackBeforeSendMsg", Class: Before, Family: "group",
		Source: []Page{zh("269/1619", "2025-02-28"), intl("1047/34374", "2024-04-11")},
		Codes:  []CodeRange{forbidCode, discardCode, groupCodes},
		Fields: []Field{
			callbackCommand, groupID, groupType, fromAccount, operator, random,
			optional(msgID), onlineOnlyFlag, msgBody, cloudCustomData, topicID, msgPriority, eventTime,
		},
	},
	{
		Name: "Group.CallbackAfterSendMsg", Class: After, Family: "group",
		Source: []Page{zh("269/2661", "2025-09-16"), intl("1047/34375", "2025-03-10")},
		Fields: []Field{
			callbackCommand, groupID, groupType, fromAccount,
			expected(operator), expected(random), // not in payloads of 2018
			onlineOnlyFlag, msgID, msgSeq, msgTime, msgBody, cloudCustomData,
			{Name: "GroupAtInfo", Type: Objects, Optional: true, Fields: []Field{
				{Name: "GroupAtAllFlag", Type: Integer},
				{Name: "GroupAt_Account", Type: String, Optional: true}, // not for all
			}},
			topicID, msgPriority, eventTime,
		},
	},
	{
		Name: "Group.CallbackSendMsgException", Class: After, Family: "group",
		Source: []Page{zh("269/78619", ""), intl("1047/49462", "2025-03-10")},
		Fields: []Field{
			callbackCommand, groupID,
			optional(groupType), // it is also sent for groups that do not exist
			fromAccount, expected(operator), expected(random), onlineOnlyFlag, expected(msgBody), cloudCustomData,
			{Name: "ErrorCode", Type: Integer, Required: true},
			{Name: "ErrorInfo", Type: String, Required: true},
			topicID, // not documented
			eventTime,
		},
	},
	{
		Name: "Group.CallbackAfterGroupFull", Class: After, Family: "group",
		Source: []Page{zh("269/1669", ""), intl("1047/34376", "")},
		Fields: []Field{
			callbackCommand, groupID, topicID, eventTime,
		},
	},
	{
		Name: "Group.CallbackAfterGroupDestroyed", Class: After, Family: "group",
		Source: []Page{zh("269/1670", "2024-02-04"), intl("1047/34377", "2025-03-10")},
		Fields: []Field{
			callbackCommand,
			optional(operator), // only on the Chinese page
			groupID, groupType,
			optional(ownerAccount), // a group may have no owner
			optional(name),         // in the samples, not in the tables
			{Name: "MemberList", Type: Objects, Optional: true, Fields: []Field{ // thousands of members; bodies of 360 kB occur
				expected(memberAccount),
			}},
			eventTime,
		},
	},
	{
		Name: "Group.CallbackAfterGroupInfoChanged", Class: After, Family: "group",
		Source: []Page{zh("269/2930", "2024-12-02"), intl("1047/34378", "2024-02-19")},
		Fields: []Field{
			callbackCommand, groupID, groupType, operator,
			changedName, introduction, notification, faceURL,
			{Name: "ShutUpAllMember", Type: String, Optional: true}, // not documented
			eventTime,
		},
	},
	{
		Name: "Group.CallbackOnMemberStateChange", Class: After, Family: "group",
		Source: []Page{zh("269/76156", ""), intl("1047/48734", "2025-10-28")},
		Fields: []Field{
			callbackCommand, groupID,
			optional(groupType), // not documented
			{Name: "EventType", Type: String, Required: true},
			{Name: "EventCause", Type: String},
			{Name: "MemberList", Type: Objects, Required: true, Fields: []Field{memberAccount}},
			optional(eventTime), // not in the tables
		},
	},
	{
		Name: "Group.CallbackAfterMemberFieldChanged", Class: After, Family: "group",
		Source: []Page{zh("269/105353", ""), intl("1047/60393", "2025-03-10")},
		Fields: []Field{
			callbackCommand, groupID, groupType, operator,
			optional(memberAccount),                                  // on the international page
			{Name: "Modified_Account", Type: String, Optional: true}, // instead of it on the Chinese page
			{Name: "Role", Type: String, Optional: true},
			nameCard, eventTime,
		},
	},
	{
		Name: "Group.CallbackAfterGroupAttrChanged", Class: After, Family: "group",
		Source: []Page{zh("269/105354", ""), intl("1047/60394", "2025-03-10")},
		Fields: []Field{
			callbackCommand, groupID, groupType, operator,
			{Name: "OptionType", Type: String},
			{Name: "GroupAttr", Type: Objects, Optional: true, Fields: []Field{ // not if all are cleared
				{Name: "key", Type: String}, // lower case, as on the wire
				{Name: "value", Type: String, Optional: true},
			}},
			eventTime,
		},
	},
	{
		Name: "Group.CallbackAfterReadReceipt", Class: After, Family: "group", Recurs: true,
		Source: []Page{zh("269/105355", "2024-04-19"), intl("1047/60395", "2025-03-10")},
		Fields: []Field{
			callbackCommand, groupID, groupType,
			{Name: "GroupMsgReceiptList", Type: Objects, Required: true, Fields: []Field{
				{Name: "MsgSeq", Type: Integer, Required: true},
				{Name: "ReadNum", Type: Integer},
				{Name: "UnreadNum", Type: Integer},
				{Name: "ReadReceiptMembers", Type: Objects, Optional: true, Fields: []Field{
					expected(memberAccount),
				}},
			}},
			eventTime,
		},
	},
	{
		Name: "Group.CallbackAfterChangeGroupOwner", Class: After, Family: "group",
		Source: []Page{zh("269/105356", "2024-04-19"), intl("1047/60396", "2025-03-10")},
		Fields: []Field{
			callbackCommand, groupID, groupType, operator,
			{Name: "OldOwner_Account", Type: String, Optional: true}, // a group may have had no owner
			{Name: "NewOwner_Account", Type: String, Required: true},
			eventTime,
		},
	},
	{
		Name: "Group.CallbackAfterModifyMsg", Class: After, Family: "group", Recurs: true,
		Source: []Page{zh("269/129193", "2026-03-16")},
		Fields: []Field{
			callbackCommand, operator, groupID, topicID,
			{Name: "MsgSeq", Type: Integer, Required: true},
			optional(msgBody), cloudCustomData, // the REST API can change one of them alone; the page has only the former
			eventTime,
		},
	},
	{
		Name: "Group.CallbackAfterGroupMsgExtension", Class: After, Family: "group", Recurs: true,
		Source: []Page{zh("269/126476", "2025-12-17"), intl("1047/76007", "2026-01-04")},
		Fields: []Field{
			callbackCommand, groupID,
			topicID, // not documented
			{Name: "MsgSeq", Type: Integer, Required: true},
			operateType, extensionList, extensionSeq, eventTime,
		},
	},
	{
		Name: "Group.CallbackOnDailyGroupQuotaAlarm", Class: After, Family: "group",
		Source: []Page{zh("269/90841", "2025-01-25"), intl("1047/57455", "2025-06-10")},
		Fields: []Field{
			callbackCommand,
			{Name: "QuotaUsed", Type: Integer, Required: true},
			{Name: "Quota", Type: Integer, Required: true},
			eventTime,
		},
	},
}
