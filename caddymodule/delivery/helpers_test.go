// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	"github.com/timguard/timguard/caddymodule/callback"
	"github.com/timguard/timguard/caddymodule/internal/guardtest"
	"github.com/timguard/timguard/caddymodule/outbox"
)

// longDeliveries runs the tests of deliveries in their long form:
//
//	go test -run EndToEndDelivery ./caddymodule/delivery -timguard.long
var longDeliveries = flag.Bool("timguard.long", false, "kill and reload many times in the tests of deliveries")

// inLongForm returns the number of repetitions in the long or the short form.
func inLongForm(short, long int) int {
	if *longDeliveries {
		return long
	}
	return short
}

// caddyArguments is the environment variable that makes the test binary run as
// timguard. It contains the arguments, one per line.
const caddyArguments = "TIMGUARD_TEST_ARGUMENTS"

// TestCaddyProcess is not a test: it runs timguard in a process that a test started.
func TestCaddyProcess(*testing.T) {
	if arguments := os.Getenv(caddyArguments); arguments != "" {
		os.Args = append(os.Args[:1], strings.Split(arguments, "\n")...)
		caddycmd.Main()
		os.Exit(0)
	}
}

// timguard returns the command that runs timguard with the arguments.
func timguard(dir string, arguments ...string) *exec.Cmd {
	cmd := exec.Command(guardtest.Itself(), "-test.run=^TestCaddyProcess$")
	cmd.Env = append(os.Environ(), caddyArguments+"="+strings.Join(arguments, "\n"),
		"HOME="+dir, "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
	return cmd
}

// deliverySite is a site that stores callbacks. Its Caddy can be restarted.
type deliverySite struct {
	dir     string // of its files
	listen  string // address of the site
	admin   string // address of the admin API
	logs    string // the least level that is logged
	global  string // more global options
	app     bool   // tim_delivery is configured
	options string // more options of it
	body    string // the site's directives
}

// newDeliverySite returns a site with free addresses.
func newDeliverySite(tb testing.TB, body string) *deliverySite {
	tb.Helper()
	return &deliverySite{
		dir: tb.TempDir(), listen: guardtest.FreePort(tb), admin: guardtest.FreePort(tb), body: body,
		logs: "INFO", global: "grace_period 5s", app: true,
	}
}

// store returns the path of the SQLite file.
func (s *deliverySite) store() string { return filepath.Join(s.dir, "deliveries.db") }

func (s *deliverySite) caddyfile() string {
	app := ""
	if s.app {
		store := "store sqlite " + s.store()
		if strings.Contains(s.options, "store ") {
			store = ""
		}
		app = "tim_delivery {\n" + store + "\n" + s.options + "\n}"
	}
	return fmt.Sprintf("{\nadmin %s\npersist_config off\nauto_https off\nskip_install_trust\nlog {\nlevel %s\n}\n%s\n%s\n}\nhttp://%s {\n%s\n}\n",
		s.admin, s.logs, s.global, app, s.listen, s.body)
}

// guardProcess is a running Caddy.
type guardProcess struct {
	*deliverySite
	cmd  *exec.Cmd
	log  *syncBuffer
	done chan struct{}
}

// start starts Caddy, which is stopped at the end of the test.
func (s *deliverySite) start(tb testing.TB) *guardProcess {
	tb.Helper()
	config := filepath.Join(s.dir, "Caddyfile")
	if err := os.WriteFile(config, []byte(s.caddyfile()), 0o600); err != nil {
		tb.Fatal(err)
	}
	p := &guardProcess{deliverySite: s, log: new(syncBuffer), done: make(chan struct{})}
	p.cmd = timguard(s.dir, "run", "--config", config, "--adapter", "caddyfile")
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	if err := p.cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.done)
	}()
	tb.Cleanup(func() {
		p.kill()
		log := p.log.String()
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
	eventually(tb, 30*time.Second, "Caddy runs", func() bool {
		select {
		case <-p.done:
			tb.Fatalf("Caddy ended:\n%s", p.log)
		default:
		}
		return strings.Contains(p.log.String(), "serving initial configuration")
	})
	return p
}

// kill ends the process with SIGKILL.
func (p *guardProcess) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// terminate ends the process with SIGTERM, and returns how long that took.
func (p *guardProcess) terminate(t *testing.T) time.Duration {
	t.Helper()
	start := time.Now()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-p.done:
	case <-time.After(30 * time.Second):
		t.Fatal("Caddy does not end")
	}
	return time.Since(start)
}

