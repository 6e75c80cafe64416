// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

// Command cost compares what servers need for a callback: CPU time, and memory. Each
// contestant is a binary of Caddy with a Caddyfile, in a process of its own:
//
//	go run ./.ci/cost proxy=./caddy=.ci/cost/proxy.Caddyfile guard=./timguard=.ci/cost/guard.Caddyfile
//
// The Caddyfiles listen on the port {$COST_PORT}, have the backend {$COST_BACKEND} and the
// Kafka {$COST_KAFKA} with the topic callbacks, and may write to the folder {$COST_DIR}. If
// the environment has the URL COST_AMQP of a RabbitMQ, it gets a queue callbacks. The contestants take turns in random order, so that what
// else the machine does affects them alike, and are compared with the first one by the
// median of the rounds' ratios.
package main

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
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
	"time"

	"github.com/rabbitmq/amqp091-go"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/timguard/timguard/caddymodule/callback"
)

var (
	rounds      = flag.Int("rounds", 15, "rounds, in each of which every contestant has one turn")
	requests    = flag.Int("requests", 1500, "requests of a turn")
	connections = flag.Int("connections", 4, "concurrent connections")
	payload     = flag.String("payload", "recall", "recall (230 bytes), message (926 bytes), or a number of bytes")
	settle      = flag.Duration("settle", 0, "how long the CPU time of a turn is counted after its last answer, such as for deliveries")
	asTable     = flag.Bool("table", false, "print a table in Markdown")
)

const token = "cost-token"

func main() {
	flag.Parse()
	if err := run(flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "cost:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 2 {
		return errors.New("want at least two contestants, as name=binary=Caddyfile")
	}
	backend := httptest.NewServer(http.HandlerFunc(answer))
	defer backend.Close()
	closeBrokers, err := startBrokers()
	if err != nil {
		return err
	}
	defer closeBrokers()
	var all []*contestant
	for _, arg := range args {
		c, err := start(arg, backend.Listener.Addr().String())
		if err != nil {
			return fmt.Errorf("%s: %w", arg, err)
		}
		defer c.stop()
		all = append(all, c)
	}
	for range 2 { // the first requests make what is made once
		for _, c := range all {
			if _, err := c.turn(); err != nil {
				return err
			}
		}
	}
	for _, c := range all {
		c.rest = c.memory()
	}
	for range *rounds {
		for _, i := range rand.Perm(len(all)) {
			c := all[i]
			cpu, err := c.turn()
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			c.cpu = append(c.cpu, cpu)
		}
	}
	report(all)
	return nil
}

// startBrokers starts a Kafka that acknowledges at once, and prepares the RabbitMQ.
func startBrokers() (closeAll func(), err error) {
	kafka, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(4, "callbacks"), kfake.BlackholeProduce())
	if err != nil {
		return nil, err
	}
	if err := os.Setenv("COST_KAFKA", kafka.ListenAddrs()[0]); err != nil {
		return nil, err
	}
	if url := os.Getenv("COST_AMQP"); url != "" {
		conn, err := amqp091.Dial(url)
		if err != nil {
			return nil, err
		}
		defer func() { _ = conn.Close() }()
		channel, err := conn.Channel()
		if err != nil {
			return nil, err
		}
		// It keeps the last ones alone.
		if _, err := channel.QueueDeclare("callbacks", true, false, false, false, amqp091.Table{"x-max-length": 1000}); err != nil {
			return nil, err
		}
	}
	return kafka.Close, nil
}

// answer is the backend.
func answer(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, `{"ActionStatus":"OK","ErrorInfo":"","ErrorCode":0}`)
}

// contestant is a running server.
type contestant struct {
	name    string
	process *exec.Cmd
	address string
	dir     string
	clients []client
	cpu     []time.Duration // per request, of each turn
	rest    int             // resident memory before the load, in kB
	peak    int             // and at the most
}

