//go:build crashpoints

// Package crash names the places in the code where a test may kill the
// process. This build kills: GPUWM_CRASH holds comma-separated `point` or
// `point:n` (the n-th time it is passed, default 1); GPUWM_CRASH_ONCE names a
// file that is created at the crash, and while it exists nothing crashes.
//
// GPUWM_STOP holds points of the same form at which the process stops itself
// with SIGSTOP, so that a test that is slow finds it where it wants it. It goes
// on at SIGCONT.
//
// GPUWM_CRASH_KEEP names a directory to which that of an instance that has ended
// is moved, with its counters, instead of being removed.
package crash

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// points counts down to what is planned at each point.
var points = struct {
	sync.Mutex
	crash, stop map[string]int
}{crash: parse(os.Getenv("GPUWM_CRASH")), stop: parse(os.Getenv("GPUWM_STOP"))}

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

// due counts a pass of a point and reports whether it is the planned one.
func due(left map[string]int, name string) bool {
	n, planned := left[name]
	if planned {
		left[name] = n - 1
	}
	return planned && n == 1
}

// Point stops the process, or kills it with SIGKILL, when the plan says so.
func Point(name string) {
	points.Lock()
	defer points.Unlock()
	if due(points.stop, name) {
		// To this thread: it stops before it goes on, and all others with it.
		_ = syscall.Tgkill(os.Getpid(), syscall.Gettid(), syscall.SIGSTOP)
	}
	if !due(points.crash, name) {
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

// Keep moves a directory that is about to be removed to where a test wants it,
// and reports whether it did.
func Keep(path string) bool {
	keep := os.Getenv("GPUWM_CRASH_KEEP")
	return keep != "" && os.Rename(path, filepath.Join(keep, filepath.Base(path))) == nil
}
