// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/timguard/timguard/caddymodule/callback"
	"github.com/timguard/timguard/caddymodule/internal/guardtest"
	"github.com/timguard/timguard/caddymodule/outbox"
)

// newKey returns a key that tim-callback keygen prints.
func newKey(t *testing.T) string {
	t.Helper()
	output, err := guardtest.Timguard(t.TempDir(), "tim-callback", "keygen").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(output))
}

// secrets are in the payload and the headers of what postSecret posts.
var secrets = []string{"chengdu-to-kunming", "red packet 8888", "header-value-7c1f", "User-Agent-of-secrets"}

// secretCommand is the command of what postSecret posts, which is not encrypted.
const secretCommand = "Group.CallbackAfterSendMsg"

// postSecret posts a callback with secrets. It returns its payload.
func postSecret(t *testing.T, s *guardtest.Site, id string) []byte {
	t.Helper()
	body := bytes.Replace(callback.Sample(secretCommand), []byte("red packet"), []byte(secrets[0]+" "+secrets[1]+" "+id), 1)
	p := guardtest.NewPoster(t, s.Listen)
	p.Header = http.Header{"X-Note": {secrets[2]}, "User-Agent": {secrets[3]}}
	if _, answer, err := p.Post("/callback", secretCommand, body); err != nil || answer != guardtest.OKJSON {
		t.Fatal(answer, err)
	}
	return body
}

// atRest returns every byte that the store has on disk, or a dump of it.
func atRest(t *testing.T, s *guardtest.Site) []byte {
	t.Helper()
	if _, dsn, found := strings.Cut(s.Options, "store postgres "); found {
		dsn, _, _ = strings.Cut(dsn, "\n")
		rows := guardtest.QueryPostgres(t, dsn, "SELECT string_agg(j::text, E'\\n') FROM river_job j")
		if rows == "" {
			t.Fatal("the table is empty")
		}
		return []byte(rows)
	}
	var all []byte
	files, _ := filepath.Glob(s.StorePath() + "*")
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, data...)
	}
	return all
}

// With encrypt, no secret of a payload or header is in the store, in whatever encoding. What
// identifies a delivery is.
func TestEndToEndDeliveryEncryptsWhatIsStored(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, store string) {
		t.Helper()
		for _, encrypted := range []bool{false, true} { // without keys, the search finds them
			b := guardtest.NewBackend(t, guardtest.Answers(http.StatusServiceUnavailable, ""))
			s := guardtest.NewSite(t, guardtest.Guard("on after deliver {\ncopy archive\n}", "backend "+b.Address(), "consumer archive "+b.Address()))
			s.Options = store
			if encrypted {
				s.Options += "\nencrypt " + newKey(t)
			} else if store != "" {
				s.Options = storeInPostgres(t)
			}
			p := s.Start(t)
			p.WantLog(t, "the store is open", nil)
			body := postSecret(t, s, "first")
			s.WantError(t, "the status 503")
			data := atRest(t, s)
			for _, secret := range secrets {
				if found := bytes.Contains(data, []byte(secret)); found == encrypted {
					t.Errorf("encrypted %t: %q is in the store: %t", encrypted, secret, found)
				}
			}
			if encrypted {
				for i := 0; i+16 <= len(body); i++ { // no part of the payload that is not elsewhere
					part := body[i : i+16]
					if bytes.Contains(data, part) && !bytes.ContainsAny(part, `_@#`) && !strings.Contains(secretCommand, strings.Trim(string(part), `":`)) {
						t.Errorf("%q of the payload is in the store", part)
						break
					}
				}
			}
			if !bytes.Contains(data, []byte(secretCommand)) {
				t.Error("the search finds not even the command, and shows nothing")
			}
			b.Will(guardtest.Accepts)
			guardtest.Get(t, http.MethodPost, "http://"+s.Admin+"/tim_callback/deliveries/retry?state=retrying")
			a := b.One(t, body)
			if a.Header.Get("X-Note") != secrets[2] || a.Header.Get("User-Agent") != secrets[3] {
				t.Errorf("headers %v", a.Header)
			}
			s.WantState(t, outbox.Delivered, 2)
			p.Terminate(t)
			if data := atRest(t, s); encrypted && bytes.Contains(data, []byte(secrets[0])) {
				t.Error("after the end, a secret is in the store")
			}
			if strings.Contains(p.Log.String(), secrets[0]) {
				t.Error("the log says a secret")
			}
		}
	})
}

