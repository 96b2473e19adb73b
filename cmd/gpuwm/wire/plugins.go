package wire

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/gpuwm/gpuwm/cmd/gpuwm/cli"
	"github.com/gpuwm/gpuwm/configs"
	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/sdk/host"
)

// instancesDir is where a data directory has its plugin instances.
func instancesDir(s settingsOf) string { return filepath.Join(s.DataDir, "instances") }

// executables are the plugins by backend: the built-in ones, and those of the
// configuration, which win.
func executables(s settingsOf) (map[string]host.Command, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	commands := make(map[string]host.Command)
	for _, name := range builtinNames() {
		commands[name] = host.Command{Path: self, Args: []string{"plugin", "serve", name}}
	}
	for name, p := range s.Plugins {
		command := host.Command{Path: p.Path}
		if p.Digest != (core.Digest{}) {
			command.Digest = &p.Digest
		}
		commands[name] = command
	}
	return commands, nil
}

// Plugins lists the known plugins by name.
func Plugins(s *configs.Settings) ([]cli.PluginView, error) {
	commands, err := executables(s)
	if err != nil {
		return nil, err
	}
	views := []cli.PluginView{}
	for _, name := range slices.Sorted(maps.Keys(commands)) {
		v := cli.PluginView{Name: name, Source: "built-in", Path: commands[name].Path}
		if _, configured := s.Plugins[name]; configured {
			v.Source = "configured"
		}
		if d := commands[name].Digest; d != nil {
			v.Digest = d.String()
		}
		views = append(views, v)
	}
	return views, nil
}

// Trace reads the trace of a device that a run of the data directory has open.
// SIGINT and SIGTERM end it without an error.
func Trace(ctx context.Context, r cli.TraceRequest) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	err := host.Trace(ctx, instancesDir(r.Settings), r.Device, r.Follow, r.Line)
	switch {
	case errors.Is(err, context.Canceled):
		return nil
	case errors.Is(err, core.ErrNotFound):
		return &cli.ExitError{Code: cli.ExitNotFound, Err: err, Hint: "a device is open while a run of the same --data-dir works"}
	}
	return err
}
