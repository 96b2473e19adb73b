package host

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"testing"

	"github.com/gpuwm/gpuwm/core"
)

const (
	exitingChild = "GPUWM_TEST_EXITING"
	// exitingBytes take the system some milliseconds to free: that long the
	// process has no executable any more, and is not a zombie yet.
	exitingBytes = 512 << 20
	exitingTries = 5
)

// TestExitingProcessIsGone opens a process while the system takes it apart: it
// is there until it is gone, and nothing else.
func TestExitingProcessIsGone(t *testing.T) {
	if os.Getenv(exitingChild) != "" {
		hold := make([]byte, exitingBytes)
		for i := 0; i < len(hold); i += os.Getpagesize() {
			hold[i] = 1
		}
		_, _ = os.Stdout.WriteString("ready\n")
		select {}
	}
	for range exitingTries {
		cmd := exec.Command(os.Args[0], "-test.run=^TestExitingProcessIsGone$")
		cmd.Env = append(os.Environ(), exitingChild+"=1")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
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
