package pythonplugin

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gpuwm/gpuwm/sdk/host"
	"github.com/gpuwm/gpuwm/sdk/plugintest"
)

// required is the variable that makes the test fail where it would be skipped.
const required = "GPUWM_PYTHON_REQUIRED"

// TestPlugin runs the conformance kit on the plugin, at the level that it declares.
func TestPlugin(t *testing.T) {
	path, err := assemble(t.TempDir())
	if err != nil && os.Getenv(required) == "" {
		t.Skipf("%v; on Debian: apt-get install python3-grpcio python3-protobuf protobuf-compiler", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	plugintest.TestConfig(t, plugintest.Config{Command: host.Command{Path: path}})
}

// assemble puts the plugin into dir as an executable: its files, the compiled
// messages, and a first line that names an interpreter with the modules it needs.
func assemble(dir string) (string, error) {
	python, err := interpreter()
	if err != nil {
		return "", err
	}
	if out, err := exec.Command("protoc", "-I", "../../api/v1", "--python_out="+dir, "backend.proto").CombinedOutput(); err != nil {
		return "", fmt.Errorf("compile backend.proto: %w\n%s", err, out)
	}
	files, err := filepath.Glob("*.py")
	if err != nil {
		return "", err
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			return "", err
		}
		if _, rest, found := strings.Cut(string(b), "\n"); found && name == "plugin.py" {
			b = []byte("#!" + python + "\n" + rest)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o755); err != nil {
			return "", err
		}
	}
	return filepath.Join(dir, "plugin.py"), nil
}

// interpreter finds a Python that has the modules. The first one in PATH need not
// be the one that the system's packages belong to.
func interpreter() (string, error) {
	var why []string
	for _, name := range []string{"python3", "/usr/bin/python3"} {
		// The real path: what stands in PATH may be a script that chooses one.
		out, err := exec.Command(name, "-c", "import grpc, google.protobuf, sys; print(sys.executable)").CombinedOutput()
		text := strings.TrimSpace(string(out))
		if err == nil && filepath.IsAbs(text) {
			return text, nil
		}
		lines := strings.Split(text, "\n")
		why = append(why, fmt.Sprintf("%s: %v %s", name, err, lines[len(lines)-1]))
	}
	return "", fmt.Errorf("no Python with the modules grpc and google.protobuf: %s", strings.Join(why, "; "))
}
