// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

// stateCommands are about the online state and the profile of users.
var stateCommands = []Command{
	{ // https://cloud.tencent.com/document/product/269/2570
		Name: "State.StateChange", Class: After, Family: "state",
		Fields: []Field{
			callbackCommand, eventTime,
			{Name: "Info", Type: Object, Required: true, Fields: []Field{
				{Name: "Action", Type: String, Required: true},
				toAccount,
				{Name: "Reason", Type: String, Required: true},
			}},
			{Name: "KickedDevice", Type: Objects, Fields: []Field{
				{Name: "Platform", Type: String},
			}},
		},
	},
	{ // https://trtc.io/document/48733
		Name: "Profile.CallbackPortraitSet", Class: After, Family: "profile",
		Fields: []Field{
			callbackCommand, operator, fromAccount, eventTime,
			{Name: "ProfileItem", Type: Objects, Required: true, Fields: []Field{
				{Name: "Tag", Type: String, Required: true},
				{Name: "Value", Type: String | Integer, Required: true},
			}},
		},
	},
}
