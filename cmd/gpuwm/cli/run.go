package cli

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/gpuwm/gpuwm/configs"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// flagRestart is the flag that the same command must not have again.
const flagRestart = "restart"

// RunRequest is what `run` asks of the wiring.
type RunRequest struct {
	Deployment *configs.Deployment
	Settings   *configs.Settings
	// Restart drops an unfinished run of the same name and starts anew.
	Restart bool
	// Progress takes the states of the jobs; log lines and messages go through
	// its Write, so that they do not tear the bars. Never nil.
	Progress *Progress
}

func (c *command) runVerb() *cobra.Command {
	var outputDir string
	var restart bool
	verb := &cobra.Command{
		Use:   "run FILE",
		Short: "Run a deployment file to the end; Ctrl-C suspends, running it again resumes",
		Args:  takes("FILE"),
		RunE: c.action(func(cmd *cobra.Command, args []string) error {
			return c.run(cmd, args[0], outputDir, restart)
		}),
	}
	verb.Flags().StringVar(&outputDir, "output-dir", "", "directory of result files (default: the current directory)")
	verb.Flags().BoolVar(&restart, flagRestart, false, "forget an unfinished run and start anew")
	return verb
}

func (c *command) run(cmd *cobra.Command, file, outputDir string, restart bool) error {
	settings, err := c.settings(cmd)
	if err != nil {
		return badFile(err)
	}
	deployment, err := c.load(settings, file, outputDir)
	if err != nil {
		return err
	}
	if c.app.Run == nil {
		return &ExitError{Code: ExitUsage, Err: fmt.Errorf("run %s: this program cannot run deployments", file)}
	}
	messages := newSpool(c.stderr)
	progress := NewProgress(messages, c.progressOptions())
	jobs, err := c.app.Run(cmd.Context(), RunRequest{Deployment: deployment, Settings: settings, Restart: restart, Progress: progress})
	progress.Close()
	messages.close(spoolFlush)
	// Results are printed beside an error too, but an error before any job
	// exists has none to show but to a program, which always gets an array.
	if len(jobs) > 0 || c.output == OutputJSON {
		if printed := PrintJobs(c.stdout, c.output, jobs); printed != nil && err == nil {
			err = fmt.Errorf("print jobs: %w", printed)
		}
	}
	if err != nil {
		return fmt.Errorf("run %s: %w", file, err)
	}
	return runOutcome(file, again(cmd, file), jobs)
}

// again returns the command line that continues a run: the same, without
// --restart. What came from the environment still does.
func again(cmd *cobra.Command, file string) string {
	if strings.HasPrefix(file, "-") {
		file = "./" + file
	}
	words := []string{cmd.CommandPath(), quote(file)}
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if f.Name != flagRestart {
			words = append(words, "--"+f.Name, quote(f.Value.String()))
		}
	})
	return strings.Join(words, " ")
}

// plainWord is what a shell takes as it is.
var plainWord = regexp.MustCompile(`^[A-Za-z0-9_@%+=:,./-]+$`)

// quote writes a word so that a shell reads it back.
func quote(word string) string {
	if plainWord.MatchString(word) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// runOutcome turns the states of the jobs into an exit code and what to say;
// again is the command line that continues.
func runOutcome(file, again string, jobs []JobView) error {
	code := outcome(jobs)
	var not []string
	for _, j := range jobs {
		switch {
		case code == ExitFailed && j.Final() && j.State != "completed":
			not = append(not, j.Name+" "+j.State)
		case code == ExitSuspended && !j.Final():
			not = append(not, fmt.Sprintf("%s at %d of %d", j.Name, j.Progress.Done, j.Progress.Total))
		}
	}
	const most = 8
	if len(not) > most {
		not = append(not[:most], fmt.Sprintf("and %d more", len(not)-most))
	}
	switch code {
	case ExitFailed:
		return &ExitError{Code: code, Err: fmt.Errorf("run %s: %s", file, strings.Join(not, ", "))}
	case ExitSuspended:
		return &ExitError{Code: code, Hint: "the same command goes on from here: " + again,
			Err: fmt.Errorf("run %s: suspended: %s", file, strings.Join(not, ", "))}
	}
	return nil
}
