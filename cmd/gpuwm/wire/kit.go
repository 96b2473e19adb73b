package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"strings"
	"syscall"

	"github.com/gpuwm/gpuwm/cmd/gpuwm/cli"
	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/sdk/host"
	"github.com/gpuwm/gpuwm/sdk/plugintest"
)

// PluginTest runs the conformance kit on an executable, or on a known plugin by its
// name. SIGINT and SIGTERM end it between two checks; nothing is left behind.
func PluginTest(ctx context.Context, r cli.PluginTestRequest) (cli.PluginReport, error) {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	command, err := commandOf(r)
	if err != nil {
		return cli.PluginReport{}, err
	}
	config := plugintest.Config{
		Command: command, Level: r.Level, Engine: r.Engine, Options: r.Options, Slow: r.Slow, Patience: r.Patience,
		Progress: func(result plugintest.Result) { printResult(r.Progress, result) },
	}
	// The kit provokes most of what a plugin warns of.
	if log := newLogger(r.Settings, r.Progress); log.IsDebug() {
		config.Log = log
	}
	found, err := plugintest.Run(ctx, config)
	if err != nil {
		return cli.PluginReport{}, kitError(r.Plugin, err)
	}
	report := cli.PluginReport{Plugin: found.Plugin, Level: found.Level, Checks: []cli.PluginCheck{}}
	for _, c := range found.Results {
		report.Checks = append(report.Checks, cli.PluginCheck{Name: c.Name, Level: c.Level, OK: c.OK, Skipped: c.Skipped, Reason: c.Reason})
	}
	return report, nil
}

// commandOf says how the plugin is started. A word without a slash is a known
// plugin, if there is one of that name.
func commandOf(r cli.PluginTestRequest) (host.Command, error) {
	known, err := executables(r.Settings)
	if err != nil {
		return host.Command{}, err
	}
	if command, ok := known[r.Plugin]; ok && !strings.Contains(r.Plugin, "/") {
		return command, nil
	}
	return host.Command{Path: r.Plugin}, nil
}

// printResult writes a line for a check that has ended.
func printResult(to io.Writer, r plugintest.Result) {
	switch {
	case r.OK:
		fmt.Fprintf(to, "%d %s: ok\n", r.Level, r.Name)
	case r.Skipped:
		fmt.Fprintf(to, "%d %s: skipped: %s\n", r.Level, r.Name, r.Reason)
	default:
		fmt.Fprintf(to, "%d %s: FAILED: %s (promise: %s)\n", r.Level, r.Name, r.Reason, r.Doc)
	}
}

// kitError gives what kept the kit from testing its code and hint.
func kitError(plugin string, err error) error {
	exit := &cli.ExitError{Code: cli.ExitFailed, Err: fmt.Errorf("test plugin %s: %w", plugin, err)}
	var start *plugintest.StartError
	if errors.As(err, &start) {
		exit.Err, exit.Hint = fmt.Errorf("test plugin %s: %s", plugin, start.What), start.Hint
	}
	if errors.Is(err, core.ErrNotFound) {
		exit.Code, exit.Hint = cli.ExitNotFound, "name a plugin's executable, or one of those that `gpuwm plugin list` prints"
	}
	return exit
}
