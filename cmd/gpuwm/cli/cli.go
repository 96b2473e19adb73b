package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/gpuwm/gpuwm/configs"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// App is what the verbs need from the wiring.
type App struct {
	// Run runs a deployment to its end, or until it is suspended. It handles
	// signals. It returns the jobs as they are then, also beside an error.
	Run func(context.Context, RunRequest) ([]JobView, error)
	// Environment returns what deployment files are checked against; the output
	// directory and the configured plugins are added here. May be nil.
	Environment func(*configs.Settings) configs.Env
	// Plugins lists the known plugins by name.
	Plugins func(*configs.Settings) ([]PluginView, error)
	// PluginTest runs the conformance kit. Errors are of the run itself; what the
	// kit finds is in the report.
	PluginTest func(context.Context, PluginTestRequest) (PluginReport, error)
	// PluginNew writes a module and returns its files.
	PluginNew func(PluginNewRequest) ([]string, error)
	// Trace reads the trace of a device.
	Trace func(context.Context, TraceRequest) error
	// Lookup reads an environment variable; nil means os.LookupEnv.
	Lookup func(string) (string, bool)
	// Now is the clock of the progress; nil means time.Now.
	Now func() time.Time
}

// Output formats of -o.
const (
	OutputTable = "table"
	OutputJSON  = "json"
)

// command is one invocation.
type command struct {
	app            App
	stdin          io.Reader
	stdout, stderr io.Writer
	// began says that a verb's action started; errors before it are usage errors.
	began bool
	// output is the value of -o.
	output string
	// config is the value of --config.
	config string
}

// Main runs one command line, without the program's name, and returns the exit
// code. It may be called many times in one process.
func Main(app App, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	if app.Lookup == nil {
		app.Lookup = os.LookupEnv
	}
	if app.Now == nil {
		app.Now = time.Now
	}
	c := &command{app: app, stdin: stdin, stdout: stdout, stderr: stderr}
	root := c.root()
	root.SetArgs(args)
	err := root.ExecuteContext(context.Background())
	if err != nil && !c.began {
		err = usageError(root, err)
	}
	PrintError(stderr, err)
	return ExitCode(err)
}

// root builds the tree of verbs.
func (c *command) root() *cobra.Command {
	root := &cobra.Command{
		Use:               "gpuwm",
		Short:             "Run long GPU compute jobs on firmware-scheduled GPUs",
		SilenceErrors:     true,
		SilenceUsage:      true,
		Args:              cobra.ArbitraryArgs,
		PersistentPreRunE: c.prepare,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			return unknownVerb(cmd, args[0])
		},
	}
	root.SetIn(c.stdin)
	root.SetOut(c.stdout)
	root.SetErr(c.stderr)
	root.SetFlagErrorFunc(flagError)
	root.CompletionOptions.HiddenDefaultCmd = true
	flags := root.PersistentFlags()
	flags.String(configs.KeyDataDir, "", "directory of records and images (default: the XDG state directory)")
	flags.String(configs.KeySocket, "", "unix socket of the daemon (default: in the data directory)")
	flags.StringVar(&c.config, configs.KeyConfig, "", "configuration file (default: the XDG configuration directory)")
	flags.Var(&wordFlag{words: configs.SettingsWords(configs.KeyLogLevel)}, configs.KeyLogLevel, "log level: trace, debug, info, warn, error or off (default info)")
	flags.Var(&wordFlag{words: configs.SettingsWords(configs.KeyLogFormat)}, configs.KeyLogFormat, "log format: text or json (default text)")
	c.output = OutputTable
	flags.VarP(&wordFlag{words: []string{OutputTable, OutputJSON}, value: &c.output}, "output", "o", "output format: table or json")
	root.AddCommand(c.runVerb(), c.configVerb(), c.pluginVerb(), c.traceVerb(), c.versionVerb())
	return root
}

