// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package command

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/timguard/timguard/caddymodule/callback"
)

// sender sends callbacks like Tencent.
type sender struct {
	url     string
	app     string
	token   string
	command string
	body    []byte        // if nil, a sample of the command
	age     time.Duration // of RequestTime
	client  http.Client
	start   time.Time
	sent    atomic.Int64
}

func sendCommand() *cobra.Command {
	var s sender
	var bodyFile string
	var token tokenFlag
	var asJSON, insecure bool
	var l load
	cmd := subcommand("send URL [--app <sdk_app_id>] [--token <token>] [--command <command>] [--body FILE|-] [--count <n>] [--concurrency <n>] [--rate <n>] [--age <duration>] [--timeout <duration>] [--insecure] [--json]",
		"Sends signed callbacks to a URL", `
Sends a callback to a URL like Tencent, signed if there is a token, and prints the
answer. With --count, sends several, and prints a summary of the answers and
latencies. Exits with 1 if any answer is not OK.

The token may be a placeholder such as {env.TOKEN} or {file./run/secrets/token},
which keeps it out of the process list.`,
		cobra.ExactArgs(1), func(cmd *cobra.Command, args []string) (err error) {
			s.url, s.start = args[0], time.Now()
			if s.token, err = token.resolve(); err != nil {
				return err
			}
			if bodyFile == "" {
				err = checkKnown(s.command)
			} else {
				s.body, err = readFileOrStdin(cmd, bodyFile)
			}
			if err != nil {
				return err
			}
			if l.count < 1 || l.concurrency < 1 || l.rate < 0 {
				return errors.New("--count and --concurrency must be at least 1, and --rate not negative")
			}
			s.client.Transport, s.client.CheckRedirect = transport(l.concurrency, insecure), noRedirect
			if l.count > 1 {
				return l.run(cmd, &s, asJSON)
			}
			return s.sendOne(cmd.Context(), cmd.OutOrStdout(), asJSON)
		})
	flags := cmd.Flags()
	flags.StringVar(&s.app, "app", "1400000000", "SdkAppid")
	token.add(flags, "the token of the app; without one, callbacks are unsigned")
	flags.StringVar(&s.command, "command", callback.RecallCommand, "CallbackCommand")
	flags.StringVar(&bodyFile, "body", "", "file with the payload, or - for standard input (default: a sample of the command)")
	flags.DurationVar(&s.client.Timeout, "timeout", 2*time.Second, "how long to wait for the answer; Tencent waits 2s")
	flags.IntVar(&l.count, "count", 1, "number of callbacks")
	flags.IntVar(&l.concurrency, "concurrency", 1, "number of concurrent callbacks")
	flags.Float64Var(&l.rate, "rate", 0, "maximum number of callbacks per second (default: unlimited)")
	flags.DurationVar(&s.age, "age", 0, "age of RequestTime; negative for the future")
	flags.BoolVar(&insecure, "insecure", false, "accept any server certificate")
	flags.BoolVar(&asJSON, "json", false, "print the result as JSON")
	return cmd
}

// transport returns an HTTP transport that keeps the given number of connections open.
func transport(connections int, insecure bool) *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConnsPerHost = connections
	if insecure {
		t.TLSClientConfig = &tls.Config{InsecureSkipVerify: true} //nolint:gosec // what --insecure asks for
	}
	return t
}

// noRedirect keeps a client from following redirects: a callback URL that redirects is a
// mistake, and the other one would get the Sign.
func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// target returns the URL with the parameters that Tencent adds, sorted as in its
// requests.
func (s *sender) target(now time.Time) (string, error) {
	u, err := parseURL(s.url)
	if err != nil {
		return "", err
	}
	q := u.Query()
	q.Set("SdkAppid", s.app)
	q.Set("CallbackCommand", s.command)
	q.Set("contenttype", "json")
	q.Set("ClientIP", "127.0.0.1")
	q.Set("OptPlatform", "RESTAPI")
	if s.token != "" {
		requestTime := strconv.FormatInt(now.Add(-s.age).Unix(), 10)
		q.Set("RequestTime", requestTime)
		q.Set("Sign", callback.Sign(s.token, requestTime))
	}
	u.RawQuery = q.Encode()
	return u.String(), nil
}

// parseURL parses the URL of a callback endpoint.
func parseURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("URL %q: want a URL such as http://localhost:8080/callback", text)
	}
	return u, nil
}

// sampleOf returns a sample payload of the command for the app, at the given time.
func sampleOf(command, app string, at time.Time) []byte {
	return bytes.Replace(callback.SampleAt(command, at), fmt.Appendf(nil, `"SdkAppId":%d`, callback.SampleApp), []byte(`"SdkAppId":`+app), 1)
}

