// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package command

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
)

const (
	callsPath      = "/tim_callback/calls"
	deliveriesPath = "/tim_callback/deliveries"
	statusPath     = "/tim_callback/status"
)

// adminClient calls the admin API of a running Caddy.
type adminClient struct {
	address string
	config  string
	adapter string
	asJSON  bool
	asked   bool // the address is known, and was printed

	out, log io.Writer
}

// addFlags adds the flags that find the admin API to the command and its subcommands.
func (c *adminClient) addFlags(cmd *cobra.Command) {
	flags := cmd.PersistentFlags()
	flags.StringVar(&c.address, "address", "", "address of the admin API (default: that of the configuration, or localhost:2019)")
	flags.StringVarP(&c.config, "config", "c", "", "configuration file to read the address from (default: Caddyfile, if there is one)")
	flags.StringVarP(&c.adapter, "adapter", "a", "", "name of the configuration's adapter")
	flags.BoolVar(&c.asJSON, "json", false, "print the responses of the admin API")
	cmd.PersistentPreRun = func(cmd *cobra.Command, _ []string) { c.out, c.log = cmd.OutOrStdout(), cmd.ErrOrStderr() }
}

// call calls the admin API and decodes the response into value. With --json, it also prints
// the response.
func (c *adminClient) call(method, uri string, value any) (printed bool, err error) {
	resp, err := c.request(method, uri, "application/json", nil)
	if err != nil {
		return false, err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return false, fmt.Errorf("reading the response of the admin API at %s: %w", c.address, err)
	}
	if json.Unmarshal(text, value) != nil {
		return false, c.notAPI()
	}
	if c.asJSON {
		_, _ = c.out.Write(text)
	}
	return c.asJSON, nil
}

// request calls the admin API. It fails unless the response is of the content type.
func (c *adminClient) request(method, uri, contentType string, headers http.Header) (*http.Response, error) {
	if err := c.findAddress(); err != nil {
		return nil, err
	}
	resp, err := caddycmd.AdminAPIRequest(c.address, method, uri, headers, nil)
	if err != nil {
		return nil, c.explain(err)
	}
	if got, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); got != contentType {
		_ = resp.Body.Close()
		return nil, c.notAPI()
	}
	return resp, nil
}

var (
	// errResponse is the error of a request that the admin API has refused.
	errResponse = errors.New("the admin API")

	errNotAPI = errors.New("answers, but is not Caddy's admin API with tim_callback")
)

// explain returns the error of a request, whose text Caddy has composed, in other words.
func (c *adminClient) explain(err error) error {
	if _, response, answered := strings.Cut(err.Error(), "caddy responded with error: HTTP "); answered {
		_, text, _ := strings.Cut(response, ": ")
		var refusal struct{ Error string }
		if json.Unmarshal([]byte(text), &refusal) != nil || refusal.Error == "" {
			return c.notAPI()
		}
		return fmt.Errorf("%w at %s: %s", errResponse, c.address, refusal.Error)
	}
	if _, cause, found := strings.Cut(err.Error(), "\": "); found { // after the method and the URL
		err = errors.New(cause)
	}
	return fmt.Errorf("the admin API does not answer at %s: %w; give another address with --address, or the configuration with --config", c.address, err)
}

func (c *adminClient) notAPI() error {
	return fmt.Errorf("the address %s %w: give that with --address, or the configuration with --config", c.address, errNotAPI)
}

// loadConfig loads the configuration as reload does, but keeps what that logs off the terminal.
func (c *adminClient) loadConfig() (config []byte, file string, err error) {
	_, logger, buffer := caddy.BufferedLog()
	defer caddy.UnbufferDefaultLogger(logger)
	defer buffer.FlushTo(zap.NewNop())
	config, file, _, err = caddycmd.LoadConfig(c.config, c.adapter)
	return config, file, err
}

// findAddress determines the address of the admin API as reload does, and prints it once.
func (c *adminClient) findAddress() error {
	if c.asked {
		return nil
	}
	from := ""
	if c.address == "" {
		config, file, err := c.loadConfig()
		if err != nil {
			return err
		}
		if c.address, err = caddycmd.DetermineAdminAPIAddress("", config, file, c.adapter); err != nil {
			return err
		}
		if file != "" {
			from = " (from " + file + ")"
		}
	}
	c.asked = true
	fmt.Fprintf(c.log, "asking %s%s\n", c.address, from)
	return nil
}
