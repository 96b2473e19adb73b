package house

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"github.com/gpuwm/gpuwm/plugins/engine/wasm"
)

// TestKernelsOfThePaper builds the kernels of docs/kernels.md with the commands
// that stand there, and inspects them.
func TestKernelsOfThePaper(t *testing.T) {
	for _, tool := range []string{"clang-14", "clang++-14", "wasm-ld-14"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	text := paper(t, "docs/kernels.md")
	block := func(language string) []byte {
		m := regexp.MustCompile("(?s)```"+regexp.QuoteMeta(language)+"\n(.*?)```").FindAllStringSubmatch(text, -1)
		if len(m) != 1 {
			t.Fatalf("docs/kernels.md has %d blocks of %s, want 1", len(m), language)
		}
		return []byte(m[0][1])
	}
	dir := t.TempDir()
	top, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(top, "configs"), filepath.Join(dir, "configs")); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"scale.c": block("c"), "saxpy.cpp": block("cpp")} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("sh", "-euc", string(block("sh")))
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	for name, entry := range map[string]string{"scale.wasm": "scale", "saxpy.wasm": "saxpy"} {
		code, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		in, err := wasm.Inspect(code)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !slices.Equal(in.Entries, []string{entry}) || !in.Cores || len(in.Declared[entry]) == 0 {
			t.Errorf("%s: %+v, want the entry %s with declared arguments, on all cores", name, in, entry)
		}
	}
}
