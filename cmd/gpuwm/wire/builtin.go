package wire

import (
	"io"
	"slices"

	"github.com/gpuwm/gpuwm/cmd/gpuwm/cli"
	"github.com/gpuwm/gpuwm/configs"
	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/agx"
	"github.com/gpuwm/gpuwm/plugins/engine/test"
	"github.com/gpuwm/gpuwm/plugins/engine/wasm"
	"github.com/gpuwm/gpuwm/plugins/guc"
	"github.com/gpuwm/gpuwm/plugins/mali"
	"github.com/gpuwm/gpuwm/sdk"
	"github.com/hashicorp/go-hclog"
)

type settingsOf = *configs.Settings

// builtins are the backends that this program serves itself, by re-executing. A file
// without devices gets one of each, and an entity without a device the first that fits.
var builtins = []struct {
	name string
	make func() sdk.Backend
	// check is what is known of a device's options before a plugin runs.
	check func(options map[string]string) error
}{
	{guc.Name, func() sdk.Backend { return guc.New(guc.Options{}) }, guc.CheckOptions},
	{agx.Name, func() sdk.Backend { return agx.New(agx.Options{}) }, agx.CheckOptions},
	{mali.Name, func() sdk.Backend { return mali.New(mali.Options{}) }, mali.CheckOptions},
}

func builtinNames() []string {
	names := make([]string, len(builtins))
	for i, b := range builtins {
		names[i] = b.name
	}
	return names
}

// ServePlugin is the whole life of a built-in plugin process; it returns the exit code.
func ServePlugin(name string, stderr io.Writer) int {
	at := slices.Index(builtinNames(), name)
	if at < 0 {
		_, _ = io.WriteString(stderr, "gpuwm: plugin "+name+": not built in\n")
		return cli.ExitUsage
	}
	sdk.Serve(builtins[at].make())
	return 0
}

// Environment is what deployment files are checked against.
func Environment(*configs.Settings) configs.Env {
	env := configs.Env{DeviceCheck: checkDevice, KernelCheck: checkKernel}
	for _, name := range builtinNames() {
		env.Backends = append(env.Backends, configs.BackendInfo{
			Name: name,
			Engines: []configs.EngineInfo{
				{Name: wasm.Name, Formats: []string{core.FormatWasm}},
				{Name: test.Name, Formats: []string{test.Format}},
			},
		})
	}
	return env
}

// checkDevice finds options that a built-in backend would refuse before a plugin is started for it.
func checkDevice(spec core.DeviceSpec) error {
	at := slices.Index(builtinNames(), spec.Backend)
	if at < 0 {
		return nil
	}
	return builtins[at].check(spec.Options)
}

func checkKernel(format string, code []byte, entry string, args []core.Arg, bufferBytes uint64) error {
	if format != core.FormatWasm {
		return nil
	}
	info, err := wasm.Inspect(code)
	if err != nil {
		return err
	}
	return info.CheckJob(entry, args, bufferBytes)
}

func newLogger(s settingsOf, to io.Writer) hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{
		Name: "gpuwm", Level: hclog.LevelFromString(s.LogLevel), Output: to, JSONFormat: s.LogFormat == "json",
	})
}
