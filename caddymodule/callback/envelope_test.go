// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestEventSaysWhoDidWhatToWhom(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		command, body string
		want          Event // From, To, Operator, GroupID, TopicID, RoomID, Conversation, MsgKey and MsgSeqs
	}{
		{
			"C2C.CallbackAfterSendMsg", `"From_Account":"jared","To_Account":"bob","MsgSeq":48374,"MsgRandom":1,"MsgTime":2,"MsgKey":"48374_1_2","MsgBody":[{"From_Account":"x"}]`,
			Event{From: "jared", To: "bob", Conversation: "bob,jared", MsgKey: "48374_1_2", MsgSeqs: []uint32{48374}},
		},
		{
			"C2C.CallbackAfterSendMsg", `"From_Account":"a","To_Account":"a","MsgSeq":1,"MsgRandom":1,"MsgTime":2,"MsgKey":"k","MsgBody":[]`,
			Event{From: "a", To: "a", Conversation: "a", MsgKey: "k", MsgSeqs: []uint32{1}},
		},
		{
			"C2C.CallbackAfterMsgReport", `"Report_Account":"jared","Peer_Account":"bob","LastReadTime":1,"EventTime":5`,
			Event{To: "bob", Operator: "jared", Conversation: "bob,jared", EventTime: 5},
		},
		{
			"C2C.CallbackAfterMsgReadReceipt", `"Operator_Account":"jared","Peer_Account":"bob","C2CMsgInfo":[{"From_Account":"bob","To_Account":"jared","MsgKey":"k1"},{"From_Account":"bob","To_Account":"jared","MsgKey":"k2"}]`,
			Event{From: "bob", To: "bob,jared", Operator: "jared", Conversation: "bob,jared", MsgKey: "k1"},
		},
		{
			"State.StateChange", `"Info":{"Action":"Login","To_Account":"jared"}`,
			Event{To: "jared", Conversation: "jared"},
		},
		{
			"Follow.CallbackAfterFollowAdd", `"From_Account":"jared","FollowList":[{"To_Account":"b"},{"To_Account":"a"}]`,
			Event{From: "jared", To: "b,a", Conversation: "jared"},
		},
		{
			"Follow.CallbackAfterFollowDelete", `"From_Account":"jared","To_Account":["a"]`,
			Event{From: "jared", To: "a", Conversation: "a,jared"},
		},
		{
			"Sns.CallbackFriendDelete", `"PairList":[{"From_Account":"b","To_Account":"a"},{"From_Account":"a","To_Account":"b"}]`,
			Event{From: "b,a", To: "a,b", Conversation: "a,b"},
		},
		{
			"Profile.CallbackPortraitSet", `"From_Account":"jared","Operator_Account":"admin","ProfileItem":[]`,
			Event{From: "jared", Operator: "admin", Conversation: "jared"},
		},
		{
			"Group.CallbackAfterNewMemberJoin", `"GroupId":"g","Type":"Public","JoinType":"Apply","Operator_Account":"o","NewMemberList":[{"Member_Account":"a"},{"Member_Account":"b"}]`,
			Event{To: "a,b", Operator: "o", GroupID: "g", GroupType: "Public", Conversation: "g"},
		},
		{
			"Group.CallbackAfterModifyMsg", `"Operator_Account":"o","GroupId":"g","TopicId":"","MsgSeq":130,"MsgBody":[]`,
			Event{Operator: "o", GroupID: "g", Conversation: "g", MsgSeqs: []uint32{130}},
		},
		{
			"Group.CallbackAfterGroupMsgExtension", `"GroupId":"g","MsgSeq":130,"OperateType":1,"ExtensionList":[]`,
			Event{GroupID: "g", Conversation: "g", MsgSeqs: []uint32{130}},
		},
		{
			"Group.CallbackAfterReadReceipt", `"GroupId":"g","Type":"Public","GroupMsgReceiptList":[{"MsgSeq":1},{"MsgSeq":2,"ReadReceiptMembers":[{"Member_Account":"a"}]}]`,
			Event{To: "a", GroupID: "g", GroupType: "Public", Conversation: "g", MsgSeqs: []uint32{1, 2}},
		},
		{
			"Group.CallbackAfterRecallMsg", `"Operator_Account":"o","Type":"Community","GroupId":"g","TopicId":"t","MsgSeqList":[{"MsgSeq":1}]`,
			Event{Operator: "o", GroupID: "g", TopicID: "t", GroupType: "Community", Conversation: "t", MsgSeqs: []uint32{1}},
		},
		{
			"OfficialAccount.CallbackAfterMsgWithDraw", `"Official_Account":"@TOA#_a","WithdrawMsgList":[{"MsgKey":"k1"},{"MsgKey":"k2"}]`,
			Event{Conversation: "@TOA#_a", MsgKey: "k1"},
		},
		{
			"Live.CallbackBeforeSendGift", `"Operator_Account":"o","RoomId":"live_1","GiftWater":{}`,
			Event{Operator: "o", RoomID: "live_1", Conversation: "live_1"},
		},
		{
			"Future.CallbackAfterAnything", `"From_Account":"b","To_Account":["a"],"Operator_Account":7`,
			Event{From: "b", Conversation: "b"},
		},
		{
			"Future.CallbackAfterAnything", `"x":1`, Event{},
		},
	} {
		body := `{"CallbackCommand":"` + tt.command + `",` + tt.body + `}`
		got, err := Inspect([]byte(body), tt.command)
		if err != nil {
			t.Errorf("%s: %v", tt.command, err)
			continue
		}
		tt.want.Command, tt.want.Class, tt.want.Drift, tt.want.identified = got.Command, got.Class, got.Drift, got.identified
		if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", tt.want) {
			t.Errorf("%s\ngot  %+v\nwant %+v", body, got, tt.want)
		}
	}
}