// syncBuffer is a buffer that is safe for concurrent use.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// eventually waits until ok returns true.
func eventually(tb testing.TB, within time.Duration, what string, ok func() bool) {
	tb.Helper()
	for deadline := time.Now().Add(within); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			tb.Fatalf("not within %v: %s", within, what)
		}
	}
}

// event returns the payload of a recall that is unique to the id, and that would be
// changed by decoding and encoding.
func event(id string) []byte {
	return fmt.Appendf(nil, `{ "MsgSeqList":[{"MsgSeq":4294967295,"New":1.50}],"Type":"\u0050ublic","GroupId":"a\"<%%> b",`+
		`"CallbackCommand":"Group.CallbackAfterRecallMsg","Operator_Account":"é-%s","EventTime":1670574414123}`+"\r\n", id)
}

// poster posts callbacks to one site.
type poster struct {
	client *http.Client
	base   string
}

func newPoster(tb testing.TB, listen string) *poster {
	tb.Helper()
	transport := &http.Transport{MaxIdleConnsPerHost: 256}
	tb.Cleanup(transport.CloseIdleConnections)
	return &poster{&http.Client{Transport: transport, Timeout: 20 * time.Second}, "http://" + listen}
}

// post posts a payload that was signed half a window ago, so that a new Sign differs.
func (s *poster) post(path, command string, body []byte) (status int, answer string, err error) {
	return s.postQuery(path, guardtest.Query(guardtest.App, command, guardtest.Signed(guardtest.Token, time.Now().Add(-30*time.Second))), body)
}

func (s *poster) postQuery(path, rawQuery string, body []byte) (status int, answer string, err error) {
	req, err := http.NewRequest(http.MethodPost, s.base+path+"?"+rawQuery, bytes.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	req.Host = "127.0.0.1" // whatever the port, as of several nodes behind one name
	req.Header.Set("Content-Type", "application/json")
	resp, err := s.client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(data), err
}

// wantOK posts the recall with the id and fails the test unless it is answered OK.
func (s *poster) wantOK(t *testing.T, id string) {
	t.Helper()
	if status, answer, err := s.post("/callback", callback.RecallCommand, event(id)); err != nil || status != http.StatusOK || answer != guardtest.OKJSON {
		t.Errorf("callback %s: %d %s, %v; want OK", id, status, answer, err)
	}
}

// get sends a request to the admin API or the site.
func get(t *testing.T, method, target string) (status int, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, target, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	return answerTo(t, req)
}

// answerTo sends the request and returns its answer.
func answerTo(t *testing.T, req *http.Request) (status int, body string) {
	t.Helper()
	resp, err := http.DefaultClient.Do(req)
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

// status returns the status of the admin API.
func (s *deliverySite) status(t *testing.T) (status status) {
	t.Helper()
	if code, body := get(t, http.MethodGet, "http://"+s.admin+"/tim_callback/status"); code != http.StatusOK {
		t.Fatalf("status: %d %s", code, body)
	} else if err := json.Unmarshal([]byte(body), &status); err != nil {
		t.Fatal(err)
	}
	return status
}

// wantState waits until n deliveries are in the state.
func (s *deliverySite) wantState(t *testing.T, state outbox.State, n int) {
	t.Helper()
	eventually(t, 20*time.Second, fmt.Sprintf("%d %s", n, state), func() bool { return s.status(t).Deliveries[state] == n })
}

// items lists all deliveries with the admin API, newest first.
func (s *deliverySite) items(t *testing.T) (items []outbox.Delivery) {
	t.Helper()
	if code, body := get(t, http.MethodGet, "http://"+s.admin+"/tim_callback/deliveries"); code != http.StatusOK {
		t.Fatalf("deliveries: %d %s", code, body)
	} else if err := json.Unmarshal([]byte(body), &items); err != nil {
		t.Fatal(err)
	}
	return items
}

// wantError waits until an attempt of the newest delivery has failed with an error that
// contains the text, and returns the delivery.
func (s *deliverySite) wantError(t *testing.T, text string) (item outbox.Delivery) {
	t.Helper()
	eventually(t, 20*time.Second, "an attempt that failed with "+text, func() bool {
		items := s.items(t)
		if len(items) == 0 {
			return false
		}
		item = items[0]
		return slices.ContainsFunc(item.Failures, func(f outbox.Failure) bool { return strings.Contains(f.Error, text) })
	})
	return item
}

// stored opens the SQLite file while the guard is running.
func (s *deliverySite) stored(t *testing.T) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Opaque: s.store(), RawQuery: "_pragma=busy_timeout(5000)"}).String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// attempt is a request that the backend received.
type attempt struct {
	*http.Request
	Body []byte
	at   time.Time
}

