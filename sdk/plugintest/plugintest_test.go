package plugintest

import (
	"os"
	"testing"

	"github.com/gpuwm/gpuwm/sdk"
	"github.com/gpuwm/gpuwm/sdk/host"
	"github.com/gpuwm/gpuwm/sdk/internal/memory"
)

// TestMain makes the test binary a plugin when its first argument says so.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		if serve, ok := roles[os.Args[1]]; ok {
			serve(os.Args[2:])
			os.Exit(0)
		}
	}
	os.Exit(m.Run())
}

// roles are what the test binary can be instead of the tests.
var roles = map[string]func(args []string){
	"memory": func([]string) { sdk.Serve(good()) },
	"proxy":  serveProxy,
	// What is no plugin.
	"mute":    func([]string) { select {} },
	"quits":   func([]string) {},
	"babbles": func([]string) { _, _ = os.Stdout.WriteString("hello\n"); select {} },
}

// good is a backend that keeps every promise and lacks no capability.
func good() sdk.Backend {
	const lines = 64
	return &memory.Backend{TraceLines: lines}
}

// self is the test binary in a role.
func self(t testing.TB, args ...string) host.Command {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return host.Command{Path: path, Args: args}
}

// TestBackendInThisProcess runs the whole kit on a good backend.
func TestBackendInThisProcess(t *testing.T) {
	t.Parallel()
	Test(t, good)
}

// TestBackendInAProcess runs it over the real handshake; nothing is skipped but what
// the backend does not have.
func TestBackendInAProcess(t *testing.T) {
	t.Parallel()
	TestConfig(t, Config{Command: self(t, "memory")})
}
