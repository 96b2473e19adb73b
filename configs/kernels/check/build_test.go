package check

import (
	"os/exec"
	"testing"
)

// TestCommittedModulesComeFromTheSources builds again where the compiler is.
func TestCommittedModulesComeFromTheSources(t *testing.T) {
	for _, tool := range []string{"clang-14", "clang++-14", "wasm-ld-14"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	if out, err := exec.Command("../build", "--check").CombinedOutput(); err != nil {
		t.Errorf("build --check: %v\n%s", err, out)
	}
}
