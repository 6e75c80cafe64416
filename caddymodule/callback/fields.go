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
	memberAccount   = Field{Name: "Member_Account", Type: String, Required: true}
	officialAccount = Field{Name: "Official_Account", Type: String, Required: true}
	name            = Field{Name: "Name", Type: String, Required: true}

	groupID   = Field{Name: "GroupId", Type: String, Required: true}
	groupType = Field{Name: "Type", Type: String, Required: true}
	topicID   = Field{Name: "TopicId", Type: String, Optional: true} // absent or empty outside of topics

	msgSeq          = Field{Name: "MsgSeq", Type: Uint32, Required: true}
	msgRandom       = Field{Name: "MsgRandom", Type: Uint32, Required: true}
	random          = Field{Name: "Random", Type: Uint32, Required: true}   // real values exceed int32
	msgTime         = Field{Name: "MsgTime", Type: Integer, Required: true} // seconds
	msgKey          = Field{Name: "MsgKey", Type: String, Required: true}
	msgID           = Field{Name: "MsgId", Type: String}
	msgBody         = Field{Name: "MsgBody", Type: Objects, Required: true} // message elements; Tencent adds new kinds
	cloudCustomData = Field{Name: "CloudCustomData", Type: String, Optional: true}
	onlineOnlyFlag  = Field{Name: "OnlineOnlyFlag", Type: Integer}               // not in payloads of 2020
	unreadMsgNum    = Field{Name: "UnreadMsgNum", Type: Integer, Optional: true} // -1 if it was not delivered; not on the newest pages
	msgPriority     = Field{Name: "MsgPriority", Type: String, Optional: true}   // not documented, but sent
	nameCard        = Field{Name: "NameCard", Type: String, Optional: true}      // only if it has changed
	changedName     = Field{Name: "Name", Type: String, Optional: true}          // likewise
	introduction    = Field{Name: "Introduction", Type: String, Optional: true}  // likewise
	notification    = Field{Name: "Notification", Type: String, Optional: true}  // likewise
	faceURL         = Field{Name: "FaceUrl", Type: String, Optional: true}       // likewise
	userDefinedData = Field{Name: "UserDefinedDataList", Type: Objects, Optional: true, Fields: []Field{
		{Name: "Key", Type: String},
		{Name: "Value", Type: String},
	}}

	// Milliseconds. The documentation's tables say Integer; some of its samples show a
	// string, and real payloads have numbers. It is younger than most commands.
	eventTime = Field{Name: "EventTime", Type: Integer | Digits}
)

// expected returns the field as one that the newest pages have, but that older pages or
// payloads lack: it is not required, and its absence is noted.
func expected(f Field) Field {
	f.Required = false
	return f
}

// optional returns the field as one that genuine payloads often lack.
func optional(f Field) Field {
	f.Required, f.Optional = false, true
	return f
}

// zh returns a page of the Chinese documentation.
func zh(path, date string) Page {
	return Page{URL: "https://cloud.tencent.com/document/product/" + path, Date: date}
}

// intl returns a page of the international documentation.
func intl(path, date string) Page {
	return Page{URL: "https://www.tencentcloud.com/document/product/" + path, Date: date}
}
