// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

import (
	"fmt"
	"strings"
	"testing"
)

// merged returns a message with merged messages, nested to the depth.
func merged(depth int) string {
	body := `[{"MsgType":"TIMTextElem","MsgContent":{"Text":"innermost"}}]`
	for i := range depth {
		body = fmt.Sprintf(`[{"MsgType":"TIMRelayElem","MsgContent":{"Title":"t","MsgNum":1,"CompatibleText":"c","AbstractList":["a"],"MsgList":[{"From_Account":"u%d","To_Account":"v","MsgSeq":1,"MsgRandom":2,"MsgTimeStamp":3,"MsgBody":%s}]}}]`, i, body)
	}
	return body
}

func TestMergedMessagesMayNestAHundredTimes(t *testing.T) {
	t.Parallel()
	for _, command := range []string{"Group.CallbackBeforeSendMsg", "Group.CallbackAfterSendMsg", "C2C.CallbackBeforeSendMsg", "C2C.CallbackAfterSendMsg", "OfficialAccount.CallbackBeforeSendMsg", "Bot.OnGroupMessage"} {
		sample := string(Sample(command))
		start := strings.Index(sample, `"MsgBody":`) + len(`"MsgBody":`)
		end := start + strings.Index(sample[start:], "]") + 1
		for _, depth := range []int{1, 3, 100} {
			wantAccepted(t, []byte(sample[:start]+merged(depth)+sample[end:]), command)
		}
	}
}

func TestACommandInTheBodyIsThatOfTheQuery(t *testing.T) {
	t.Parallel()
	for _, c := range append(Commands(), Command{Name: "Future.CallbackAfterAnything"}) {
		fields := strings.TrimPrefix(string(Sample(c.Name)), "{")
		fields = strings.TrimPrefix(fields, `"CallbackCommand":"`+c.Name+`"`)
		fields = strings.TrimSuffix(strings.TrimPrefix(fields, ","), "}")
		for value, reason := range map[string]Reason{
			`"` + c.Name + `"`:                  "",
			`"Group.CallbackAfterAnother"`:      ReasonMismatch,
			`"` + strings.ToLower(c.Name) + `"`: ReasonMismatch,
			`""`:                                ReasonMismatch,
			`1`:                                 ReasonPayload,
			`null`:                              ReasonPayload,
			`["` + c.Name + `"]`:                ReasonPayload,
			`{}`:                                ReasonPayload,
		} {
			body := `{"CallbackCommand":` + value
			if fields != "" {
				body += "," + fields
			}
			_, err := Inspect([]byte(body+"}"), c.Name)
			switch {
			case reason == "" && err != nil:
				t.Errorf("%s: its own command is refused: %v", c.Name, err)
			case reason != "":
				wantRejection(t, err, reason, "/CallbackCommand")
			}
		}
	}
}

func TestNamesByWhichABackendReadsSomethingElseAreRejected(t *testing.T) {
	t.Parallel()
	for members, path := range map[string]string{
		`"SdkAppid":"1"`:                      "/SdkAppid",
		`"SdkAppId":1`:                        "/SdkAppId",
		`"sdkappid":1`:                        "/sdkappid",
		`"sdk_app_id":1`:                      "/sdk_app_id",
		`"Sign":""`:                           "/Sign",
		`"sign":1`:                            "/sign",
		`"RequestTime":1`:                     "/RequestTime",
		`"REQUESTTIME":1`:                     "/REQUESTTIME",
		`"_method":"PUT"`:                     "/_method",
		`"@type":"java.lang.AutoCloseable"`:   "/@type",
		`"\u0040type":"x"`:                    "/@type",
		`"$ref":"$"`:                          "/$ref",
		`"x":{"@class":"x"}`:                  "/x/@class",
		`"x":[[{"$type":"x"}]]`:               "/x/0/0/$type",
		`"x":{"y":{"__proto__":1}}`:           "/x/y/__proto__",
		`"constructor":{"prototype":{"a":1}}`: "/constructor",
		`"x":{"constructor":1}`:               "/x/constructor",
		`"x":[{"prototype":1}]`:               "/x/0/prototype",
	} {
		for _, command := range []string{RecallCommand, "C2C.CallbackBeforeSendMsg", "Push.OfflinePush", "Future.CallbackAfterAnything"} {
			_, err := Inspect(sampleWith(command, members), command)
			wantRejection(t, err, ReasonPayload, path)
		}
	}
	for _, members := range []string{
		`"x":{"SdkAppid":1,"Sign":2,"RequestTime":3,"_method":4}`, `"Method":1,"method":2`, `"x":{"a@b":1,"a$":2,"":3}`, `"Signature":1,"Assign":2`,
		`"x":"@type"`, `"x":["$ref","__proto__","constructor"]`, `"Constructor":1,"prototypes":2`,
	} {
		wantAccepted(t, sampleWith(RecallCommand, members), RecallCommand)
	}
}

func TestParametersThatChangeTheMethodAreRejected(t *testing.T) {
	t.Parallel()
	for _, raw := range []string{"_method=PUT", "_METHOD=PUT", "%5fmethod=PUT", ".method=PUT", "+_method=PUT", "%20+_method=PUT", "_method[]=PUT", "_method[x]=PUT", "[method=PUT", "_method%00x=PUT", "_method"} {
		_, err := ParseQuery(raw + "&" + sampleQuery)
		wantRejection(t, err, ReasonQuery, "_method")
	}
	for _, raw := range []string{"method=PUT", "x_method=PUT", "_methods=1", "_meth=1", "__method=1", "_=1", ".=1", "m=Api&a=cb&type=im&s=/x", "methods[]=1"} {
		if _, err := ParseQuery(raw + "&" + sampleQuery); err != nil {
			t.Errorf("%s: %v", raw, err)
		}
	}
}
