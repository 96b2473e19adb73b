package cli

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// VersionView is the JSON form of `version`. Fields that the build did not
// record are empty.
type VersionView struct {
	Version  string `json:"version"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
	Commit   string `json:"commit"`
	// Time is that of the commit.
	Time string `json:"time"`
	// Modified says that the source differed from the commit.
	Modified bool `json:"modified"`
}

func (c *command) versionVerb() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print version, Go version and commit",
		Args:  takes(),
		RunE: c.action(func(*cobra.Command, []string) error {
			v := version()
			if c.output == OutputJSON {
				return printJSON(c.stdout, v)
			}
			commit := "unknown commit"
			if v.Commit != "" {
				commit = "commit " + v.Commit
			}
			if v.Modified {
				commit += " (modified)"
			}
			_, err := fmt.Fprintf(c.stdout, "gpuwm %s %s %s %s\n", v.Version, v.Go, v.Platform, commit)
			return err
		}),
	}
}

// version reads what the build recorded of itself.
func version() VersionView {
	v := VersionView{Version: "unknown", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	build, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	if build.Main.Version != "" {
		v.Version = build.Main.Version
	}
	for _, s := range build.Settings {
		switch s.Key {
		case "vcs.revision":
			v.Commit = s.Value
		case "vcs.time":
			v.Time = s.Value
		case "vcs.modified":
			v.Modified = s.Value == "true"
		}
	}
	return v
}
