// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package guardtest

import (
	"bytes"
	"database/sql"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	"github.com/timguard/timguard/caddymodule/callback"
	"github.com/timguard/timguard/caddymodule/outbox"
)

// Long runs the tests of deliveries in their long form:
//
//	go test -run EndToEndDelivery ./caddymodule/delivery -timguard.long
var Long = flag.Bool("timguard.long", false, "kill and reload many times in the tests of deliveries")

// InLongForm returns the number of repetitions in the long or the short form.
func InLongForm(short, long int) int {
	if *Long {
		return long
	}
	return short
}

// caddyArguments is the environment variable that makes the test binary run as
// timguard. It contains the arguments, one per line.
const caddyArguments = "TIMGUARD_TEST_ARGUMENTS"

// RunCaddy runs timguard if the process was started by [Timguard]. Each package whose tests
// start it has a test TestCaddyProcess that calls this.
func RunCaddy() {
	if arguments := os.Getenv(caddyArguments); arguments != "" {
		os.Args = append(os.Args[:1], strings.Split(arguments, "\n")...)
		caddycmd.Main()
		os.Exit(0)
	}
}

// Timguard returns the command that runs timguard with the arguments.
func Timguard(dir string, arguments ...string) *exec.Cmd {
	cmd := exec.Command(Itself(), "-test.run=^TestCaddyProcess$")
	cmd.Env = append(os.Environ(), caddyArguments+"="+strings.Join(arguments, "\n"),
		"HOME="+dir, "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
	return cmd
}

// Site is a site that stores callbacks. Its Caddy can be restarted.
type Site struct {
	Dir        string // of its files
	Listen     string // address of the site
	Admin      string // address of the admin API
	Logs       string // the least level that is logged
	Global     string // more global options
	App        bool   // tim_delivery is configured
	Options    string // more options of it
	Directives string // the site's directives
	Before     string // snippets and sites before the site
	After      string // sites after it
	Unopened   bool   // the store does not work, so Start and Reload do not wait for it
}

// NewSite returns a site with free addresses.
func NewSite(tb testing.TB, directives string) *Site {
	tb.Helper()
	return &Site{
		Dir: tb.TempDir(), Listen: FreePort(tb), Admin: FreePort(tb), Directives: directives,
		Logs: "INFO", Global: "grace_period 5s", App: true,
	}
}

// StorePath returns the path of the SQLite file.
func (s *Site) StorePath() string { return filepath.Join(s.Dir, "deliveries.db") }

// Caddyfile returns the configuration of the site.
func (s *Site) Caddyfile() string {
	app := ""
	if s.App {
		store := "store sqlite " + s.StorePath()
		if strings.Contains(s.Options, "store ") {
			store = ""
		}
		app = "tim_delivery {\n" + store + "\n" + s.Options + "\n}"
	}
	return fmt.Sprintf("{\nadmin %s\npersist_config off\nauto_https off\nskip_install_trust\nlog {\nlevel %s\n}\n%s\n%s\n}\n%s\nhttp://%s {\n%s\n}\n%s\n",
		s.Admin, s.Logs, s.Global, app, s.Before, s.Listen, s.Directives, s.After)
}

// Process is a running Caddy.
type Process struct {
	*Site
	Cmd  *exec.Cmd
	Log  *SyncBuffer
	Done chan struct{}
}

// Start starts Caddy, which is stopped at the end of the test.
func (s *Site) Start(tb testing.TB) *Process {
	tb.Helper()
	config := filepath.Join(s.Dir, "Caddyfile")
	if err := os.WriteFile(config, []byte(s.Caddyfile()), 0o600); err != nil {
		tb.Fatal(err)
	}
	p := &Process{Site: s, Log: new(SyncBuffer), Done: make(chan struct{})}
	p.Cmd = Timguard(s.Dir, "run", "--config", config, "--adapter", "caddyfile")
	p.Cmd.Stdout, p.Cmd.Stderr = p.Log, p.Log
	if err := p.Cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	go func() {
		_ = p.Cmd.Wait()
		close(p.Done)
	}()
	tb.Cleanup(func() {
		p.Kill()
		log := p.Log.String()
		for _, crash := range []string{"WARNING: DATA RACE", "\npanic: ", "\nfatal error: ", "[signal SIG"} {
			if i := strings.Index(log, crash); i >= 0 {
				tb.Errorf("the process failed:\n%.8000s", log[i:])
				return
			}
		}
		if tb.Failed() {
			tb.Logf("the log ends with:\n%s", log[max(0, len(log)-4000):])
		}
	})
	Eventually(tb, 30*time.Second, "Caddy runs", func() bool {
		select {
		case <-p.Done:
			tb.Fatalf("Caddy ended:\n%s", p.Log)
		default:
		}
		return strings.Contains(p.Log.String(), "serving initial configuration")
	})
	s.awaitStore(tb)
	return p
}

// awaitStore waits until the store is open and works: Caddy does not, and the first
// callbacks would be forwarded.
func (s *Site) awaitStore(tb testing.TB) {
	if s.Unopened {
		return
	}
	// A connection that is kept may be to the admin server that the reload ends.
	once := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	Eventually(tb, 30*time.Second, "the store is open", func() bool {
		resp, err := once.Get("http://" + s.Admin + "/tim_callback/status")
		if err != nil {
			return true // the test is about something else
		}
		defer func() { _ = resp.Body.Close() }()
		text, err := io.ReadAll(resp.Body)
		return err == nil && !strings.Contains(string(text), `"store_error"`)
	})
}

// Kill ends the process with SIGKILL.
func (p *Process) Kill() {
	_ = p.Cmd.Process.Kill()
	<-p.Done
}

// Terminate ends the process with SIGTERM, and returns how long that took.
func (p *Process) Terminate(t *testing.T) time.Duration {
	t.Helper()
	start := time.Now()
	if err := p.Cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-p.Done:
	case <-time.After(30 * time.Second):
		_ = p.Cmd.Process.Signal(syscall.SIGABRT) // for a dump of the goroutines
		<-p.Done
		t.Fatal("Caddy does not end")
	}
	return time.Since(start)
}