// prepare runs before every verb: flags that were not given come from the
// environment. Those that the settings own are joined in configs.LoadSettings.
func (c *command) prepare(cmd *cobra.Command, _ []string) error {
	owned := map[string]bool{
		configs.KeyDataDir: true, configs.KeySocket: true, configs.KeyConfig: true,
		configs.KeyLogLevel: true, configs.KeyLogFormat: true, "help": true,
	}
	var first error
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if first != nil || f.Changed || owned[f.Name] {
			return
		}
		name := configs.EnvironmentName(f.Name)
		value, set := c.app.Lookup(name)
		if !set || value == "" {
			return
		}
		if err := f.Value.Set(value); err != nil {
			first = &configs.SettingError{Origin: "environment " + name, Problem: err.Error()}
		}
	})
	return first
}

// action marks the end of usage errors.
func (c *command) action(do func(cmd *cobra.Command, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		c.began = true
		return do(cmd, args)
	}
}

// settings joins the configuration for the verb.
func (c *command) settings(cmd *cobra.Command) (*configs.Settings, error) {
	return configs.LoadSettings(cmd.Flags(), c.config, c.app.Lookup)
}

// load reads a deployment file for the verb.
func (c *command) load(settings *configs.Settings, file, outputDir string) (*configs.Deployment, error) {
	var env configs.Env
	if c.app.Environment != nil {
		env = c.app.Environment(settings)
	}
	env.OutputDir = outputDir
	if env.Backends != nil {
		known := map[string]bool{}
		for _, b := range env.Backends {
			known[b.Name] = true
		}
		for _, name := range settings.PluginNames() {
			if !known[name] {
				env.Backends = append(env.Backends, configs.BackendInfo{Name: name})
			}
		}
	}
	d, err := configs.Load(file, env)
	if err != nil {
		return nil, badFile(err)
	}
	d.Devices = settings.WithDefaults(d.Devices)
	return d, nil
}

// badFile gives problems with a file the exit code of usage errors.
func badFile(err error) error {
	var file *configs.FileError
	if errors.As(err, &file) {
		return err
	}
	return &ExitError{Code: ExitUsage, Err: err}
}

// group makes a verb that has only verbs below it.
func (c *command) group(use, short string, verbs ...*cobra.Command) *cobra.Command {
	g := &cobra.Command{Use: use, Short: short, Args: cobra.ArbitraryArgs, RunE: func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return fmt.Errorf("%s: needs a verb: %s", verbPath(cmd), strings.Join(verbsOf(cmd), ", "))
		}
		return unknownVerb(cmd, args[0])
	}}
	g.AddCommand(verbs...)
	return g
}

// verbsOf lists the verbs below one.
func verbsOf(cmd *cobra.Command) []string {
	var verbs []string
	for _, v := range cmd.Commands() {
		if v.IsAvailableCommand() {
			verbs = append(verbs, v.Name())
		}
	}
	return verbs
}

// unknownVerb says which verb was probably meant.
func unknownVerb(cmd *cobra.Command, word string) error {
	verbs := verbsOf(cmd)
	hint := "verbs are " + strings.Join(verbs, ", ")
	if best, ok := configs.Nearest(word, verbs); ok {
		hint = fmt.Sprintf("did you mean %q?", best)
	}
	return &ExitError{Code: ExitUsage, Hint: hint, Err: fmt.Errorf("usage: unknown verb %q", word)}
}

// wordFlag is a flag that takes one of a few words.
type wordFlag struct {
	words []string
	value *string
}

// String implements pflag.Value.
func (f *wordFlag) String() string {
	if f.value == nil {
		return ""
	}
	return *f.value
}

// Set implements pflag.Value.
func (f *wordFlag) Set(s string) error {
	for _, w := range f.words {
		if s == w {
			if f.value == nil {
				f.value = new(string)
			}
			*f.value = s
			return nil
		}
	}
	return fmt.Errorf("must be one of %s", strings.Join(f.words, ", "))
}

// Type implements pflag.Value.
func (f *wordFlag) Type() string { return "word" }
