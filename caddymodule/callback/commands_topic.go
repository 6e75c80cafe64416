// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

// topicCommands are about the topics of communities. Their pages have no EventTime.
var topicCommands = []Command{
	{
		Name: "Group.CallbackBeforeCreateTopic", Class: Before, Family: "topic",
		Source: []Page{zh("269/78206", "2022-11-07"), intl("1047/49463", "2025-03-10")},
		Codes:  []CodeRange{forbidCode, groupCodes},
		Fields: []Field{
			callbackCommand, operator, groupType, name, optional(eventTime),
		},
	},
	{
		Name: "Group.CallbackAfterCreateTopic", Class: After, Family: "topic",
		Source: []Page{zh("269/78207", "2022-11-07"), intl("1047/49464", "2025-03-10")},
		Fields: []Field{
			callbackCommand, groupID,
			{Name: "TopicId", Type: String, Required: true},
			operator,
			optional(ownerAccount), // a group may have no owner
			groupType, name, userDefinedData, optional(eventTime),
		},
	},
	{
		Name: "Group.CallbackAfterTopicDestroyed", Class: After, Family: "topic",
		Source: []Page{zh("269/78208", "2022-11-07"), intl("1047/49465", "2024-02-19")},
		Fields: []Field{
			callbackCommand, groupID, groupType,
			{Name: "TopicIdList", Type: Strings | String, Required: true}, // String in the tables, an array in the samples
			optional(eventTime),
		},
	},
	{
		Name: "Group.CallbackAfterTopicInfoChanged", Class: After, Family: "topic",
		Source: []Page{zh("269/78209", ""), intl("1047/49466", "2024-02-19")},
		Fields: []Field{
			callbackCommand, groupID, groupType, operator,
			changedName, introduction, notification, faceURL,
			topicID, // not documented
			optional(eventTime),
		},
	},
}
