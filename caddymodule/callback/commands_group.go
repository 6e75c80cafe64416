// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

// RecallCommand is the command that Tencent sends after a group message was recalled,
// by a user or by an administrator using the REST API.
const RecallCommand = "Group.CallbackAfterRecallMsg"

// groupCommands are about groups.
var groupCommands = []Command{
	{ // https://www.tencentcloud.com/document/product/1047/46979
		Name: RecallCommand, Class: After, Family: "group",
		Fields: []Field{
			callbackCommand, operator, groupType,
			{Name: "GroupId", Type: String, Required: true, Min: 1},
			{Name: "MsgSeqList", Type: Objects, Required: true, Min: 1, Fields: []Field{
				{Name: "MsgSeq", Type: Uint32, Required: true, Min: 1},
				{Name: "MsgId", Type: String, Optional: true},
			}},
			topicID, groupEventTime,
		},
	},
	{ // https://trtc.io/document/34368
		Name: "Group.CallbackBeforeCreateGroup", Class: Before, Family: "group",
		Codes: []CodeRange{forbidCode, groupCodes},
		Fields: []Field{
			callbackCommand, operator, ownerAccount, groupType, name,
			{Name: "CreateGroupNum", Type: Integer},
			{Name: "MemberList", Type: Objects, Fields: []Field{
				{Name: "Member_Account", Type: String},
			}},
			groupEventTime,
		},
	},
	{ // https://trtc.io/document/34369
		Name: "Group.CallbackAfterCreateGroup", Class: After, Family: "group",
		Fields: []Field{
			callbackCommand, groupID, operator, ownerAccount, groupType, name,
			{Name: "MemberList", Type: Objects, Fields: []Field{
				{Name: "Member_Account", Type: String},
			}},
			{Name: "UserDefinedDataList", Type: Objects, Fields: []Field{
				{Name: "Key", Type: String},
				{Name: "Value", Type: String},
			}},
			{Name: "InviteOption", Type: String},
			groupEventTime,
		},
	},
	{ // https://www.tencentcloud.com/document/product/1047/34370
		Name: "Group.CallbackBeforeApplyJoinGroup", Class: Before, Family: "group",
		Codes: []CodeRange{forbidCode, groupCodes},
		Fields: []Field{
			callbackCommand, groupID, groupType,
			{Name: "Requestor_Account", Type: String, Required: true}, // sic
			groupEventTime,
		},
	},
	{ // https://trtc.io/document/34371
		Name: "Group.CallbackBeforeInviteJoinGroup", Class: Before, Family: "group",
		Codes: []CodeRange{forbidCode, groupCodes},
		Fields: []Field{
			callbackCommand, groupID, groupType, operator,
			{Name: "DestinationMembers", Type: Objects, Required: true, Fields: []Field{
				{Name: "Member_Account", Type: String, Required: true},
			}},
			groupEventTime,
		},
	},
	{ // https://trtc.io/document/34372
		Name: "Group.CallbackAfterNewMemberJoin", Class: After, Family: "group",
		Fields: []Field{
			callbackCommand, groupID, groupType,
			{Name: "JoinType", Type: String, Required: true},
			operator,
			{Name: "NewMemberList", Type: Objects, Required: true, Fields: []Field{
				{Name: "Member_Account", Type: String, Required: true},
			}},
			groupEventTime,
		},
	},
	{ // https://www.tencentcloud.com/document/product/1047/34373
		Name: "Group.CallbackAfterMemberExit", Class: After, Family: "group",
		Fields: []Field{
			callbackCommand, groupID, groupType,
			{Name: "ExitType", Type: String, Required: true},
			operator,
			{Name: "ExitMemberList", Type: Objects, Required: true, Fields: []Field{
				{Name: "Member_Account", Type: String, Required: true},
			}},
			groupEventTime,
		},
	},
	{ // https://www.tencentcloud.com/document/product/1047/34374
		Name: "Group.CallbackBeforeSendMsg", Class: Before, Family: "group",
		Codes: []CodeRange{forbidCode, discardCode, groupCodes},
		Fields: []Field{
			callbackCommand, groupID, groupType, fromAccount, operator,
			{Name: "Random", Type: Uint32, Required: true}, // real values exceed int32
			onlineOnlyFlag, msgBody, cloudCustomData, topicID,
			{Name: "MsgPriority", Type: String},
			groupEventTime,
		},
	},
	{ // https://trtc.io/document/34375
		Name: "Group.CallbackAfterSendMsg", Class: After, Family: "group",
		Fields: []Field{
			callbackCommand, groupID, groupType, fromAccount, operator,
			{Name: "Random", Type: Uint32, Required: true},
			onlineOnlyFlag,
			{Name: "MsgId", Type: String},
			msgSeq, msgTime, msgBody, cloudCustomData,
			{Name: "GroupAtInfo", Type: Objects, Fields: []Field{
				{Name: "GroupAtAllFlag", Type: Integer},
				{Name: "GroupAt_Account", Type: String},
			}},
			topicID,
			{Name: "MsgPriority", Type: String},
			groupEventTime,
		},
	},
	{ // https://trtc.io/document/49462
		Name: "Group.CallbackSendMsgException", Class: After, Family: "group",
		Fields: []Field{
			callbackCommand, groupID, groupType, fromAccount, operator,
			{Name: "Random", Type: Uint32, Required: true},
			onlineOnlyFlag, msgBody, cloudCustomData,
			{Name: "ErrorCode", Type: Integer, Required: true},
			{Name: "ErrorInfo", Type: String, Required: true},
			groupEventTime,
		},
	},
	{ // https://trtc.io/document/34376
		Name: "Group.CallbackAfterGroupFull", Class: After, Family: "group",
		Fields: []Field{
			callbackCommand, groupID, groupEventTime,
		},
	},
	{ // https://trtc.io/document/34377
		Name: "Group.CallbackAfterGroupDestroyed", Class: After, Family: "group",
		Fields: []Field{
			callbackCommand, groupID, groupType, ownerAccount,
			{Name: "Name", Type: String},
			{Name: "MemberList", Type: Objects, Fields: []Field{ // thousands of members; bodies of 360 kB occur
				{Name: "Member_Account", Type: String},
			}},
			groupEventTime,
		},
	},
	{ // https://www.tencentcloud.com/document/product/1047/34378
		Name: "Group.CallbackAfterGroupInfoChanged", Class: After, Family: "group",
		Fields: []Field{
			callbackCommand, groupID, groupType, operator,
			{Name: "Name", Type: String},
			{Name: "Introduction", Type: String},
			{Name: "Notification", Type: String},
			{Name: "FaceUrl", Type: String},
			{Name: "ShutUpAllMember", Type: String},
			groupEventTime,
		},
	},
	{ // https://trtc.io/document/48734
		Name: "Group.CallbackOnMemberStateChange", Class: After, Family: "group",
		Fields: []Field{
			callbackCommand, groupID,
			{Name: "Type", Type: String},
			{Name: "EventType", Type: String, Required: true},
			{Name: "EventCause", Type: String},
			{Name: "MemberList", Type: Objects, Required: true, Fields: []Field{
				{Name: "Member_Account", Type: String, Required: true},
			}},
			groupEventTime,
		},
	},
	{ // https://trtc.io/document/60393
		Name: "Group.CallbackAfterMemberFieldChanged", Class: After, Family: "group",
		Fields: []Field{
			callbackCommand, groupID, groupType, operator,
			{Name: "Member_Account", Type: String, Required: true},
			{Name: "Role", Type: String},
			{Name: "NameCard", Type: String},
			groupEventTime,
		},
	},
	{ // https://trtc.io/document/60394
		Name: "Group.CallbackAfterGroupAttrChanged", Class: After, Family: "group",
		Fields: []Field{
			callbackCommand, groupID, groupType, operator,
			{Name: "OptionType", Type: String},
			{Name: "GroupAttr", Type: Objects, Fields: []Field{
				{Name: "key", Type: String}, // lower case, as on the wire
				{Name: "value", Type: String},
			}},
			groupEventTime,
		},
	},
	{ // https://trtc.io/document/60395
		Name: "Group.CallbackAfterReadReceipt", Class: After, Family: "group",
		Fields: []Field{
			callbackCommand, groupID, groupType,
			{Name: "GroupMsgReceiptList", Type: Objects, Required: true, Fields: []Field{
				{Name: "MsgSeq", Type: Integer, Required: true},
				{Name: "ReadNum", Type: Integer},
				{Name: "UnreadNum", Type: Integer},
				{Name: "ReadReceiptMembers", Type: Objects, Fields: []Field{
					{Name: "Member_Account", Type: String},
				}},
			}},
			groupEventTime,
		},
	},
	{ // https://trtc.io/document/60396
		Name: "Group.CallbackAfterChangeGroupOwner", Class: After, Family: "group",
		Fields: []Field{
			callbackCommand, groupID, groupType, operator,
			{Name: "OldOwner_Account", Type: String, Required: true},
			{Name: "NewOwner_Account", Type: String, Required: true},
			groupEventTime,
		},
	},
	{ // https://trtc.io/document/57455
		Name: "Group.CallbackOnDailyGroupQuotaAlarm", Class: After, Family: "group",
		Fields: []Field{
			callbackCommand,
			{Name: "QuotaUsed", Type: Integer, Required: true},
			{Name: "Quota", Type: Integer, Required: true},
			groupEventTime,
		},
	},
}
