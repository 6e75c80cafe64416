// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

// topicCommands are about the topics of communities.
var topicCommands = []Command{
	{ // https://trtc.io/document/49463
		Name: "Group.CallbackBeforeCreateTopic", Class: Before, Family: "topic",
		Codes: []CodeRange{forbidCode, groupCodes},
		Fields: []Field{
			callbackCommand, operator, groupType, name, groupEventTime,
		},
	},
	{ // https://trtc.io/document/49464
		Name: "Group.CallbackAfterCreateTopic", Class: After, Family: "topic",
		Fields: []Field{
			callbackCommand, groupID,
			{Name: "TopicId", Type: String, Required: true},
			operator, ownerAccount, groupType, name,
			{Name: "UserDefinedDataList", Type: Objects},
			groupEventTime,
		},
	},
	{ // https://trtc.io/document/49465
		Name: "Group.CallbackAfterTopicDestroyed", Class: After, Family: "topic",
		Fields: []Field{
			callbackCommand, groupID, groupType,
			{Name: "TopicIdList", Type: Strings | String, Required: true}, // String in the documentation's table, an array in its sample
			groupEventTime,
		},
	},
	{ // https://trtc.io/document/49466
		Name: "Group.CallbackAfterTopicInfoChanged", Class: After, Family: "topic",
		Fields: []Field{
			callbackCommand, groupID, groupType, operator,
			{Name: "Name", Type: String},
			{Name: "Introduction", Type: String},
			{Name: "Notification", Type: String},
			{Name: "FaceUrl", Type: String},
			topicID, groupEventTime,
		},
	},
}