// LogLines returns the lines of the log with the message.
func (p *Process) LogLines(t *testing.T, message string) (lines []map[string]any) {
	t.Helper()
	for text := range strings.Lines(p.Log.String()) {
		var line map[string]any
		if json.Unmarshal([]byte(text), &line) == nil && line["msg"] == message {
			lines = append(lines, line)
		}
	}
	return lines
}

// WantLog waits for a line of the log with the message and the values, which are as JSON
// has them.
func (p *Process) WantLog(t *testing.T, message string, values map[string]any) {
	t.Helper()
	Eventually(t, 20*time.Second, fmt.Sprintf("the log says %q with %v", message, values), func() bool {
		return slices.ContainsFunc(p.LogLines(t, message), func(line map[string]any) bool {
			for name, value := range values {
				if line[name] != value {
					return false
				}
			}
			return true
		})
	})
}

// SyncBuffer is a buffer that is safe for concurrent use.
type SyncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write implements [io.Writer].
func (b *SyncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

// String returns what was written.
func (b *SyncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// Eventually waits until ok returns true.
func Eventually(tb testing.TB, within time.Duration, what string, ok func() bool) {
	tb.Helper()
	for deadline := time.Now().Add(within); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			tb.Fatalf("not within %v: %s", within, what)
		}
	}
}

// Event returns the payload of a recall that is unique to the id, and that would be
// changed by decoding and encoding.
func Event(id string) []byte {
	return fmt.Appendf(nil, `{ "MsgSeqList":[{"MsgSeq":4294967295,"New":1.50}],"Type":"\u0050ublic","GroupId":"a\"<%%> b",`+
		`"CallbackCommand":"Group.CallbackAfterRecallMsg","Operator_Account":"é-%s","EventTime":1670574414123}`+"\r\n", id)
}

// Poster posts callbacks to one site.
type Poster struct {
	Client *http.Client
	Base   string
	Header http.Header // more headers
}

// NewPoster returns a Poster to the address.
func NewPoster(tb testing.TB, listen string) *Poster {
	tb.Helper()
	transport := &http.Transport{MaxIdleConnsPerHost: 256}
	tb.Cleanup(transport.CloseIdleConnections)
	return &Poster{Client: &http.Client{Transport: transport, Timeout: 20 * time.Second}, Base: "http://" + listen}
}

// Post posts a payload that was signed half a window ago, so that a new Sign differs.
func (s *Poster) Post(path, command string, body []byte) (status int, answer string, err error) {
	return s.PostQuery(path, Query(App, command, Signed(Token, time.Now().Add(-30*time.Second))), body)
}

