// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package command

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/timguard/timguard/caddymodule/callback"
)

// outcome is what happened to a call of a probe.
type outcome string

const (
	refused  outcome = "refused"  // by a guard
	absent   outcome = "absent"   // nothing is there
	unclear  outcome = "unclear"  // a guard or a backend
	gotIn    outcome = "GOT IN"   // was answered OK, or reached a backend
	accepted outcome = "accepted" // the genuine call
	notOK    outcome = "not OK"   // the genuine call
	skipped  outcome = "skipped"
)

// judge sets the results of all calls.
func (r *probed) judge(hasToken bool) {
	fewest, guarded := -1, false // proxies in front of the site; whether a guard answers
	for _, k := range r.Calls {
		if k.Status == 0 {
			continue
		}
		if fewest < 0 || k.hops < fewest {
			fewest = k.hops
		}
		if reasonOf(k.Status, k.answer) != "" {
			guarded = true
		}
	}
	for _, k := range r.Calls {
		switch {
		case k.needs && !hasToken:
			k.Result, k.Detail = skipped, "needs --token"
		case k.err != nil:
			k.Result, k.Detail = unclear, "no answer: "+k.err.Error()
		default:
			k.judge(k.hops > fewest, guarded)
		}
		if k.Result == gotIn {
			r.GotIn++
		}
	}
	r.Hint = r.hint()
}

// reasonOf returns the reason with which a guard has refused a call, or "" if the answer has
// not the form of a guard's.
func reasonOf(status int, answer []byte) callback.Reason {
	var a callback.Answer
	if status < 400 || status > 499 || json.Unmarshal(answer, &a) != nil || a.ActionStatus != "FAIL" {
		return ""
	}
	word, _, _ := strings.Cut(a.ErrorInfo, ":")
	if reason := callback.Reason(word); slices.Contains(callback.Reasons(), reason) {
		return reason
	}
	return ""
}

// judge sets the result of an answered call. proxied is whether a proxy that is not in front
// of the whole site has passed the answer on; guarded is whether a guard has answered any
// call.
func (k *knock) judge(proxied, guarded bool) {
	var a callback.Answer
	_ = json.Unmarshal(k.answer, &a)
	blank := strings.TrimSpace(string(k.answer)) == ""
	k.Reason = reasonOf(k.Status, k.answer)
	switch {
	case k.genuine:
		k.judgeGenuine(a, proxied)
	case k.Reason != "":
		k.Result, k.Detail = refused, "by the guard: "+string(k.Reason)
	case a.ActionStatus == "OK":
		k.Result, k.Detail = gotIn, "was answered OK"
	case a.ActionStatus != "":
		k.Result, k.Detail = gotIn, "reached a backend, which answered "+callback.Printable(a.ActionStatus)
	case k.Status < 300 && !blank:
		k.Result, k.Detail = gotIn, "reached something that answers with a body"
	case k.Status < 300 && proxied:
		k.Result, k.Detail = gotIn, "reached a backend, which answered nothing"
	case k.Status < 300:
		k.Result, k.Detail = unclear, "an empty answer: of a site that has no handler for it, or of a backend"
	case k.Status < 400:
		k.Result, k.Detail = absent, "redirected to "+callback.Printable(k.location)
	case k.Status >= 500 && guarded:
		k.Result, k.Detail = gotIn, "went past the guard to a backend that does not answer"
	default:
		k.judgeError(proxied)
	}
}

// judgeError sets the result of a call that was answered with an error that is not a guard's.
func (k *knock) judgeError(proxied bool) {
	unknown := k.other && slices.Contains([]int{http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusGone}, k.Status)
	switch {
	case unknown && proxied:
		k.Result, k.Detail = unclear, "a backend was asked beside the guard, or through one in report mode, but does not know the path"
	case unknown || k.Status == http.StatusNotFound:
		k.Result, k.Detail = absent, "nothing is there"
	case proxied:
		k.Result, k.Detail = gotIn, "reached a backend, which refused it"
	case k.Status == k.refusal:
		k.Result, k.Detail = unclear, "a guard with handle_errors answers so, and so may a backend"
	default:
		k.Result, k.Detail = unclear, "not the answer of a guard"
	}
}

func (k *knock) judgeGenuine(a callback.Answer, proxied bool) {
	switch {
	case k.Status == http.StatusOK && a.ActionStatus == "OK":
		k.Result, k.Detail = accepted, "was answered OK"
	case k.Reason == callback.ReasonSign:
		k.Result, k.Detail = notOK, "refused by the guard: sign; is this the token?"
	case k.Reason == callback.ReasonCommand:
		k.Result, k.Detail = notOK, "refused by the guard: command; name one that a rule lets in with --command"
	case k.Reason != "":
		k.Result, k.Detail = notOK, "refused by the guard: "+string(k.Reason)
	case a.ActionStatus != "":
		k.Result, k.Detail = notOK, "was answered "+callback.Printable(a.ActionStatus)
	default:
		k.Result, k.Detail = notOK, strings.TrimPrefix(sendResult{Status: k.Status, Text: string(k.answer), Location: k.location, proxied: proxied}.hint(""), ": ")
	}
}

// count returns how many calls to the URL itself, or to other paths, have the result.
func (r *probed) count(other bool, result outcome) (n int) {
	for _, k := range r.Calls {
		if k.other == other && k.Result == result {
			n++
		}
	}
	return n
}

// hint says what is probably wrong.
func (r *probed) hint() string {
	unsignedIn := r.Calls[0].Result == gotIn && r.Calls[1].Result == gotIn
	switch {
	case unsignedIn && r.count(false, refused) > 0:
		return "What is not signed gets in, but the guard refuses other calls: does the app lack a token, or is it unsigned?"
	case unsignedIn:
		return "Nothing is refused: is there a guard, is it in report mode, or does a handler such as reverse_proxy stand before it in a route?"
	case r.count(true, gotIn) > 0 && r.count(false, gotIn) == 0:
		return "Other paths reach a backend beside the guard: put both into a handle of the exact path, and answer every other path with 404."
	case r.Calls[1].Reason == callback.ReasonApp:
		return fmt.Sprintf("The guard does not know the app %s, so it looks no further: name yours with --app.", callback.Printable(r.App))
	case r.Calls[len(r.Calls)-1].Reason == callback.ReasonSign:
		return "The token is not that of the app, so the calls that need one say little."
	}
	return ""
}

// seemsGuarded reports whether the URL itself answers as a guard does: in its form or, if
// error routes answer, with its statuses for several reasons.
func (r *probed) seemsGuarded() bool {
	statuses := make(map[int]bool)
	for _, k := range r.Calls {
		switch {
		case k.other || k.genuine || k.Status == 0:
		case k.Reason != "":
			return true
		case k.Status == k.refusal:
			statuses[k.Status] = true
		}
	}
	return len(statuses) > 2
}

// err returns an error if a call got in, if no guard is there, if it refuses the app whatever
// the Sign, or if the genuine call was not answered OK.
func (r *probed) err() error {
	last := r.Calls[len(r.Calls)-1]
	switch {
	case r.GotIn == 1:
		return errors.New("1 call got in")
	case r.GotIn > 0:
		return fmt.Errorf("%d calls got in", r.GotIn)
	case !r.seemsGuarded():
		return errors.New("no guard answers here: is this the path that the site guards?")
	case r.Calls[1].Reason == callback.ReasonApp:
		return errors.New("nothing got in, but nothing was tried either: the guard does not know the app")
	case last.Result == notOK || last.Result == unclear:
		return errors.New("nothing got in, but the genuine call was not answered OK")
	}
	return nil
}
