package usage

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
)

const childFile = "GPUWM_TEST_USAGE_FILE"

// TestMain doubles as the child that counts until it is killed.
func TestMain(m *testing.M) {
	if path := os.Getenv(childFile); path != "" {
		countForEver(path)
	}
	os.Exit(m.Run())
}

// countForEver writes a line after each thousand counts: what the parent has
// read must be in the file.
func countForEver(path string) {
	u, err := Open(path)
	if err != nil {
		os.Stdout.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
	for {
		for range 1000 {
			u.Slot(7, 3).Add(1)
		}
		if _, err := os.Stdout.WriteString("thousand\n"); err != nil {
			os.Exit(1)
		}
	}
}

func mustOpen(t *testing.T, path string) *File {
	t.Helper()
	u, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = u.Close() })
	return u
}

func mustRead(t *testing.T, path string) map[Key]uint64 {
	t.Helper()
	m, err := Read(path)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestCountsSurviveReopening(t *testing.T) {
	path := filepath.Join(t.TempDir(), "usage")
	u := mustOpen(t, path)
	u.Slot(1, 1).Add(5)
	u.Slot(1, 2).Add(6)
	if got := mustRead(t, path); got[Key{Job: 1, Epoch: 1}] != 5 || got[Key{Job: 1, Epoch: 2}] != 6 || len(got) != 2 {
		t.Fatalf("while open: %v", got)
	}
	if err := u.Close(); err != nil {
		t.Fatal(err)
	}
	again := mustOpen(t, path)
	again.Slot(1, 1).Add(1)
	again.Slot(2, 1).Add(1)
	if got := mustRead(t, path); got[Key{Job: 1, Epoch: 1}] != 6 || got[Key{Job: 2, Epoch: 1}] != 1 || len(got) != 3 {
		t.Fatalf("after reopening: %v", got)
	}
}

func TestKilledChildLosesNoCount(t *testing.T) {
	path := filepath.Join(t.TempDir(), "usage")
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), childFile+"="+path)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for range 50 {
		if !lines.Scan() || lines.Text() != "thousand" {
			t.Fatalf("child said %q: %v", lines.Text(), lines.Err())
		}
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait()
	if got := mustRead(t, path)[Key{Job: 7, Epoch: 3}]; got < 50_000 {
		t.Fatalf("%d counts in the file, the child had reported at least 50000", got)
	}
}

func TestConcurrentCountsAreExact(t *testing.T) {
	path := filepath.Join(t.TempDir(), "usage")
	u := mustOpen(t, path)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 1000 {
				u.Slot(core.JobID(1+i%10), 1).Add(1)
			}
		})
	}
	wg.Wait()
	for job, got := range mustRead(t, path) {
		if got != 800 {
			t.Errorf("job %v: %d, want 800", job, got)
		}
	}
}

func TestFullFileReusesTheOldest(t *testing.T) {
	path := filepath.Join(t.TempDir(), "usage")
	u := mustOpen(t, path)
	for i := range Slots + 2 {
		u.Slot(core.JobID(i+1), 1).Add(uint64(i))
	}
	got := mustRead(t, path)
	if len(got) != Slots {
		t.Fatalf("%d counts, want %d", len(got), Slots)
	}
	for _, gone := range []core.JobID{1, 2} {
		if _, there := got[Key{Job: gone, Epoch: 1}]; there {
			t.Errorf("job %d is still there", gone)
		}
	}
	if got[Key{Job: 3, Epoch: 1}] != 2 || got[Key{Job: Slots + 2, Epoch: 1}] != Slots+1 {
		t.Errorf("counts moved: %d, %d", got[Key{Job: 3, Epoch: 1}], got[Key{Job: Slots + 2, Epoch: 1}])
	}
}

func TestNilFileCountsPrivately(t *testing.T) {
	var u *File
	if u.Slot(1, 1).Add(1) != 1 {
		t.Error("no private counter")
	}
	if err := u.Close(); err != nil {
		t.Error(err)
	}
}

func TestReadRefusesDamage(t *testing.T) {
	if got := mustRead(t, filepath.Join(t.TempDir(), "none")); len(got) != 0 {
		t.Errorf("missing file: %v", got)
	}
	path := filepath.Join(t.TempDir(), "usage")
	u := mustOpen(t, path)
	u.Slot(1, 1).Add(1)
	u.Slot(2, 1).Add(1)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, damage := range map[string]func([]byte) []byte{
		"short":   func(b []byte) []byte { return b[:100] },
		"long":    func(b []byte) []byte { return append(b, 0) },
		"magic":   func(b []byte) []byte { b[0] = 'x'; return b },
		"version": func(b []byte) []byte { b[offVersion] = 9; return b },
		"slots":   func(b []byte) []byte { b[offSlotSize] = 9; return b },
		"twice":   func(b []byte) []byte { b[offset(1)] = 1; return b },
	} {
		bad := filepath.Join(t.TempDir(), "bad")
		if err := os.WriteFile(bad, damage([]byte(strings.Clone(string(good)))), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(bad); !errors.Is(err, core.ErrCorrupt) {
			t.Errorf("%s: read: %v", name, err)
		}
		if _, err := Open(bad); !errors.Is(err, core.ErrCorrupt) {
			t.Errorf("%s: open: %v", name, err)
		}
	}
}

// TestReadRefusesWhatIsNoFile: a plugin that puts something else in the place of
// its usage file can neither block the reader nor have it read another file.
func TestReadRefusesWhatIsNoFile(t *testing.T) {
	dir := t.TempDir()
	good := filepath.Join(dir, "good")
	mustOpen(t, good).Slot(1, 1).Add(1)
	for name, place := range map[string]func(path string) error{
		"fifo":      func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"link":      func(path string) error { return os.Symlink(good, path) },
		"directory": func(path string) error { return os.Mkdir(path, 0o700) },
		"device":    func(path string) error { return os.Symlink("/dev/zero", path) },
		"sparse": func(path string) error {
			return errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, 1<<40))
		},
	} {
		path := filepath.Join(dir, name)
		if err := place(path); err != nil {
			t.Fatal(err)
		}
		done := time.AfterFunc(10*time.Second, func() { panic(name + ": the reader is blocked") })
		if got, err := Read(path); !errors.Is(err, core.ErrCorrupt) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
		done.Stop()
	}
}
