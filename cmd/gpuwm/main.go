// Command gpuwm runs long GPU compute jobs on firmware-scheduled GPUs.
package main

import (
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/gpuwm/gpuwm/cmd/gpuwm/cli"
	"github.com/gpuwm/gpuwm/cmd/gpuwm/wire"
)

func main() {
	// A reader that goes away (`| head`) must not end a run and leave its plugin
	// behind: writes fail instead.
	signal.Ignore(syscall.SIGPIPE)
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run is one command line. `plugin serve NAME` is how the program starts itself
// as one of its built-in plugins; it is not for people.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	if len(args) == 3 && args[0] == "plugin" && args[1] == "serve" {
		return wire.ServePlugin(args[2], stderr)
	}
	return cli.Main(cli.App{
		Run: wire.Run, Environment: wire.Environment, Plugins: wire.Plugins, PluginNew: wire.PluginNew, PluginTest: wire.PluginTest,
		Trace: wire.Trace,
	}, args, stdin, stdout, stderr)
}