func TestEventHasAtMostAHundredAccounts(t *testing.T) {
	t.Parallel()
	var members []string
	for i := range 5000 {
		members = append(members, fmt.Sprintf(`{"Member_Account":"m%d"}`, i))
	}
	body := `{"CallbackCommand":"Group.CallbackAfterNewMemberJoin","GroupId":"g","Type":"Public","JoinType":"Apply","Operator_Account":"o","NewMemberList":[` + strings.Join(members, ",") + `]}`
	event := wantAccepted(t, []byte(body), "Group.CallbackAfterNewMemberJoin")
	if accounts := strings.Split(event.To, ","); len(accounts) != MaxAccounts || accounts[0] != "m0" || accounts[99] != "m99" {
		t.Errorf("%d accounts: %s", len(accounts), event.To)
	}
}

// Only what happens once to a message is identified by it.
func TestEventsThatRecurAreIdentifiedByTheirTimeOnly(t *testing.T) {
	t.Parallel()
	for _, c := range Commands() {
		if !c.Recurs {
			continue
		}
		body := string(Sample(c.Name))
		event := wantAccepted(t, []byte(body), c.Name)
		if _, random := event.ID("1", []byte(body)); random {
			t.Errorf("%s: with a time, the ID is random", c.Name)
		}
		at := strings.LastIndex(body, `,"EventTime":`)
		if at < 0 {
			t.Fatalf("%s: no EventTime in %s", c.Name, body)
		}
		without := body[:at] + "}"
		event = wantAccepted(t, []byte(without), c.Name)
		if _, random := event.ID("1", []byte(without)); !random {
			t.Errorf("%s: without a time, two equal events have one ID", c.Name)
		}
	}
}

func TestDriftNamesWhatDiffersFromTheTable(t *testing.T) {
	t.Parallel()
	for _, c := range Commands() {
		if len(c.Fields) == 0 {
			continue
		}
		if event := wantAccepted(t, Sample(c.Name), c.Name); event.Drift != nil {
			t.Errorf("%s: the sample drifts: %+v", c.Name, event.Drift)
		}
		event := wantAccepted(t, sampleWith(c.Name, `"NewField":{"NewToo":1},"Other":1`), c.Name)
		if event.Drift == nil || !slices.Equal(event.Drift.Unknown, []string{"NewField", "Other"}) || len(event.Drift.Missing) > 0 {
			t.Errorf("%s: drift %+v, want the two unknown names", c.Name, event.Drift)
		}
	}
	event := wantAccepted(t, edited(t, RecallCommand, `"MsgSeq":130`, `"MsgSeq":130,"Inner":1`), RecallCommand)
	if event.Drift == nil || !slices.Equal(event.Drift.Unknown, []string{"Inner"}) {
		t.Errorf("in a nested object: drift %+v", event.Drift)
	}
	if event := wantAccepted(t, []byte(`{"Anything":1}`), "Future.CallbackAfterAnything"); event.Drift != nil {
		t.Errorf("a command that is not in the table drifts: %+v", event.Drift)
	}
	many := wantAccepted(t, sampleWith(RecallCommand, strings.Repeat(`"x":1,`, 1)+manyNames(100)), RecallCommand)
	if len(many.Drift.Unknown) != maxDrift {
		t.Errorf("%d names are noted, want %d", len(many.Drift.Unknown), maxDrift)
	}
}

func manyNames(n int) string {
	var names []string
	for i := range n {
		names = append(names, fmt.Sprintf(`"n%d":1`, i))
	}
	return strings.Join(names, ",")
}
