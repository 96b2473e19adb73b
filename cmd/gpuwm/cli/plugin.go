package cli

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/gpuwm/gpuwm/configs"
	"github.com/gpuwm/gpuwm/core"
	"github.com/spf13/cobra"
)

// PluginView is one known plugin, as `plugin list` prints it.
type PluginView struct {
	Name string `json:"name"`
	// Source is "built-in" or "configured".
	Source string `json:"source"`
	Path   string `json:"path"`
	// Digest is what the executable must be; empty when the configuration names none.
	Digest string `json:"digest"`
}

// PluginTestRequest is one run of the conformance kit.
type PluginTestRequest struct {
	Settings *configs.Settings
	// Plugin is the path of an executable, or the name of a known plugin.
	Plugin string
	// Level is the highest level to test; 0 means that which the plugin declares.
	Level int
	// Engine and Options open the device; empty means the plugin's first engine.
	Engine  string
	Options map[string]string
	// Slow has the checks run too that let the plugin wait in vain for up to a minute.
	Slow bool
	// Patience bounds the wait for one answer; 0 means the kit's own.
	Patience time.Duration
	// Progress takes a line for each check as it ends.
	Progress io.Writer
}

// PluginReport is what the kit found, as `plugin test -o json` prints it.
type PluginReport struct {
	Plugin string        `json:"plugin"`
	Level  int           `json:"level"`
	Checks []PluginCheck `json:"checks"`
}

// PluginCheck is the result of one check. A skipped one is not OK, and Reason
// says why it was skipped.
type PluginCheck struct {
	Name    string `json:"name"`
	Level   int    `json:"level"`
	OK      bool   `json:"ok"`
	Skipped bool   `json:"skipped"`
	Reason  string `json:"reason"`
}

// PluginNewRequest asks for the module of a new plugin.
type PluginNewRequest struct {
	// Name is that of the backend, Dir where the module is written.
	Name, Dir string
	// Source is a checkout of gpuwm that the module builds against.
	Source string
}

func (c *command) pluginVerb() *cobra.Command {
	list := &cobra.Command{
		Use:   "list",
		Short: "List the plugins that are built in or configured",
		Args:  takes(),
		RunE:  c.action(func(cmd *cobra.Command, _ []string) error { return c.pluginList(cmd) }),
	}
	verbs := []*cobra.Command{list}
	if c.app.PluginTest != nil {
		verbs = append(verbs, c.pluginTestVerb())
	}
	if c.app.PluginNew != nil {
		verbs = append(verbs, c.pluginNewVerb())
	}
	return c.group("plugin", "List, test and scaffold vendor backends", verbs...)
}

func (c *command) pluginList(cmd *cobra.Command) error {
	settings, err := c.settings(cmd)
	if err != nil {
		return badFile(err)
	}
	views, err := c.app.Plugins(settings)
	if err != nil {
		return err
	}
	if c.output == OutputJSON {
		return printJSON(c.stdout, views)
	}
	rows := make([][]string, len(views))
	for i, v := range views {
		rows[i] = []string{v.Name, v.Source, v.Path}
	}
	return printTable(c.stdout, []string{"NAME", "SOURCE", "PATH"}, rows)
}

func (c *command) pluginTestVerb() *cobra.Command {
	var request PluginTestRequest
	test := &cobra.Command{
		Use:   "test PATH",
		Short: "Run the conformance kit on a plugin's executable, or on a known plugin by name",
		Long: "Runs the conformance kit on a plugin: an executable in any language, or a known plugin by name.\n\n" +
			"Levels: 1 jobs, 2 in-band messages and properties, 3 suspend and images, 4 recovery, 5 portable images;\n" +
			"each includes those below. Exit code 1 when a check up to the level fails.",
		Args: takes("PATH"),
		RunE: c.action(func(cmd *cobra.Command, args []string) error {
			request.Plugin = args[0]
			return c.pluginTest(cmd, request)
		}),
	}
	flags := test.Flags()
	flags.IntVar(&request.Level, "level", 0, "highest level to test, 1 to 5 (default: what the plugin declares)")
	flags.BoolVar(&request.Slow, "slow", false, "run the checks too that let the plugin wait in vain; they take a minute, side by side")
	flags.DurationVar(&request.Patience, "patience", 0, "how long to wait for one answer (default 10s)")
	flags.StringVar(&request.Engine, "engine", "", "engine of the device (default: the plugin's first)")
	flags.StringToStringVar(&request.Options, "option", nil, "option of the device, key=value; may be repeated")
	return test
}