// unsteady is a backend whose behavior can be changed, and that records what it
// accepted.
type unsteady struct {
	*httptest.Server
	do      atomic.Pointer[http.HandlerFunc]
	tries   atomic.Int64
	closing chan struct{}

	mu       sync.Mutex
	accepted map[string][]attempt // by body
}

func newUnsteady(tb testing.TB, do func(b *unsteady) http.HandlerFunc) *unsteady {
	tb.Helper()
	b := &unsteady{accepted: make(map[string][]attempt), closing: make(chan struct{})}
	b.will(do)
	b.Server = httptest.NewServer(b)
	tb.Cleanup(func() {
		close(b.closing)
		b.CloseClientConnections()
		b.Close()
	})
	return b
}

// will changes the behavior of the backend.
func (b *unsteady) will(do func(b *unsteady) http.HandlerFunc) {
	handler := do(b)
	b.do.Store(&handler)
}

func (b *unsteady) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b.tries.Add(1)
	(*b.do.Load())(w, r)
}

func (b *unsteady) address() string { return b.Listener.Addr().String() }

// accepts records the callback and answers OK.
func accepts(b *unsteady) http.HandlerFunc { return acceptsWith(http.StatusOK, guardtest.OKJSON)(b) }

func acceptsWith(status int, answer string) func(b *unsteady) http.HandlerFunc {
	return func(b *unsteady) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				return
			}
			b.mu.Lock()
			b.accepted[string(body)] = append(b.accepted[string(body)], attempt{
				r, body, time.Now(),
			})
			b.mu.Unlock()
			w.WriteHeader(status)
			_, _ = io.WriteString(w, answer)
		}
	}
}

// answers returns a behavior that responds with the status and body.
func answers(status int, answer string) func(b *unsteady) http.HandlerFunc {
	return func(*unsteady) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			w.WriteHeader(status)
			_, _ = io.WriteString(w, answer)
		}
	}
}

// hangs never answers.
func hangs(b *unsteady) http.HandlerFunc {
	return func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		select {
		case <-r.Context().Done():
		case <-b.closing:
		}
	}
}

const failJSON = `{"ActionStatus":"FAIL","ErrorInfo":"restarting","ErrorCode":1}`

// refuses fails in three ways in turn.
func refuses(b *unsteady) http.HandlerFunc {
	ways := []http.HandlerFunc{answers(http.StatusBadGateway, "")(b), hangs(b), answers(http.StatusOK, failJSON)(b)}
	return func(w http.ResponseWriter, r *http.Request) { ways[b.tries.Load()%3](w, r) }
}

// accepts returns how often the payload was accepted.
func (b *unsteady) times(body []byte) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.accepted[string(body)])
}

// forwarded reports whether the callback was forwarded immediately, because the store
// took too long, which happens on a busy machine. It may have been stored as well.
func (b *unsteady) forwarded(body []byte) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.ContainsFunc(b.accepted[string(body)], attempt.atOnce)
}

func (a attempt) atOnce() bool { return a.Header.Get("Tim-Delivery-Attempt") == "" }

// wantAll waits until all recalls are accepted, and fails the test unless each was
// either delivered as it was sent, or forwarded immediately.
func (b *unsteady) wantAll(t *testing.T, within time.Duration, ids []string) {
	t.Helper()
	eventually(t, within, fmt.Sprintf("all of %d arrive", len(ids)), func() bool {
		missing := slices.IndexFunc(ids, func(id string) bool { return b.times(event(id)) == 0 })
		return missing < 0
	})
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, id := range ids {
		for _, a := range b.accepted[string(event(id))] {
			if a.atOnce() {
				continue
			}
			if err := a.isDelivery("/callback", guardtest.Token); err != nil {
				t.Fatalf("callback %s: %v", id, err)
			}
		}
	}
}

