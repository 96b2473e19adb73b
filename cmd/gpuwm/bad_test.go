package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/gpuwm/gpuwm/cmd/gpuwm/cli"
)

// problem is the form of one problem with a file on standard error.
var problem = regexp.MustCompile(`^gpuwm: (\S+\.yaml):([1-9][0-9]*):([1-9][0-9]*): .+`)

// TestBadFiles runs every bad deployment file of the package configs: exit code
// 2, every problem with line and column, and nothing is created or changed.
// What exactly is said is held by the golden files there.
func TestBadFiles(t *testing.T) {
	path := binary(t, gpuwmBinary)
	files, err := filepath.Glob("../../configs/testdata/bad/*.yaml")
	if err != nil || len(files) < 20 {
		t.Fatalf("%d bad files: %v", len(files), err)
	}
	root := t.TempDir()
	if err := os.CopyFS(root, os.DirFS("../../configs/testdata")); err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			badFile(t, path, filepath.Join(root, "bad"), filepath.Base(file))
		})
	}
}

func badFile(t *testing.T, path, dir, file string) {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	args := []string{"run", file, "--data-dir", filepath.Join(home, "data"), "--output-dir", home}
	// Some samples are about the output directory and name it in their first line.
	first, _, _ := strings.Cut(string(content), "\n")
	if place, found := strings.CutPrefix(first, "# output-dir: "); found {
		args[len(args)-1] = place
	}
	before := tree(t, dir) + tree(t, home)
	p, err := start(path, dir, environment(home, home), args, nil)
	if err != nil {
		t.Fatal(err)
	}
	code, err := p.end()
	if err != nil {
		t.Fatal(err)
	}
	if code != cli.ExitUsage {
		t.Errorf("exit code %d, want %d\n%s", code, cli.ExitUsage, p.stderr())
	}
	if out := p.stdout.String(); out != "" {
		t.Errorf("standard output: %q", out)
	}
	count := 0
	for _, line := range lines(p.stderr()) {
		if m := problem.FindStringSubmatch(line); m != nil && m[1] == file {
			count++
		} else if !strings.HasPrefix(line, "hint: ") {
			t.Errorf("unexpected line %q", line)
		}
	}
	if strings.HasPrefix(file, "several") && count < 2 || count == 0 {
		t.Errorf("%d problems reported:\n%s", count, p.stderr())
	}
	if after := tree(t, dir) + tree(t, home); after != before {
		t.Errorf("files changed:\n%s\nwere:\n%s", after, before)
	}
}

// tree lists a directory with sizes and times.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var out strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		fmt.Fprintln(&out, path, info.Size(), info.Mode(), info.ModTime().UnixNano())
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}
