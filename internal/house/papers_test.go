package house

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func paper(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestReadme keeps the first page short, and its two commands as they are known.
func TestReadme(t *testing.T) {
	text := paper(t, "README.md")
	const linesMax = 200
	if lines := strings.Count(text, "\n"); lines >= linesMax {
		t.Errorf("README.md has %d lines, want fewer than %d", lines, linesMax)
	}
	for _, command := range []string{"go run ./cmd/gpuwm run configs/mersenne.yaml", "go test ./..."} {
		if !regexp.MustCompile(`(?m)^\s*` + regexp.QuoteMeta(command) + `$`).MatchString(text) {
			t.Errorf("README.md has no line %q", command)
		}
	}
}

// link is the target of a Markdown link that stays inside the repository.
var link = regexp.MustCompile(`\]\(([^)#:\s]+)(#[^)]*)?\)`)

// TestLinks wants what the papers point to.
func TestLinks(t *testing.T) {
	count := 0
	eachFile(t, func(path string, content []byte) {
		if filepath.Ext(path) != ".md" {
			return
		}
		for _, m := range link.FindAllSubmatch(content, -1) {
			count++
			target := filepath.Join(root, filepath.Dir(path), string(m[1]))
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s points to %s, which is not there", path, m[1])
			}
		}
	})
	if count == 0 {
		t.Error("no links found")
	}
}

// TestPackageMap wants every package to stand in the map of ARCHITECTURE.md,
// and nothing else.
func TestPackageMap(t *testing.T) {
	_, section, found := strings.Cut(paper(t, "ARCHITECTURE.md"), "\n## Package map\n")
	if !found {
		t.Fatal("ARCHITECTURE.md has no section \"Package map\"")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	mapped := make(map[string]bool)
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(section, -1) {
		mapped[m[1]] = true
	}
	for _, p := range list(t) {
		if !mapped[p.path()] {
			t.Errorf("package %s is not in the package map of ARCHITECTURE.md", p.path())
		}
		delete(mapped, p.path())
	}
	for path := range mapped {
		t.Errorf("the package map of ARCHITECTURE.md names %s, and there is no such package", path)
	}
}