// isDelivery returns an error unless the attempt is a delivery of a recall, with a new
// Sign by the token and without the old one.
func (a attempt) isDelivery(path, token string) error {
	if n, err := strconv.Atoi(a.Header.Get("Tim-Delivery-Attempt")); err != nil || n < 1 {
		return fmt.Errorf("%s is %q, want a number", "Tim-Delivery-Attempt", a.Header.Get("Tim-Delivery-Attempt"))
	}
	auth, found := strings.CutPrefix(a.RequestURI, path+"?"+guardtest.Query(guardtest.App, callback.RecallCommand, "")+"&")
	values, err := url.ParseQuery(auth)
	if !found || err != nil || len(values) != 2 || len(values["Sign"]) != 1 || len(values["RequestTime"]) != 1 {
		return fmt.Errorf("URI %s, want the original without its Sign and then a fresh one", a.RequestURI)
	}
	requestTime := values.Get("RequestTime")
	if seconds, _ := strconv.ParseInt(requestTime, 10, 64); a.at.Unix()-seconds > 10 || a.at.Unix() < seconds {
		return fmt.Errorf("RequestTime %s of a delivery at %d is not fresh", requestTime, a.at.Unix())
	}
	if values.Get("Sign") != callback.Sign(token, requestTime) {
		return fmt.Errorf("the Sign of %s is wrong", a.RequestURI)
	}
	if a.ContentLength != int64(len(a.Body)) || a.Header.Get("Content-Type") != "application/json" {
		return fmt.Errorf("Content-Length %d, Content-Type %q", a.ContentLength, a.Header.Get("Content-Type"))
	}
	return nil
}

// one waits for the payload and returns the accepted request.
func (b *unsteady) one(t *testing.T, body []byte) attempt {
	t.Helper()
	eventually(t, 20*time.Second, "the callback arrives", func() bool { return b.times(body) > 0 })
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.accepted[string(body)][0]
}

// delivering returns the directives of a site that stores recalls for the backend.
func delivering(b *unsteady, subdirectives ...string) string {
	return guardtest.Guard(append([]string{"on after deliver", "on before forward"}, subdirectives...)...) + "\nreverse_proxy " + b.address()
}

var testSchemas atomic.Int64

// postgresDSN returns a DSN with a new schema. If an address is given, it replaces that
// of the server.
func postgresDSN(tb testing.TB, through string) string {
	tb.Helper()
	dsn, _ := postgresSchema(tb, through)
	return dsn
}

func postgresSchema(tb testing.TB, through string) (address, schema string) {
	tb.Helper()
	dsn, err := url.Parse(testPostgres(tb))
	if err != nil {
		tb.Fatal("TIMGUARD_TEST_POSTGRES is not a URL")
	}
	schema = fmt.Sprintf("caddymodule_%d_%d", os.Getpid(), testSchemas.Add(1))
	execPostgres(tb, "CREATE SCHEMA "+schema)
	tb.Cleanup(func() { execPostgres(tb, "DROP SCHEMA "+schema+" CASCADE") })
	values := dsn.Query()
	values.Set("search_path", schema)
	dsn.RawQuery = values.Encode()
	if through != "" {
		dsn.Host = through
	}
	return dsn.String(), schema
}

func testPostgres(tb testing.TB) string {
	tb.Helper()
	dsn := os.Getenv("TIMGUARD_TEST_POSTGRES")
	if dsn == "" {
		tb.Skip("TIMGUARD_TEST_POSTGRES is not set")
	}
	return dsn
}

func execPostgres(tb testing.TB, statement string) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, testPostgres(tb))
	if err != nil {
		tb.Fatal(err)
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, statement); err != nil {
		tb.Fatal(err)
	}
}

// metric returns the value of the sample, which is a name with labels as in the
// exposition format, or 0 if there is none.
func (s *deliverySite) metric(t *testing.T, sample string) (value float64) {
	t.Helper()
	code, text := get(t, http.MethodGet, "http://"+s.admin+"/metrics")
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