// Keys are replaced by writing a new one before the old one. Without the key of a row, its
// attempts fail, and say so; it is delivered when the key is back.
func TestEndToEndDeliveryReplacesKeys(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, store string) {
		t.Helper()
		older, newer := newKey(t), newKey(t)
		b := guardtest.NewBackend(t, guardtest.Answers(http.StatusServiceUnavailable, ""))
		s := guardtest.NewSite(t, guardtest.Delivering(b))
		with := func(keys string) {
			s.Options = "max_attempts 100\n" + store
			if keys != "" {
				s.Options += "\nencrypt " + keys
			}
		}
		var bodies [][]byte
		with("")
		s.Start(t).WantLog(t, "the store is open", nil)
		for i, keys := range []string{"", older, newer + " " + older} {
			if i > 0 {
				with(keys)
				s.Reload(t)
			}
			bodies = append(bodies, postSecret(t, s, fmt.Sprint("key", i)))
		}
		s.WantState(t, outbox.Retrying, len(bodies))
		const missing = "the callback is encrypted with a key that is not configured; add it to encrypt of tim_delivery"
		for i, step := range []struct {
			keys      string
			delivered int
		}{{"", 1}, {newer, 2}, {newer + " " + older, 3}} {
			with(step.keys)
			s.Reload(t)
			b.Will(guardtest.Accepts) // not sooner, when the keys were still known
			guardtest.Eventually(t, 30*time.Second, "what can be read is delivered, and the rest says that the key is missing", func() bool {
				// Called again for what was just being tried.
				guardtest.Get(t, http.MethodPost, "http://"+s.Admin+"/tim_callback/deliveries/retry?state=retrying")
				delivered, unreadable := 0, 0
				for _, item := range s.Items(t) {
					switch {
					case item.State == outbox.Delivered:
						delivered++
					case item.LastError() == missing:
						unreadable++
					}
				}
				return delivered == step.delivered && unreadable == len(bodies)-step.delivered
			})
			for _, item := range s.Items(t) {
				if item.State == outbox.Delivered {
					continue
				}
				if _, text := guardtest.Get(t, http.MethodGet, fmt.Sprintf("http://%s/tim_callback/deliveries/%d", s.Admin, item.ID)); !strings.Contains(text, missing) {
					t.Errorf("step %d: what cannot be read is shown as %s", i, text)
				}
			}
		}
		for i, body := range bodies {
			if n := b.Times(body); n != 1 {
				t.Errorf("callback %d arrived %d times", i, n)
			}
		}
	})
}

func TestDeliveryKeysAreChecked(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	for name, tt := range map[string]struct{ keys, want string }{
		"of keygen": {key, ""}, "two": {key + " " + newKey(t), ""},
		"short":         {"c2hvcnQ=", "encrypt: key 1: want 32 bytes in base64, such as tim-callback keygen prints"},
		"not base64":    {key + " " + strings.Repeat("?", 44), "encrypt: key 2: want 32 bytes in base64"},
		"twice":         {key + " " + key, "encrypt: key 2: it is given twice"},
		"unset":         {"{env.TIMGUARD_TEST_UNSET}", "TIMGUARD_TEST_UNSET"},
		"no such file":  {"{file./nowhere/key}", "encrypt: key 1"},
		"a placeholder": {"{file." + keyFile(t, key) + "}", ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := guardtest.NewSite(t, guardtest.Guard("on after deliver", "backend 127.0.0.1:1"))
			s.Options = "encrypt " + tt.keys
			err := validate(t, s)
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), key) {
				t.Error("the error has a key")
			}
		})
	}
}

func keyFile(t *testing.T, key string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, []byte(key+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// A second process on the SQLite file starts, says whose the file is, and forwards. It stores
// as soon as the first one has ended.
func TestEndToEndDeliverySharesNoSQLiteFile(t *testing.T) {
	t.Parallel()
	b := guardtest.NewBackend(t, guardtest.Accepts)
	first, second := guardtest.NewSite(t, guardtest.Delivering(b)), guardtest.NewSite(t, guardtest.Delivering(b))
	second.Options, second.Unopened = "store sqlite "+first.StorePath(), true
	p := first.Start(t)
	p.WantLog(t, "the store is open", nil)
	q := second.Start(t)
	q.WantLog(t, "the store cannot be opened; callbacks are forwarded instead of stored, until it can; trying again every second", map[string]any{
		"level": "error", "error": fmt.Sprintf("sqlite: %s is open in another process with the ID %d; each Caddy needs a file of its own, or a store that can be shared, such as postgres",
			first.StorePath(), p.Cmd.Process.Pid),
	})
	if got := second.Status(t).StoreError; !strings.Contains(got, fmt.Sprintf("%s is open in another process with the ID %d", first.StorePath(), p.Cmd.Process.Pid)) {
		t.Errorf("status says %q", got)
	}
	guardtest.NewPoster(t, second.Listen).WantOK(t, "second")
	if !b.Forwarded(guardtest.Event("second")) {
		t.Error("the second process did not forward")
	}
	guardtest.NewPoster(t, first.Listen).WantOK(t, "first")
	if a := b.One(t, guardtest.Event("first")); a.AtOnce() {
		t.Error("the first process does not store any longer")
	}
	p.Kill()
	q.WantLog(t, "the store works again", nil)
	if got := second.Status(t).StoreError; got != "" {
		t.Errorf("after the end of the first, status says %q", got)
	}
	guardtest.NewPoster(t, second.Listen).WantOK(t, "afterwards")
	if a := b.One(t, guardtest.Event("afterwards")); a.AtOnce() {
		t.Error("the second process does not store after the end of the first")
	}
}

// BenchmarkEncrypt measures what encryption costs: the time to store callbacks of 16 senders.
func BenchmarkEncrypt(b *testing.B) {
	key := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, KeySize))
	for name, option := range map[string]string{"plain": "", "encrypted": "encrypt " + key} {
		b.Run(name, func(b *testing.B) {
			s := newBenchmarked(b, option, "on after deliver", "backend [backend]")
			s.post(b, 16, 16, atOnce)
			b.ResetTimer()
			took := s.post(b, 16, int64(b.N), atOnce)
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "acks/s")
			reportLatency(b, took)
		})
	}
}
