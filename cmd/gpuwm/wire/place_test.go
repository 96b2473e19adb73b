package wire

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/gpuwm/gpuwm/cmd/gpuwm/cli"
	"github.com/gpuwm/gpuwm/configs"
	"github.com/gpuwm/gpuwm/store"
)

// TestHeldDataDirectoryHasAHint: who holds it, and what to do about it.
func TestHeldDataDirectoryHasAHint(t *testing.T) {
	dir := t.TempDir()
	db, err := store.Open(dir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	request := cli.RunRequest{
		Settings: &configs.Settings{DataDir: dir}, Progress: cli.NewProgress(&bytes.Buffer{}, cli.ProgressOptions{}),
	}
	_, err = Run(t.Context(), request)
	var out bytes.Buffer
	cli.PrintError(&out, err)
	if code := cli.ExitCode(err); code != cli.ExitFailed {
		t.Errorf("exit code %d", code)
	}
	if want := fmt.Sprintf("held by pid %d", os.Getpid()); !strings.Contains(out.String(), want) ||
		!strings.Contains(out.String(), "\nhint: wait for that process, or use another --data-dir\n") {
		t.Errorf("%s", out.String())
	}
}

func TestHintsAboutThePlace(t *testing.T) {
	for _, c := range []struct {
		err  error
		hint string
	}{
		{syscall.EROFS, "use a --data-dir that can be written"},
		{syscall.EACCES, "use a --data-dir that can be written"},
		{syscall.ENOSPC, "make room there, or use another --data-dir"},
		{syscall.EDQUOT, "make room there, or use another --data-dir"},
		{syscall.EIO, ""},
	} {
		var out bytes.Buffer
		cli.PrintError(&out, placed(fmt.Errorf("open data directory: %w", &os.PathError{Op: "open", Path: "/x", Err: c.err})))
		_, hint, _ := strings.Cut(out.String(), "\nhint: ")
		if strings.TrimSpace(hint) != c.hint {
			t.Errorf("%v: %q", c.err, out.String())
		}
		out.Reset()
		cli.PrintError(&out, roomy(c.err))
		if room := strings.Contains(c.hint, "make room"); strings.Contains(out.String(), "hint: ") != room {
			t.Errorf("%v: %q", c.err, out.String())
		}
	}
}