// sendResult is the answer, as printed with --json.
type sendResult struct {
	Status int             `json:"status"`
	Millis float64         `json:"milliseconds"`
	Answer json.RawMessage `json:"answer,omitempty"` // if it is JSON
	Text   string          `json:"text,omitempty"`   // if it is not

	Location string `json:"location,omitempty"` // where it redirects to

	proxied bool // a proxy has passed it on
}

// ok reports whether Tencent would accept the answer.
func (r sendResult) ok() bool {
	var a callback.Answer
	return r.Status == http.StatusOK && json.Unmarshal(r.Answer, &a) == nil && a.ActionStatus == "OK"
}

func (s *sender) sendOne(ctx context.Context, w io.Writer, asJSON bool) error {
	result, err := s.send(ctx)
	if err != nil {
		return err
	}
	if asJSON {
		if err := json.NewEncoder(w).Encode(result); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(w, "%d %s in %.1f ms\n%s%s\n", result.Status, http.StatusText(result.Status), result.Millis, result.Answer, result.Text)
	}
	if !result.ok() {
		return errors.New("the answer is not OK" + result.hint(s.app))
	}
	return nil
}

// hint says what is probably wrong with the app, or with the URL or the server if no guard has
// answered.
func (r sendResult) hint(app string) string {
	switch {
	case reasonOf(r.Status, r.Answer) == callback.ReasonApp:
		return ": the guard does not know the app " + callback.Printable(app) + ": name yours with --app"
	case r.Location != "":
		return ": it redirects to " + callback.Printable(r.Location) + ": give Tencent's console that URL"
	case r.Status == http.StatusOK && r.Text == "" && len(r.Answer) == 0:
		return ": no handler answered: is there a backend after the guard?"
	case r.Status == http.StatusBadGateway && r.Text == "" && len(r.Answer) == 0:
		return ": the backend does not answer: is its address right, and does it run?"
	case r.Status == http.StatusNotFound && r.proxied:
		return ": the backend behind the guard has no such path; if a proxy stands before the site, the site may guard another one"
	case r.Status == http.StatusNotFound:
		return ": nothing is there: the site guards another path, or the backend behind it has no such path"
	case r.Status == http.StatusBadRequest && strings.Contains(r.Text, "HTTP request to an HTTPS server"):
		return ": this port speaks TLS: write https:// in place of http://"
	case r.Status == http.StatusOK && !bytes.Contains(r.Answer, []byte("ActionStatus")):
		return `: it is not in Tencent's form, {"ActionStatus":"OK","ErrorInfo":"","ErrorCode":0}`
	}
	return ""
}

// send sends a callback. Its errors do not contain the query, which includes the Sign.
func (s *sender) send(ctx context.Context) (result sendResult, err error) {
	target, err := s.target(time.Now())
	if err != nil {
		return result, err
	}
	body := s.body
	if body == nil {
		// A new event each time, even within a millisecond.
		body = sampleOf(s.command, s.app, s.start.Add(time.Duration(s.sent.Add(1))*time.Millisecond))
	}
	return post(ctx, &s.client, target, body)
}

// post posts a payload. Its errors do not contain the query.
func post(ctx context.Context, client *http.Client, target string, body []byte) (result sendResult, err error) {
	start := time.Now()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, bytes.NewReader(body))
	if err != nil {
		return result, withoutURL(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return result, explained(err)
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return result, withoutURL(err)
	}
	result.Status, result.Location, result.proxied = resp.StatusCode, location(resp), hops(resp.Header) > 0
	result.Millis = float64(time.Since(start).Microseconds()) / 1000
	if trimmed := bytes.TrimSpace(answer); json.Valid(trimmed) {
		result.Answer = trimmed
	} else {
		result.Text = strings.TrimSpace(string(answer))
	}
	return result, nil
}

func withoutURL(err error) error {
	if urlErr, ok := errors.AsType[*url.Error](err); ok {
		return urlErr.Err
	}
	return err
}

// explained returns an error of an HTTP client without the URL, and with what to do.
func explained(err error) error {
	if errors.Is(err, http.ErrSchemeMismatch) {
		return errors.New("this port speaks plain HTTP: write http:// in place of https://")
	}
	if _, isCertificate := errors.AsType[*tls.CertificateVerificationError](err); isCertificate {
		return fmt.Errorf("%w: --insecure accepts any certificate", withoutURL(err))
	}
	return withoutURL(err)
}
