package store

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
)

// holdLock locks dir as somebody else, who left a note.
func holdLock(t *testing.T, dir string, pid int) *os.File {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(f, "pid %d, since then\n", pid); err != nil {
		t.Fatal(err)
	}
	return f
}

// TestLockOfDeadHolder: the holder was killed while it started a child, and the
// child has the lock for a moment longer.
func TestLockOfDeadHolder(t *testing.T) {
	gone := exec.Command("true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	held := holdLock(t, dir, gone.Process.Pid)
	time.AfterFunc(2*lockPause, func() { _ = held.Close() })
	f, err := takeLock(dir, "now")
	if err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
}

// TestLockOfLivingHolder is refused, and says by whom it is held.
func TestLockOfLivingHolder(t *testing.T) {
	dir := t.TempDir()
	holdLock(t, dir, os.Getpid())
	_, err := takeLock(dir, "now")
	if !errors.Is(err, core.ErrBusy) {
		t.Fatalf("got %v, want %v", err, core.ErrBusy)
	}
}
