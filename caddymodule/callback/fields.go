// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

// Fields that many commands share.
var (
	callbackCommand = Field{Name: "CallbackCommand", Type: String, Required: true}
	operator        = Field{Name: "Operator_Account", Type: String, Required: true}
	fromAccount     = Field{Name: "From_Account", Type: String, Required: true}
	toAccount       = Field{Name: "To_Account", Type: String, Required: true}
	ownerAccount    = Field{Name: "Owner_Account", Type: String, Required: true}
	officialAccount = Field{Name: "Official_Account", Type: String, Required: true}
	name            = Field{Name: "Name", Type: String, Required: true}

	groupID   = Field{Name: "GroupId", Type: String, Required: true}
	groupType = Field{Name: "Type", Type: String, Required: true}
	topicID   = Field{Name: "TopicId", Type: String, Optional: true}

	msgSeq          = Field{Name: "MsgSeq", Type: Uint32, Required: true}
	msgRandom       = Field{Name: "MsgRandom", Type: Uint32, Required: true}
	msgTime         = Field{Name: "MsgTime", Type: Integer, Required: true} // seconds
	msgKey          = Field{Name: "MsgKey", Type: String, Required: true}
	msgBody         = Field{Name: "MsgBody", Type: Objects, Required: true} // message elements; Tencent adds new kinds
	cloudCustomData = Field{Name: "CloudCustomData", Type: String, Optional: true}
	onlineOnlyFlag  = Field{Name: "OnlineOnlyFlag", Type: Integer, Optional: true}

	// Milliseconds.
	eventTime = Field{Name: "EventTime", Type: Integer}

	// Milliseconds. For group events, the documentation's tables say Integer, its
	// samples show a string, and real payloads have numbers.
	groupEventTime = Field{Name: "EventTime", Type: Integer | Digits}
)
