package cli

import (
	"errors"
	"fmt"

	"github.com/gpuwm/gpuwm/configs"
	"github.com/spf13/cobra"
)

func (c *command) configVerb() *cobra.Command {
	var outputDir string
	check := &cobra.Command{
		Use:   "check FILE",
		Short: "Check a deployment file and all it names; nothing is created",
		Args:  takes("FILE"),
		RunE: c.action(func(cmd *cobra.Command, args []string) error {
			return c.check(cmd, args[0], outputDir)
		}),
	}
	check.Flags().StringVar(&outputDir, "output-dir", "", "directory of result files (default: the current directory)")
	schema := &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON schema of the deployment file",
		Args:  takes(),
		RunE: c.action(func(*cobra.Command, []string) error {
			_, err := c.stdout.Write(configs.Schema())
			return err
		}),
	}
	show := &cobra.Command{
		Use:   "show",
		Short: "Print the settings and where each comes from",
		Args:  takes(),
		RunE:  c.action(func(cmd *cobra.Command, _ []string) error { return c.show(cmd) }),
	}
	return c.group("config", "Check files, print settings and the schema", check, show, schema)
}

// checkResult is the JSON form of `config check`.
type checkResult struct {
	File     string            `json:"file"`
	OK       bool              `json:"ok"`
	Entities int               `json:"entities"`
	Jobs     int               `json:"jobs"`
	Devices  int               `json:"devices"`
	Problems []configs.Problem `json:"problems"`
	// More counts problems that were left out.
	More int `json:"more"`
}

func (c *command) check(cmd *cobra.Command, file, outputDir string) error {
	settings, err := c.settings(cmd)
	if err != nil {
		return badFile(err)
	}
	result := checkResult{File: file, Problems: []configs.Problem{}}
	deployment, err := c.load(settings, file, outputDir)
	var bad *configs.FileError
	switch {
	case errors.As(err, &bad):
		result.Problems, result.More = bad.Problems, bad.More
	case err != nil:
		return err
	default:
		result.OK, result.Entities, result.Devices = true, len(deployment.Entities), len(deployment.Devices)
		for _, e := range deployment.Entities {
			result.Jobs += len(e.Jobs)
		}
	}
	if c.output == OutputJSON {
		if printed := printJSON(c.stdout, result); printed != nil {
			return fmt.Errorf("print result: %w", printed)
		}
		return err
	}
	if err == nil {
		_, err = fmt.Fprintf(c.stdout, "%s: ok: %s, %s, %s\n", file,
			count(result.Devices, "device", "devices"), count(result.Entities, "entity", "entities"), count(result.Jobs, "job", "jobs"))
	}
	return err
}

func (c *command) show(cmd *cobra.Command) error {
	settings, err := c.settings(cmd)
	if err != nil {
		return badFile(err)
	}
	shown := settings.Show()
	if c.output == OutputJSON {
		return printJSON(c.stdout, map[string]any{"file": settings.File, "settings": shown})
	}
	rows := make([][]string, len(shown))
	for i, s := range shown {
		rows[i] = []string{s.Key, s.Value, s.Origin}
	}
	return printTable(c.stdout, []string{"SETTING", "VALUE", "ORIGIN"}, rows)
}

// count writes a number with its noun.
func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