// PostQuery posts a payload with a query.
func (s *Poster) PostQuery(path, rawQuery string, body []byte) (status int, answer string, err error) {
	req, err := http.NewRequest(http.MethodPost, s.Base+path+"?"+rawQuery, bytes.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	req.Host = "127.0.0.1" // whatever the port, as of several nodes behind one name
	req.Header.Set("Content-Type", "application/json")
	maps.Copy(req.Header, s.Header)
	resp, err := s.Client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(data), err
}

// WantOK posts the recall with the id and fails the test unless it is answered OK.
func (s *Poster) WantOK(t *testing.T, id string) {
	t.Helper()
	status, answer, err := s.Post("/callback", callback.RecallCommand, Event(id))
	if failed, ok := errors.AsType[*net.OpError](err); ok && failed.Op == "dial" {
		// When Caddy hands its sockets over at a reload, the kernel may reset a connection that
		// is being opened. The callback was not sent.
		status, answer, err = s.Post("/callback", callback.RecallCommand, Event(id))
	}
	if err != nil || status != http.StatusOK || answer != OKJSON {
		t.Errorf("callback %s: %d %s, %v; want OK", id, status, answer, err)
	}
}

// Get sends a request to the admin API or the site.
func Get(t *testing.T, method, target string) (status int, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, target, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	return AnswerTo(t, req)
}

// AnswerTo sends the request and returns its answer.
func AnswerTo(t *testing.T, req *http.Request) (status int, body string) {
	t.Helper()
	resp, err := http.DefaultClient.Do(req) //nolint:gosec // to the site under test
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(data)
}

// Status is the response of the admin API's status.
type Status struct {
	StoreError string `json:"store_error"`
	Store      string
	Guards     []struct {
		Name  string
		Total struct{ Actions, Refused map[string]int }
	}
	Deliveries map[outbox.State]int
	Unclaimed  []Unclaimed

	OldestAgeSeconds float64 `json:"oldest_delivery_age_seconds"`
}

// Unclaimed is the number of deliveries to a guard, or to its backend or consumer, that is
// not configured.
type Unclaimed struct {
	Guard, Consumer string
	Deliveries      int
}

// Status returns the status of the admin API.
func (s *Site) Status(t *testing.T) (status Status) {
	t.Helper()
	if code, body := Get(t, http.MethodGet, "http://"+s.Admin+"/tim_callback/status"); code != http.StatusOK {
		t.Fatalf("status: %d %s", code, body)
	} else if err := json.Unmarshal([]byte(body), &status); err != nil {
		t.Fatal(err)
	}
	return status
}

// WantState waits until n deliveries are in the state.
func (s *Site) WantState(t *testing.T, state outbox.State, n int) {
	t.Helper()
	Eventually(t, 20*time.Second, fmt.Sprintf("%d %s", n, state), func() bool { return s.Status(t).Deliveries[state] == n })
}

// Items lists all deliveries with the admin API, newest first.
func (s *Site) Items(t *testing.T) (items []outbox.Delivery) {
	t.Helper()
	if code, body := Get(t, http.MethodGet, "http://"+s.Admin+"/tim_callback/deliveries"); code != http.StatusOK {
		t.Fatalf("deliveries: %d %s", code, body)
	} else if err := json.Unmarshal([]byte(body), &items); err != nil {
		t.Fatal(err)
	}
	return items
}

// WantError waits until an attempt of the newest delivery has failed with an error that
// contains the text, and returns the delivery.
func (s *Site) WantError(t *testing.T, text string) (item outbox.Delivery) {
	t.Helper()
	Eventually(t, 20*time.Second, "an attempt that failed with "+text, func() bool {
		items := s.Items(t)
		if len(items) == 0 {
			return false
		}
		item = items[0]
		return slices.ContainsFunc(item.Failures, func(f outbox.Failure) bool { return strings.Contains(f.Error, text) })
	})
	return item
}

// OpenStore opens the SQLite file while the guard is running.
func (s *Site) OpenStore(t *testing.T) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Opaque: s.StorePath(), RawQuery: "_pragma=busy_timeout(5000)"}).String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// Metric returns the value of the sample, which is a name with labels as in the
// exposition format, or 0 if there is none.
func (s *Site) Metric(t *testing.T, sample string) (value float64) {
	t.Helper()
	code, text := Get(t, http.MethodGet, "http://"+s.Admin+"/metrics")
	if code != http.StatusOK {
		t.Fatalf("metrics: %d %s", code, text)
	}
	for line := range strings.Lines(text) {
		if number, found := strings.CutPrefix(line, sample+" "); found {
			value, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
			if err != nil {
				t.Fatal(err)
			}
			return value
		}
	}
	return 0
}

// CLI runs `timguard tim-callback deliveries` against the site, and returns what it prints
// besides the address that it asks.
func (s *Site) CLI(t *testing.T, fails bool, arguments ...string) string {
	t.Helper()
	arguments = append([]string{"tim-callback", "deliveries"}, arguments...)
	output, err := Timguard(s.Dir, append(arguments, "--address", s.Admin)...).CombinedOutput()
	if (err != nil) != fails {
		t.Errorf("%v: %v\n%s", arguments, err, output)
	}
	return strings.TrimPrefix(string(output), "asking "+s.Admin+"\n")
}

// Reload loads the current site into the running Caddy.
func (s *Site) Reload(t *testing.T) {
	t.Helper()
	if status, text := s.Load(t); status != http.StatusOK {
		t.Fatalf("reload: %d %s", status, text)
	}
	s.awaitStore(t)
}

// Load tries to load the current site into the running Caddy.
func (s *Site) Load(t *testing.T) (status int, text string) {
	t.Helper()
	resp, err := http.Post("http://"+s.Admin+"/load", "text/caddyfile", strings.NewReader(s.Caddyfile()))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(data)
}
