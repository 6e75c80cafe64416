// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

import (
	"strings"
	"testing"
)

func TestParseQueryParsesEveryParameter(t *testing.T) {
	t.Parallel()
	want := Query{
		SdkAppID: "1400000000", CallbackCommand: "Group.CallbackAfterRecallMsg", ContentType: "json", ClientIP: "127.0.0.1", OptPlatform: "RESTAPI",
		Sign: "17773bc39a671d7b9aa835458704d2a6db81360a5940292b587d6d760d484061", RequestTime: "1669872112",
	}
	for name, raw := range map[string]string{
		"alphabetical": sampleQuery,
		"as documented": "SdkAppid=1400000000&CallbackCommand=Group.CallbackAfterRecallMsg&contenttype=json&ClientIP=127.0.0.1&OptPlatform=RESTAPI" +
			"&Sign=17773bc39a671d7b9aa835458704d2a6db81360a5940292b587d6d760d484061&RequestTime=1669872112",
		"foreign parameters among them": "A=1&" + strings.ReplaceAll(sampleQuery, "&", "&tenant=eu&RequestId=8f0c&") + "&zone=2",
		"percent-encoded digits":        strings.Replace(sampleQuery, "RequestTime=1669872112", "RequestTime=%31669872%3112", 1),
		"percent-encoded name":          strings.Replace(sampleQuery, "Sign=", "%53ign=", 1),
		"empty pairs":                   "&&" + strings.ReplaceAll(sampleQuery, "&", "&&") + "&",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := ParseQuery(raw)
			if err != nil {
				t.Fatal(err)
			}
			if got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}

func TestParseQueryAccepts(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		raw  string
		want Query
	}{
		"nothing":                      {"", Query{}},
		"a name without a value":       {"SdkAppid", Query{}},
		"an empty value":               {"SdkAppid=&ClientIP=", Query{}},
		"an equals sign in a value":    {"OptPlatform=a=b", Query{OptPlatform: "a=b"}},
		"an escaped ampersand":         {"OptPlatform=a%26Sign%3Db", Query{OptPlatform: "a&Sign=b"}},
		"a plus":                       {"OptPlatform=mini+Program", Query{OptPlatform: "mini Program"}},
		"UTF-8 in a foreign value":     {"x=\u5e73\u53f0&SdkAppid=3", Query{SdkAppID: "3"}},
		"escaped UTF-8 in a value":     {"OptPlatform=%E5%B9%B3", Query{OptPlatform: "\u5e73"}},
		"an IPv6 address":              {"ClientIP=2001:db8::1", Query{ClientIP: "2001:db8::1"}},
		"contenttype in capitals":      {"contenttype=JSON", Query{ContentType: "JSON"}},
		"a foreign name twice":         {"tag=1&tag=2&SdkAppid=3", Query{SdkAppID: "3"}},
		"a foreign name with brackets": {"list[]=1&a.b=2&SdkAppid=3", Query{SdkAppID: "3"}},
		"a foreign control byte":       {"x=%00%0a&SdkAppid=3", Query{SdkAppID: "3"}},
		"names that only begin alike":  {"SdkAppid2=1&Signature=2&RequestTimeout=3&RequestId=4&ClientIPs=5", Query{}},
		"names that only end alike":    {"MySdkAppid=1&XSign=2", Query{}},
		"a protocol name as a key":     {"x[Sign]=1&x.Sign=2&x[][SdkAppid]=3", Query{}},
		"a protocol name as a value":   {"x=SdkAppid&SdkAppid=3", Query{SdkAppID: "3"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := ParseQuery(test.raw)
			if err != nil {
				t.Fatal(err)
			}
			if got != test.want {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}

func TestParseQueryRejectsDuplicateParameters(t *testing.T) {
	t.Parallel()
	for _, name := range parameters {
		for _, raw := range []string{
			name + "=1&" + name + "=1",
			name + "&" + name,
			name + "=&x=2&" + name + "=1",
			name + "=1&%" + hexByte(name[0]) + name[1:] + "=2", // the same name, escaped
		} {
			_, err := ParseQuery(raw)
			wantRejection(t, err, ReasonQuery, name)
		}
	}
}

func hexByte(c byte) string {
	const digits = "0123456789abcdef"
	return string([]byte{digits[c>>4], digits[c&15]})
}

func TestParseQueryRejectsLookAlikeNames(t *testing.T) {
	t.Parallel()
	for _, name := range parameters {
		half := len(name) / 2
		for _, alike := range []string{
			strings.ToUpper(name[:1]) + strings.ToLower(name[1:]) + "%00",
			strings.ToUpper(name) + "[]",
			name + "[]", name + "[0]", name + "%5B%5D", name + "%5b0",
			name + "%00", name + "%00x", "%00" + name,
			name + "+", "+" + name, name + "%20", "%09" + name,
			name[:half] + "." + name[half:], name[:half] + "_" + name[half:], name[:half] + "-" + name[half:],
			"[" + name + "]x", "[" + name + "][x]", "%5B" + name + "%5D%5B0%5D", "[" + name + "]", "[" + name, name + ".x", name + ".x.y", "." + name, "?[" + name + "]",
			"%EF%BB%BF" + name, name + "%0B", "%0C" + name, name + "%C2%A0", name + "\xa0", name + "%FF", "%E3%80%80" + name, "?" + name, "%3F" + name,
		} {
			_, err := ParseQuery(alike + "=1")
			wantRejection(t, err, ReasonQuery, name)
			_, err = ParseQuery(name + "=1&" + alike + "=1")
			wantRejection(t, err, ReasonQuery, name)
		}
	}
	for raw, path := range map[string]string{
		"sdkappid=1":         "SdkAppid",
		"SDKAPPID=1":         "SdkAppid",
		"SdkAppId=1":         "SdkAppid",
		"SdkAppID=1":         "SdkAppid",
		"Sdk.Appid=1":        "SdkAppid",
		"callbackCommand=1":  "CallbackCommand",
		"ContentType=json":   "contenttype",
		"content-type=json":  "contenttype",
		"client_ip=1":        "ClientIP",
		"sign=1":             "Sign",
		"%C5%BFign=1":        "Sign",     // U+017F, the long s, folds to s
		"SD%E2%84%AAAppid=1": "SdkAppid", // U+212A, the Kelvin sign, folds to k
		"request_time=1":     "RequestTime",
	} {
		_, err := ParseQuery(raw)
		wantRejection(t, err, ReasonQuery, path)
	}
}

func TestParseQueryRejectsWhatParsersReadDifferently(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ raw, path string }{
		"a semicolon":                      {"SdkAppid=1;Sign=2", ""},
		"a semicolon of a foreign one":     {"x=1;y=2", ""},
		"an escape without digits":         {"SdkAppid=%", ""},
		"an escape with one digit":         {"SdkAppid=%1", ""},
		"an escape that is not hex":        {"SdkAppid=%zz", ""},
		"a bad escape in a name":           {"%5=1", ""},
		"a bad escape in a foreign value":  {"x=%5", ""},
		"an escape cut by the next pair":   {"ClientIP=1%2&Sign=1", ""},
		"a raw NUL":                        {"SdkAppid=1\x00", ""},
		"a raw newline":                    {"x=\n&SdkAppid=1", ""},
		"a raw space":                      {"SdkAppid=1 2", ""},
		"a raw DEL":                        {"SdkAppid=1\x7f", ""},
		"a fragment":                       {"SdkAppid=1#x", ""},
		"an escaped NUL":                   {"SdkAppid=1%00", "SdkAppid"},
		"an escaped newline":               {"RequestTime=1669872112%0a", "RequestTime"},
		"an escaped carriage return":       {"CallbackCommand=a%0Db", "CallbackCommand"},
		"an escaped DEL":                   {"ClientIP=%7F", "ClientIP"},
		"a letter that is not escaped":     {"OptPlatform=\u5e73%E5%8F%B0", "OptPlatform"},
		"invalid UTF-8":                    {"OptPlatform=\xff", "OptPlatform"},
		"escaped invalid UTF-8":            {"OptPlatform=%C3%28", "OptPlatform"},
		"an escaped surrogate half":        {"OptPlatform=%ED%A0%80", "OptPlatform"},
		"escaped overlong form of a slash": {"OptPlatform=%C0%AF", "OptPlatform"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q, err := ParseQuery(test.raw)
			wantRejection(t, err, ReasonQuery, test.path)
			if q != (Query{}) {
				t.Errorf("a refused query returns %+v", q)
			}
		})
	}
}

// PHP (max_input_vars) and Node (querystring's maxKeys) read only 1000 parameters.
func TestParseQueryLimitsTheNumberOfParameters(t *testing.T) {
	t.Parallel()
	for _, foreign := range []string{"x=1&", "x&", "&"} {
		q, err := ParseQuery(strings.Repeat(foreign, MaxParameters-1) + "SdkAppid=3")
		if err != nil || q.SdkAppID != "3" {
			t.Errorf("%d parameters: got %+v, %v", MaxParameters, q, err)
		}
		_, err = ParseQuery(strings.Repeat(foreign, MaxParameters) + "SdkAppid=3")
		wantRejection(t, err, ReasonQuery, "")
	}
}

func TestWithoutAuthKeepsTheRestByteForByte(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		"":                                 "",
		"a=1":                              "a=1",
		"Sign=x":                           "",
		"Sign":                             "",
		"Sign=x&RequestTime=1":             "",
		"a=1&Sign=x&b=2&RequestTime=1&c=3": "a=1&b=2&c=3",
		"RequestTime=1&a=%41+%2f&&b&=c&":   "a=%41+%2f&&b&=c&",
		"%53ign=x&a=1&Request%54ime=1":     "a=1",
		"sign=x&Signature=y&requesttime=1": "sign=x&Signature=y&requesttime=1",
		"%zz=1&Sign=x":                     "%zz=1",
		"a=Sign=x":                         "a=Sign=x",
		"Sign=a=b&c":                       "c",
	} {
		if got := WithoutAuth(raw); got != want {
			t.Errorf("WithoutAuth(%q) is %q, want %q", raw, got, want)
		}
	}
}
