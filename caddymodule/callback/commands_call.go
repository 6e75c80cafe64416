// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

// callCommands are about the calls of the neighbouring product Call. The payloads have
// no schema here yet.
var callCommands = []Command{
	{
		Name: "Call.CallbackAfterStartCall", Class: After, Family: "call",
		Source: []Page{zh("647/116423", ""), intl("647/68941", "2025-04-14")},
	},
	{
		Name: "Call.CallbackAfterEndCall", Class: After, Family: "call",
		Source: []Page{zh("647/116424", ""), intl("647/68940", "2025-12-05")},
	},
	{
		Name: "Call.CallbackAfterMemberChanged", Class: After, Family: "call",
		Source: []Page{intl("647/68934", "2025-04-14")}, // the list of commands
	},
	// Its page was not found.
	{Name: "Call.CallbackAfterRecordChanged", Class: After, Family: "call"},
}
