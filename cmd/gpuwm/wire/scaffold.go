package wire

import (
	"errors"
	"fmt"

	"github.com/gpuwm/gpuwm/cmd/gpuwm/cli"
	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/sdk/scaffold"
)

// PluginNew writes the module of a new plugin and returns its files.
func PluginNew(r cli.PluginNewRequest) ([]string, error) {
	files, err := scaffold.Write(r.Name, r.Dir, r.Source)
	if err == nil {
		return files, nil
	}
	exit := &cli.ExitError{Code: cli.ExitFailed, Err: fmt.Errorf("plugin new: %w", err)}
	switch {
	case errors.Is(err, scaffold.ErrName):
		exit.Code, exit.Hint = cli.ExitUsage, "small letters, digits and single hyphens, beginning with a letter, at most 32"
	case errors.Is(err, scaffold.ErrSource):
		exit.Code, exit.Hint = cli.ExitUsage, "--source names a checkout of gpuwm, the directory with its go.mod"
	case errors.Is(err, core.ErrExists):
		exit.Code, exit.Hint = cli.ExitUsage, "--dir names another directory"
	}
	return nil, exit
}
