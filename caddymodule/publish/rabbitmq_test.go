// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package publish_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rabbitmq/amqp091-go"

	"github.com/timguard/timguard/caddymodule/internal/guardtest"
)

const (
	// rabbitFolder has RabbitMQ's own scripts, which do not care who runs them.
	rabbitFolder = "/usr/lib/rabbitmq/bin/"

	// requireRabbit is the environment variable by which tests fail without RabbitMQ
	// instead of skipping.
	requireRabbit = "TIMGUARD_REQUIRE_RABBITMQ"

	// maxRabbitMessage is the size of the largest message that nodes take.
	maxRabbitMessage = 256 << 10
)

// rabbit is a node of RabbitMQ. Its user guest may do everything, its user reader may not
// write.
type rabbit struct {
	dir     string
	address string // for AMQP
	secure  string // for AMQP with TLS
	ca      string // file of the certificate
	epmd    string // port of Erlang's daemon
	dist    string // port for rabbitmqctl
	process *exec.Cmd
	done    chan struct{}
	log     *guardtest.SyncBuffer
	queues  atomic.Int64
}

// newRabbit starts a node.
func newRabbit(tb testing.TB, dir string) *rabbit {
	tb.Helper()
	if _, err := os.Stat(rabbitFolder + "rabbitmq-server"); err != nil {
		if os.Getenv(requireRabbit) != "" {
			tb.Fatal("RabbitMQ is not installed, and " + requireRabbit + " is set")
		}
		tb.Skip("RabbitMQ is not installed")
	}
	r := &rabbit{
		dir: dir, ca: filepath.Join(dir, "ca.pem"), address: guardtest.FreePort(tb), secure: guardtest.FreePort(tb),
		epmd: portOf(guardtest.FreePort(tb)), dist: portOf(guardtest.FreePort(tb)),
	}
	r.configure(tb)
	r.start(tb)
	return r
}

func portOf(address string) string {
	_, port, _ := net.SplitHostPort(address)
	return port
}

// ownRabbit starts a node for the test, which may kill it.
func ownRabbit(t *testing.T) *rabbit {
	t.Helper()
	r := newRabbit(t, t.TempDir())
	t.Cleanup(r.stop)
	return r
}

var sharedRabbit struct {
	sync.Mutex
	node *rabbit
}

// aRabbit returns the node that tests share.
func aRabbit(tb testing.TB) *rabbit {
	tb.Helper()
	sharedRabbit.Lock()
	defer sharedRabbit.Unlock()
	if sharedRabbit.node == nil {
		dir, err := os.MkdirTemp("", "rabbitmq") //nolint:usetesting // it outlives the test
		if err != nil {
			tb.Fatal(err)
		}
		sharedRabbit.node = newRabbit(tb, dir)
	}
	return sharedRabbit.node
}

func (r *rabbit) configure(tb testing.TB) {
	tb.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(writeCertificate(tb, r.ca).PrivateKey)
	if err != nil {
		tb.Fatal(err)
	}
	for name, text := range map[string]string{
		"key.pem": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})),
		"definitions.json": `{"vhosts":[{"name":"/"}],
"users":[{"name":"guest","password":"guest-secret","tags":""},{"name":"reader","password":"reader-secret","tags":""}],
"permissions":[{"user":"guest","vhost":"/","configure":".*","write":".*","read":".*"},{"user":"reader","vhost":"/","configure":"","write":"","read":".*"}]}`,
		"rabbitmq.conf": fmt.Sprintf(`listeners.tcp.1 = %s
listeners.ssl.1 = %s
ssl_options.certfile = %s
ssl_options.keyfile = %s
max_message_size = %d
load_definitions = %s
`, r.address, r.secure, r.ca, filepath.Join(r.dir, "key.pem"), maxRabbitMessage, filepath.Join(r.dir, "definitions.json")),
	} {
		if err := os.WriteFile(filepath.Join(r.dir, name), []byte(text), 0o600); err != nil {
			tb.Fatal(err)
		}
	}
}

// writeCertificate writes a certificate for 127.0.0.1, which is its own authority, and
// returns it with its key.
func writeCertificate(tb testing.TB, file string) tls.Certificate {
	tb.Helper()
	s := httptest.NewTLSServer(nil)
	defer s.Close()
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		tb.Fatal(err)
	}
	return s.TLS.Certificates[0]
}

// environment keeps everything of the node in its folder, and apart from a node that the
// machine may have.
func (r *rabbit) environment() []string {
	port := portOf(r.address)
	in := func(name string) string { return filepath.Join(r.dir, name) }
	return append(os.Environ(), "HOME="+r.dir, "ERL_EPMD_PORT="+r.epmd, "ERL_EPMD_ADDRESS=127.0.0.1",
		"RABBITMQ_NODENAME=timguard"+port+"@localhost", "RABBITMQ_NODE_PORT="+port, "RABBITMQ_DIST_PORT="+r.dist,
		"RABBITMQ_MNESIA_BASE="+in("mnesia"), "RABBITMQ_LOG_BASE="+in("log"), "RABBITMQ_LOGS=-", "RABBITMQ_CONFIG_FILE="+in("rabbitmq.conf"),
		"RABBITMQ_ENABLED_PLUGINS_FILE="+in("plugins"), "RABBITMQ_PID_FILE="+in("pid"),
		// Idle schedulers of Erlang are busy otherwise.
		"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none")
}

