package host

import (
	"errors"
	"os/exec"
	"testing"

	"github.com/gpuwm/gpuwm/core"
)

// exitingTries is how often a process is watched while it ends.
const exitingTries = 5

// TestExitingProcessIsGone opens a process while the system takes it apart: it
// is there until it is gone, and nothing else. The memory of the process takes
// some milliseconds to free; that long it has no executable any more, and is
// not a zombie yet. It has one thread, so that this is the one that is looked at.
func TestExitingProcessIsGone(t *testing.T) {
	dd, err := exec.LookPath("dd")
	if err != nil {
		t.Skip(err)
	}
	for range exitingTries {
		cmd := exec.Command(dd, "if=/dev/zero", "bs=256M", "count=1")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// With the first byte its memory is full, and it waits for a reader of the rest.
		if _, err := out.Read(make([]byte, 1)); err != nil {
			t.Error("child:", err)
		}
		id, err := identify(cmd.Process.Pid)
		if err != nil {
			t.Error("identify:", err)
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
		for err == nil {
			var p *process
			if p, err = openProcess(core.InstanceRecord{Instance: "exiting", Process: id}); err == nil {
				p.close()
			}
		}
		if !errors.Is(err, core.ErrGone) {
			t.Errorf("open of a process that ends: %v", err)
		}
		_ = cmd.Wait()
	}
}