func start(arg, backend string) (*contestant, error) {
	name, rest, _ := strings.Cut(arg, "=")
	binary, config, ok := strings.Cut(rest, "=")
	if !ok {
		return nil, errors.New("want name=binary=Caddyfile")
	}
	dir, err := os.MkdirTemp("", "cost")
	if err != nil {
		return nil, err
	}
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	_, port, _ := net.SplitHostPort(address)
	c := &contestant{name: name, address: address, dir: dir}
	c.process = exec.Command(binary, "run", "--adapter", "caddyfile", "--config", config) //nolint:gosec // the binary is the argument
	c.process.Env = append(os.Environ(), "COST_PORT="+port, "COST_BACKEND="+backend, "COST_DIR="+dir, "COST_TOKEN="+token, "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	c.process.Stdout, c.process.Stderr = log, log
	if err := c.process.Start(); err != nil {
		return nil, err
	}
	return c, c.connect()
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// connect opens the connections, as soon as the server listens.
func (c *contestant) connect() error {
	for deadline := time.Now().Add(20 * time.Second); len(c.clients) < *connections; {
		conn, err := net.Dial("tcp", c.address)
		switch {
		case err == nil:
			c.clients = append(c.clients, client{conn, bufio.NewReader(conn)})
		case time.Now().After(deadline):
			log, _ := os.ReadFile(filepath.Join(c.dir, "log"))
			return fmt.Errorf("%w; its log:\n%s", err, log)
		default:
			time.Sleep(50 * time.Millisecond)
		}
	}
	return nil
}

func (c *contestant) stop() {
	_ = c.process.Process.Kill()
	_ = c.process.Wait()
	_ = os.RemoveAll(c.dir)
}

// turn sends requests, and returns the CPU time of each.
func (c *contestant) turn() (time.Duration, error) {
	before := c.cpuTime()
	var senders sync.WaitGroup
	failed := make(chan error, len(c.clients))
	for _, cl := range c.clients {
		senders.Go(func() {
			for range *requests / len(c.clients) {
				if err := cl.send(); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	senders.Wait()
	c.peak = max(c.peak, c.memory())
	time.Sleep(*settle)
	select {
	case err := <-failed:
		return 0, err
	default:
		return (c.cpuTime() - before) / time.Duration(*requests), nil
	}
}

// cpuTime returns what all threads of the process have needed.
func (c *contestant) cpuTime() (total time.Duration) {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", c.process.Process.Pid))
	for _, task := range tasks {
		text, _ := os.ReadFile(task) //nolint:gosec // of a process of ours
		on, _, _ := strings.Cut(string(text), " ")
		ns, _ := strconv.ParseInt(on, 10, 64)
		total += time.Duration(ns)
	}
	return total
}

// memory returns the resident memory in kB.
func (c *contestant) memory() int {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.process.Process.Pid))
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kB, _ := strconv.Atoi(strings.Fields(value)[0])
			return kB
		}
	}
	return 0
}

// client is a connection to a contestant.
type client struct {
	net.Conn
	in *bufio.Reader
}

// events makes every request another event.
var events struct {
	sync.Mutex
	at int64
}

func (c client) send() error {
	if _, err := c.Write(request()); err != nil {
		return err
	}
	resp, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err == nil && (resp.StatusCode != http.StatusOK || !bytes.Contains(text, []byte(`"ActionStatus":"OK"`))) {
		err = fmt.Errorf("answer %s %s", resp.Status, text)
	}
	return err
}

func request() []byte {
	events.Lock()
	events.at++
	at := time.UnixMilli(1_700_000_000_000 + events.at)
	events.Unlock()
	command, body := callbackAt(at)
	now := strconv.FormatInt(time.Now().Unix(), 10)
	q := url.Values{
		"SdkAppid": {"1400000000"}, "CallbackCommand": {command}, "contenttype": {"json"}, "ClientIP": {"127.0.0.1"}, "OptPlatform": {"RESTAPI"},
		"RequestTime": {now}, "Sign": {callback.Sign(token, now)},
	}
	return fmt.Appendf(nil, "POST /callback?%s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", q.Encode(), len(body), body)
}

// callbackAt returns a callback of the size of -payload.
func callbackAt(at time.Time) (command string, body []byte) {
	size := map[string]int{"recall": 230, "message": 926}[*payload]
	if size == 0 {
		size, _ = strconv.Atoi(*payload)
	}
	command = callback.RecallCommand
	if size > 300 {
		command = "Group.CallbackAfterSendMsg"
	}
	body = callback.SampleAt(command, at)
	if missing := size - len(body); missing > 0 {
		const text = `"Text":"`
		body = bytes.Replace(body, []byte(text), []byte(text+strings.Repeat("x", missing)), 1)
	}
	return command, body
}

// report prints the medians.
func report(all []*contestant) {
	row := "%-28s %10s %8s %18s %10s %10s\n"
	if *asTable {
		row = "| %s | %s | %s | %s | %s | %s |\n"
	}
	fmt.Printf(row, "contestant", "CPU", "ratio", "rounds from to", "RSS rest", "RSS load")
	if *asTable {
		fmt.Println("|---|--:|--:|--:|--:|--:|")
	}
	for _, c := range all {
		ratios := make([]float64, len(c.cpu))
		for i := range c.cpu {
			ratios[i] = float64(c.cpu[i]) / float64(all[0].cpu[i])
		}
		slices.Sort(ratios)
		cpu := slices.Sorted(slices.Values(c.cpu))
		fmt.Printf(row, c.name, fmt.Sprintf("%.1f us", float64(cpu[len(cpu)/2].Nanoseconds())/1000), fmt.Sprintf("%.3f", ratios[len(ratios)/2]),
			fmt.Sprintf("%.2f %.2f", ratios[0], ratios[len(ratios)-1]), fmt.Sprintf("%.1f MB", float64(c.rest)/1000), fmt.Sprintf("%.1f MB", float64(c.peak)/1000))
	}
}
