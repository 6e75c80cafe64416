// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

// stateCommands are about the online state and the profile of users.
var stateCommands = []Command{
	{
		Name: "State.StateChange", Class: After, Family: "state",
		Source: []Page{zh("269/2570", "2025-10-30"), intl("1047/34357", "2025-07-31")},
		Fields: []Field{
			callbackCommand, eventTime,
			{Name: "Info", Type: Object, Required: true, Fields: []Field{
				{Name: "Action", Type: String, Required: true},
				toAccount,
				{Name: "Reason", Type: String, Optional: true}, // not if the user has set a custom state
			}},
			{Name: "KickedDevice", Type: Objects, Optional: true, Fields: []Field{ // only if a login has kicked devices
				{Name: "Platform", Type: String},
			}},
		},
	},
	{
		Name: "Profile.CallbackPortraitSet", Class: After, Family: "profile",
		Source: []Page{zh("269/76489", "2025-06-17"), intl("1047/48733", "2024-08-20")},
		Fields: []Field{
			callbackCommand, operator, fromAccount, eventTime,
			{Name: "ProfileItem", Type: Objects, Required: true, Fields: []Field{
				{Name: "Tag", Type: String, Required: true},
				{Name: "Value", Type: String | Integer, Required: true},
			}},
		},
	},
}
