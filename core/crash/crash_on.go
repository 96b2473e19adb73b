//go:build crashpoints

// Package crash names the places in the code where a test may kill the
// process. This build kills: GPUWM_CRASH holds comma-separated `point` or
// `point:n` (the n-th time it is passed, default 1); GPUWM_CRASH_ONCE names a
// file that is created at the crash, and while it exists nothing crashes.
package crash

import (
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

var points = struct {
	sync.Mutex
	left map[string]int
}{left: parse(os.Getenv("GPUWM_CRASH"))}

func parse(plan string) map[string]int {
	left := make(map[string]int)
	for _, item := range strings.Split(plan, ",") {
		name, count, found := strings.Cut(item, ":")
		n := 1
		if found {
			n, _ = strconv.Atoi(count)
		}
		if name != "" {
			left[name] = n
		}
	}
	return left
}

// Point kills the process with SIGKILL when the plan says so.
func Point(name string) {
	points.Lock()
	defer points.Unlock()
	n, planned := points.left[name]
	if !planned {
		return
	}
	points.left[name] = n - 1
	if n != 1 {
		return
	}
	if once := os.Getenv("GPUWM_CRASH_ONCE"); once != "" {
		f, err := os.OpenFile(once, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return
		}
		_, _ = f.WriteString(name + "\n")
		_ = f.Close()
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}