// start starts the node, again after it was killed.
func (r *rabbit) start(tb testing.TB) {
	tb.Helper()
	begin := time.Now()
	r.launch(tb)
	guardtest.Eventually(tb, 90*time.Second, "RabbitMQ runs", func() bool {
		select {
		case <-r.done:
			tb.Fatalf("RabbitMQ ended:\n%s", r.log)
		default:
		}
		return strings.Contains(r.log.String(), "Server startup complete")
	})
	tb.Logf("RabbitMQ took %s to start", time.Since(begin).Round(time.Millisecond))
}

func (r *rabbit) launch(tb testing.TB) {
	tb.Helper()
	r.log, r.done = new(guardtest.SyncBuffer), make(chan struct{})
	r.process = exec.Command(rabbitFolder + "rabbitmq-server")
	r.process.Env, r.process.Stdout, r.process.Stderr = r.environment(), r.log, r.log
	r.process.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	r.process.WaitDelay = time.Second // others may have its output
	if err := r.process.Start(); err != nil {
		tb.Fatal(err)
	}
	go func(process *exec.Cmd, done chan struct{}) {
		_ = process.Wait()
		close(done)
	}(r.process, r.done)
}

// signal sends a signal to all processes of the node.
func (r *rabbit) signal(s syscall.Signal) { _ = syscall.Kill(-r.process.Process.Pid, s) }

// kill ends the node with SIGKILL.
func (r *rabbit) kill(testing.TB) {
	r.signal(syscall.SIGKILL)
	<-r.done
}

// stop ends the node, and the daemon that it has started.
func (r *rabbit) stop() {
	r.kill(nil)
	for range 50 {
		cmd := exec.Command("epmd", "-kill")
		cmd.Env = r.environment()
		if out, _ := cmd.CombinedOutput(); !bytes.Contains(out, []byte("living nodes")) {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	_ = os.RemoveAll(r.dir)
}

// ctl runs rabbitmqctl.
func (r *rabbit) ctl(t *testing.T, arguments ...string) {
	t.Helper()
	cmd := exec.Command(rabbitFolder+"rabbitmqctl", arguments...)
	cmd.Env = r.environment()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("rabbitmqctl %v: %v\n%s", arguments, err, out)
	}
}

// url returns the URL of the node for the user guest.
func (r *rabbit) url() string { return "amqp://guest:guest-secret@" + r.address }

// channel returns a channel of a connection of its own.
func (r *rabbit) channel(tb testing.TB) *amqp091.Channel {
	tb.Helper()
	conn, err := amqp091.Dial(r.url())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = conn.Close() })
	ch, err := conn.Channel()
	if err != nil {
		tb.Fatal(err)
	}
	return ch
}

// keep makes what was declared survive a kill. RabbitMQ writes it to disk some time after it
// has answered.
func (r *rabbit) keep(t *testing.T) {
	t.Helper()
	r.ctl(t, "eval", "mnesia:dump_log().")
}

// queue declares a durable queue, and returns its name.
func (r *rabbit) queue(tb testing.TB, args amqp091.Table) string {
	tb.Helper()
	name := fmt.Sprint("queue-", r.queues.Add(1))
	if _, err := r.channel(tb).QueueDeclare(name, true, false, false, false, args); err != nil {
		tb.Fatal(err)
	}
	return name
}

// exchange declares a durable topic exchange to which a queue is bound by the key.
func (r *rabbit) exchange(tb testing.TB, key string) (exchange, queue string) {
	tb.Helper()
	queue = r.queue(tb, nil)
	exchange = "exchange-of-" + queue
	ch := r.channel(tb)
	if err := ch.ExchangeDeclare(exchange, "topic", true, false, false, false, nil); err != nil {
		tb.Fatal(err)
	}
	if err := ch.QueueBind(queue, key, exchange, false, nil); err != nil {
		tb.Fatal(err)
	}
	return exchange, queue
}

// take removes all messages from the queue, and returns them.
func (r *rabbit) take(tb testing.TB, queue string) (messages []amqp091.Delivery) {
	tb.Helper()
	ch := r.channel(tb)
	q, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
	if err != nil {
		tb.Fatal(err)
	}
	if q.Messages == 0 {
		return nil
	}
	deliveries, err := ch.Consume(queue, "", true, false, false, false, nil)
	if err != nil {
		tb.Fatal(err)
	}
	for d := range deliveries {
		if messages = append(messages, d); len(messages) == q.Messages {
			break
		}
	}
	_ = ch.Close()
	return messages
}
