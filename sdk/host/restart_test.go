package host

import (
	"bytes"
	"os"
	"runtime"
	"strconv"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/sdk/internal/memory"
)

// restartsEnv sets how many restarts TestRestartsAreFlat makes; without it a few.
const (
	restartsEnv = "GPUWM_RESTARTS"
	restartsFew = 40
	// warmUp restarts come before the first look: pools fill, the heap finds its size.
	warmUp = 16
	// sideBySide is how many plugins live at once: their ends are mostly waiting.
	sideBySide = 8
)

// footprint is what restarts could leave behind.
type footprint struct {
	descriptors, goroutines, directories, sockets int
	heap                                          uint64
}

func look(t *testing.T, l *Launcher, sockets string) footprint {
	t.Helper()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	count := func(dir string) int {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	return footprint{
		descriptors: count("/proc/self/fd"), goroutines: runtime.NumGoroutine(),
		directories: count(l.config.Dir), sockets: count(sockets), heap: m.HeapAlloc,
	}
}

// TestRestartsAreFlat starts a plugin, runs a job in it and ends it, in turn by
// request and by SIGKILL, many times: descriptors, goroutines, sockets,
// directories and memory stay as they are.
func TestRestartsAreFlat(t *testing.T) {
	rounds := restartsFew
	if s := os.Getenv(restartsEnv); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			t.Fatalf("%s=%s: want a positive number", restartsEnv, s)
		}
		rounds = n
	}
	sockets := t.TempDir()
	t.Setenv("XDG_RUNTIME_DIR", sockets)
	l, log := newLauncher(t, nil)
	lives(t, l, log, warmUp)
	before := look(t, l, sockets)
	lives(t, l, log, rounds)
	after := look(t, l, sockets)
	t.Logf("%d restarts: before %+v, after %+v", rounds, before, after)
	if after.descriptors > before.descriptors || after.goroutines > before.goroutines ||
		after.directories > before.directories || after.sockets > before.sockets {
		t.Errorf("before %+v, after %d restarts %+v", before, rounds, after)
	}
	// A leak of a page for each restart would show at 1,000 of them.
	if limit := before.heap + 1<<20 + uint64(rounds)*1024; after.heap > limit {
		t.Errorf("heap of %d bytes before, %d after %d restarts, want at most %d", before.heap, after.heap, rounds, limit)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.mu.live) != 0 {
		t.Errorf("%d instances are still attached", len(l.mu.live))
	}
}

// lives has so many plugin processes live and die, several side by side.
func lives(t *testing.T, l *Launcher, log *syncBuffer, count int) {
	t.Helper()
	var begun atomic.Int64
	t.Run(strconv.Itoa(count), func(t *testing.T) {
		for range sideBySide {
			t.Run("", func(t *testing.T) {
				t.Parallel()
				for n := begun.Add(1); n <= int64(count); n = begun.Add(1) {
					oneLife(t, l, n%2 == 1)
				}
			})
		}
	})
	log.mu.Lock()
	defer log.mu.Unlock()
	log.buf = bytes.Buffer{}
}

// oneLife is one plugin process from its start to its end.
func oneLife(t *testing.T, l *Launcher, kill bool) {
	t.Helper()
	b := &bench{t: t, l: l, events: make(chan core.BackendEvent, 64), log: &syncBuffer{}}
	prepared, err := l.Prepare("memory", []core.DeviceSpec{{Name: "d0"}})
	if err != nil {
		t.Fatal(err)
	}
	if b.inst, b.record, err = l.Start(t.Context(), prepared); err != nil {
		t.Fatal(err)
	}
	k := b.open(1)
	b.create(k, 1, 1, []byte{1})
	k.Send([]core.Command{runCommand(1, 1, 2, 1, memory.Fill)})
	b.expect(core.EventStarted)
	b.expect(core.EventCompleted)
	if kill {
		if err := unix.Kill(b.record.Process.PID, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		<-b.inst.Gone()
	}
	k.Close()
	if err := l.End(t.Context(), b.record); err != nil {
		t.Fatal(err)
	}
	b.inst.Detach()
	if err := l.Discard(b.record); err != nil {
		t.Fatal(err)
	}
}
