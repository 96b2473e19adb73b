package host

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/gpuwm/gpuwm/core"
)

// TestMovedDataDirectory: the process of a directory that was renamed is ended by
// who finds its record there; nobody else can.
func TestMovedDataDirectory(t *testing.T) {
	b := start(t, nil)
	moved := filepath.Join(t.TempDir(), "instances")
	if err := os.Rename(b.l.config.Dir, moved); err != nil {
		t.Fatal(err)
	}
	l, _ := newLauncher(t, func(c *Config) { c.Dir = moved })
	if inst, err := l.Adopt(t.Context(), b.record); err == nil || errors.Is(err, core.ErrGone) {
		t.Errorf("adopt: %v, %v", inst, err)
	}
	if err := l.End(t.Context(), b.record); err != nil {
		t.Fatal(err)
	}
	if _, err := startTicks(b.record.Process.PID); !errors.Is(err, core.ErrGone) {
		t.Errorf("the process lives on: %v", err)
	}
	if _, err := l.Usage(b.record); err != nil {
		t.Error(err)
	}
	if err := l.Discard(b.record); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(moved); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// TestCopiedDataDirectory: whoever has a copy neither ends the process of the
// original nor takes its sockets away.
func TestCopiedDataDirectory(t *testing.T) {
	b := start(t, nil)
	copied := filepath.Join(t.TempDir(), "instances")
	mine := filepath.Join(copied, b.record.Instance)
	if err := os.MkdirAll(mine, 0o700); err != nil {
		t.Fatal(err)
	}
	sockets, err := os.Readlink(filepath.Join(b.record.Directory, socketsName))
	if err == nil {
		err = os.Symlink(sockets, filepath.Join(mine, socketsName))
	}
	if err != nil {
		t.Fatal(err)
	}
	l, _ := newLauncher(t, func(c *Config) { c.Dir = copied })
	if _, err := l.Adopt(t.Context(), b.record); !errors.Is(err, core.ErrGone) {
		t.Errorf("adopt: %v", err)
	}
	if err := l.End(t.Context(), b.record); err != nil {
		t.Error(err)
	}
	if err := l.Sweep(func(string) bool { return false }); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(mine); !os.IsNotExist(err) {
		t.Errorf("the copy of the instance's directory is there: %v", err)
	}
	if _, err := os.Stat(b.record.Address); err != nil {
		t.Errorf("the socket of the original: %v", err)
	}
	if _, err := startTicks(b.record.Process.PID); err != nil {
		t.Errorf("the process of the original: %v", err)
	}
}
