// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func wellFormedDate(date string) bool {
	for _, layout := range []string{time.DateOnly, "2006-01"} {
		if _, err := time.Parse(layout, date); err == nil {
			return true
		}
	}
	return date == ""
}

// knownCommands are all commands that are known to exist, on one line a prefix.
const knownCommands = `
Alert: RequestOverLimit
Bot: OnC2CMessage OnGroupMessage
C2C: CallbackAfterC2CMsgExtension CallbackAfterModifyMsg CallbackAfterMsgReadAll
C2C: CallbackAfterMsgReadReceipt CallbackAfterMsgReport CallbackAfterMsgWithDraw
C2C: CallbackAfterSendMsg CallbackBeforeSendMsg
Call: CallbackAfterEndCall CallbackAfterMemberChanged CallbackAfterRecordChanged
Call: CallbackAfterStartCall
Chatbot: InterfaceInvocation OnC2CSignalMessage
ContentCallback: ResultNotify
Desk: SessionEventNotify
Follow: CallbackAfterFollowAdd CallbackAfterFollowDelete
Group: CallbackAfterChangeGroupOwner CallbackAfterCreateGroup CallbackAfterCreateTopic
Group: CallbackAfterGroupAttrChanged CallbackAfterGroupDestroyed CallbackAfterGroupFull
Group: CallbackAfterGroupInfoChanged CallbackAfterGroupMsgExtension CallbackAfterMemberExit
Group: CallbackAfterMemberFieldChanged CallbackAfterModifyMsg CallbackAfterNewMemberJoin
Group: CallbackAfterReadReceipt CallbackAfterRecallMsg CallbackAfterSendMsg
Group: CallbackAfterTopicDestroyed CallbackAfterTopicInfoChanged CallbackBeforeApplyJoinGroup
Group: CallbackBeforeCreateGroup CallbackBeforeCreateTopic CallbackBeforeInviteJoinGroup
Group: CallbackBeforeSendMsg CallbackOnDailyGroupQuotaAlarm CallbackOnMemberStateChange
Group: CallbackSendMsgException
Live: CallbackAfterChangeOwner CallbackAfterCreateBattle CallbackAfterCreateRoom
Live: CallbackAfterCreateRoomReachingThreshold CallbackAfterDelMetadata CallbackAfterDestroyRoom
Live: CallbackAfterEndBattle CallbackAfterMemberStateChanged CallbackAfterModifyAdmin
Live: CallbackAfterSetMetadata CallbackAfterStartBattle CallbackAfterUpdateRoomInfo
Live: CallbackBeforeSendGift
Member: EventNotify
Mic: CallbackAfterSeatInfoChanged
OfficialAccount: CallbackAfterAddSubscriber CallbackAfterCreateOfficialAccount
OfficialAccount: CallbackAfterDeleteSubscriber CallbackAfterMsgWithDraw
OfficialAccount: CallbackAfterOfficialAccountDestroyed CallbackAfterOfficialAccountFull
OfficialAccount: CallbackAfterOfficialAccountInfoChanged CallbackAfterSendMsg
OfficialAccount: CallbackBeforeAddSubscriber CallbackBeforeCreateOfficialAccount
OfficialAccount: CallbackBeforeSendMsg
Profile: CallbackPortraitSet
Push: AllMemberPush OfflinePush
Room: CallbackAfterCreateRoom CallbackAfterDestroyRoom CallbackAfterMemberEnter
Room: CallbackAfterMemberLeave CallbackAfterUpdateRoomInfo
Sns: CallbackBlackListAdd CallbackBlackListDelete CallbackFriendAdd CallbackFriendDelete
Sns: CallbackPrevFriendAdd CallbackPrevFriendResponse
State: StateChange
`

func TestTheTableHasExactlyTheKnownCommands(t *testing.T) {
	t.Parallel()
	var want, got []string
	for line := range strings.Lines(knownCommands) {
		prefix, suffixes, _ := strings.Cut(line, ":")
		for suffix := range strings.FieldsSeq(suffixes) {
			want = append(want, prefix+"."+suffix)
		}
	}
	for _, c := range Commands() {
		got = append(got, c.Name)
	}
	slices.Sort(want)
	slices.Sort(got)
	if len(want) != 87 || !slices.Equal(got, want) {
		t.Errorf("got %d commands\n%s\nwant 87\n%s", len(got), strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
