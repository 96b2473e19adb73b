package wasm

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/gpuwm/gpuwm/core"
)

const childNoMemory = "GPUWM_TEST_NO_MEMORY"

// TestSystemWithoutMemoryIsNoFault runs itself in another process, which takes
// address space away from itself.
func TestSystemWithoutMemoryIsNoFault(t *testing.T) {
	if os.Getenv(childNoMemory) == "" {
		child := exec.Command(os.Args[0], "-test.timeout=2m", "-test.run=^"+t.Name()+"$")
		child.Env = append(os.Environ(), childNoMemory+"=1")
		if out, err := child.CombinedOutput(); err != nil {
			t.Fatalf("child: %v\n%s", err, out)
		}
		return
	}
	e := newEngine(t, Config{})
	d := fill(t, arena(t, false, pageSize, pageSize), 7)
	if err := e.Check(d.Kernel, d.Entry); err != nil { // Compiles it.
		t.Fatal(err)
	}
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	var pages uint64
	if _, err := fmt.Sscan(string(statm), &pages); err != nil {
		t.Fatal(err)
	}
	// Room for the Go runtime, and less than the kernel's address space.
	room := pages*uint64(os.Getpagesize()) + 256<<20
	if err := syscall.Setrlimit(syscall.RLIMIT_AS, &syscall.Rlimit{Cur: room, Max: room}); err != nil {
		t.Fatal(err)
	}
	var fault *core.FaultError
	if r := run(t, e, d); !errors.Is(r.Err, syscall.ENOMEM) || errors.As(r.Err, &fault) {
		t.Errorf("result %+v", r)
	}
}