func (c *command) pluginTest(cmd *cobra.Command, request PluginTestRequest) error {
	if cmd.Flags().Changed("level") && (request.Level < core.LevelJobs || request.Level > core.LevelPortable) {
		return &ExitError{Code: ExitUsage, Err: fmt.Errorf("usage: --level %d: must be %d to %d", request.Level, core.LevelJobs, core.LevelPortable)}
	}
	if cmd.Flags().Changed("patience") && request.Patience < time.Second {
		return &ExitError{Code: ExitUsage, Err: fmt.Errorf("usage: --patience %s: must be 1s or more", request.Patience)}
	}
	settings, err := c.settings(cmd)
	if err != nil {
		return badFile(err)
	}
	request.Settings, request.Progress = settings, c.stderr
	report, err := c.app.PluginTest(cmd.Context(), request)
	if err != nil {
		return err
	}
	return c.pluginReport(report)
}

// pluginReport prints what the kit found. Failures set the exit code.
func (c *command) pluginReport(report PluginReport) error {
	var failed, skipped int
	rows := make([][]string, len(report.Checks))
	for i, k := range report.Checks {
		result := "ok"
		switch {
		case k.Skipped:
			result = "skipped"
			skipped++
		case !k.OK:
			result = "FAILED"
			failed++
		}
		rows[i] = []string{fmt.Sprint(k.Level), k.Name, result, flatten(k.Reason)}
	}
	var err error
	if c.output == OutputJSON {
		err = printJSON(c.stdout, report)
	} else {
		err = printTable(c.stdout, []string{"LEVEL", "CHECK", "RESULT", "REASON"}, rows)
	}
	if err != nil {
		return err
	}
	passed := len(report.Checks) - failed - skipped
	sum := fmt.Sprintf("plugin %s: level %d: %d passed, %d failed, %d skipped", report.Plugin, report.Level, passed, failed, skipped)
	if failed > 0 {
		return &ExitError{Code: ExitFailed, Err: fmt.Errorf("%s", sum)}
	}
	_, err = fmt.Fprintln(c.stderr, sum)
	return err
}

func (c *command) pluginNewVerb() *cobra.Command {
	var request PluginNewRequest
	scaffold := &cobra.Command{
		Use:   "new NAME",
		Short: "Write the module of a new plugin: it builds, runs jobs, and has its test",
		Args:  takes("NAME"),
		RunE: c.action(func(_ *cobra.Command, args []string) error {
			request.Name = args[0]
			return c.pluginNew(request)
		}),
	}
	flags := scaffold.Flags()
	flags.StringVar(&request.Dir, "dir", "", "directory to write, which must not exist (default: gpuwm-NAME)")
	flags.StringVar(&request.Source, "source", "", "checkout of gpuwm to build against (default: the one that this directory is in)")
	return scaffold
}

func (c *command) pluginNew(request PluginNewRequest) error {
	if request.Dir == "" {
		request.Dir = "gpuwm-" + request.Name
	}
	files, err := c.app.PluginNew(request)
	if err != nil {
		return err
	}
	if c.output == OutputJSON {
		return printJSON(c.stdout, map[string]any{"name": request.Name, "dir": request.Dir, "files": files})
	}
	_, err = fmt.Fprintf(c.stdout, "%s: %s\nnext: cd %s && go test ./...\n", request.Dir, strings.Join(files, " "), request.Dir)
	return err
}
