package scaffold

import (
	"errors"
	"go/format"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gpuwm/gpuwm/core"
)

// checkout makes what Write reads of a checkout of gpuwm.
func checkout(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "a checkout")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const ownModule = "module " + Module + "\n\ngo 1.26.0\n\nrequire example.org/x v1.0.0\n"

// TestModule: requirements and sums are those of the checkout, also one whose path
// has a space; what is written is formatted, and names the backend.
func TestModule(t *testing.T) {
	source := checkout(t, map[string]string{"go.mod": ownModule, "go.sum": "sums\n"})
	dir := filepath.Join(t.TempDir(), "new")
	files, err := Write("acme-2", dir, source)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.IsSorted(files) {
		t.Errorf("files %v are not sorted", files)
	}
	for _, name := range files {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(b), "@NAME@") {
			t.Errorf("%s is not filled in", name)
		}
		if formatted, err := format.Source(b); filepath.Ext(name) == ".go" && (err != nil || string(formatted) != string(b)) {
			t.Errorf("%s is not formatted: %v", name, err)
		}
	}
	want := "module gpuwm-acme-2\n\ngo 1.26.0\n\nrequire example.org/x v1.0.0\n\nrequire " + Module + " v0.0.0\n\nreplace " + Module + ` => "` + source + "\"\n"
	if b, err := os.ReadFile(filepath.Join(dir, "go.mod")); err != nil || string(b) != want {
		t.Errorf("%v, go.mod is\n%s\nwant\n%s", err, b, want)
	}
	if b, _ := os.ReadFile(filepath.Join(dir, "go.sum")); string(b) != "sums\n" {
		t.Errorf("go.sum is %q", b)
	}
	if _, err := Write("acme-2", dir, source); !errors.Is(err, core.ErrExists) {
		t.Errorf("a second time: %v, want %v", err, core.ErrExists)
	}
}

// TestNothingIsLeftBehind: neither the directory nor what it was made from.
func TestNothingIsLeftBehind(t *testing.T) {
	whole := checkout(t, map[string]string{"go.mod": ownModule, "go.sum": "sums\n"})
	for what, c := range map[string]struct {
		name, source string
		want         error
	}{
		"capitals":      {"Acme", whole, ErrName},
		"empty":         {"", whole, ErrName},
		"digit first":   {"2acme", whole, ErrName},
		"hyphen last":   {"acme-", whole, ErrName},
		"a path":        {"../acme", whole, ErrName},
		"long":          {strings.Repeat("a", nameMax+1), whole, ErrName},
		"another":       {"acme", checkout(t, map[string]string{"go.mod": "module example.org/x\n"}), ErrSource},
		"no module":     {"acme", checkout(t, nil), ErrSource},
		"without sums":  {"acme", checkout(t, map[string]string{"go.mod": ownModule}), os.ErrNotExist},
		"no such place": {"acme", filepath.Join(whole, "x"), ErrSource},
	} {
		parent := t.TempDir()
		if _, err := Write(c.name, filepath.Join(parent, "new"), c.source); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", what, err, c.want)
		}
		if entries, err := os.ReadDir(parent); err != nil || len(entries) > 0 {
			t.Errorf("%s: %v is left behind, %v", what, entries, err)
		}
	}
	parent := t.TempDir()
	if _, err := write(filepath.Join(parent, "new"), map[string][]byte{"sub/x": nil}); err == nil {
		t.Error("a file in a directory that is not there was written")
	}
	if entries, _ := os.ReadDir(parent); len(entries) > 0 {
		t.Errorf("%v is left behind", entries)
	}
}
