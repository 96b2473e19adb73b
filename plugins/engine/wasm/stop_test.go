package wasm

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/engine"
)

// mix is the function of the same name in testdata/basic.c.
func mix(x uint64) uint64 {
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}

func seeded(t *testing.T) *rand.Rand {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 1))
}

// TestStopAndContinueAnywhere stops chained jobs, whose workgroups must run
// exactly once, at random points and goes on from what was done; each time in a
// new address space or the old one. The bytes must be those of plain arithmetic.
func TestStopAndContinueAnywhere(t *testing.T) {
	random := seeded(t)
	e := newEngine(t, Config{})
	const n = 8000
	segments := arena(t, false, pageSize)
	out := words(segments[0])
	want := make([]uint64, n)
	space, stops := uint64(1), 0
	for job := range uint64(30) {
		for i := range want {
			want[i] = mix(want[i] + job)
		}
		d := engine.Dispatch{Kernel: kernel(t, "basic"), Entry: "step", Args: []engine.Arg{buffer(segments[0]), scalar(job)},
			Grid: [3]uint32{20, 20, 20}, Segments: segments}
		for d.First < n {
			d.Count, d.Space = n-d.First, space
			x, over := start(t, e, d)
			for spin := random.IntN(2000); spin > 0; spin-- {
				x.Progress()
			}
			x.Stop()
			x.Stop()
			<-over
			r := x.Result()
			if done, executed := x.Progress(); r.Err != nil || done != r.Done || executed != r.Executed {
				t.Fatalf("result %+v, progress %d in %v", r, done, executed)
			}
			if d.First += r.Done; d.First < n {
				stops++
			}
			if random.IntN(3) == 0 {
				e.Forget(space)
				space++
			}
		}
		for i, w := range want {
			if out[i] != w {
				t.Fatalf("job %d, word %d: %#x, want %#x", job, i, out[i], w)
			}
		}
	}
	t.Logf("%d stops inside a job", stops)
	if stops == 0 {
		t.Error("no dispatch was stopped inside")
	}
}

func TestSpacesSideBySide(t *testing.T) {
	e := newEngine(t, Config{})
	reference := arena(t, false, pageSize, pageSize)
	run(t, e, fill(t, reference, 700))
	var wg sync.WaitGroup
	for space := range uint64(12) {
		segments := arena(t, space%2 == 1, pageSize, pageSize)
		d := fill(t, segments, 700)
		d.Space = space%6 + 10 // pairs share a space: the second gets an instance of its own
		wg.Go(func() {
			for range 5 {
				over := make(chan struct{})
				x, err := e.Start(d, func() { close(over) })
				if err != nil {
					t.Error(err)
					return
				}
				<-over
				if r := x.Result(); r.Err != nil || r.Done != 700 {
					t.Errorf("space %d: %+v", d.Space, r)
				}
			}
			if !bytes.Equal(segments[0].Bytes, reference[0].Bytes) {
				t.Errorf("space %d: other bytes", d.Space)
			}
		})
	}
	wg.Wait()
}

// mappings counts this process's mappings, and those of reserved address space.
func mappings(t *testing.T) (all int) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(b), "\n")
}

func TestNothingLeaks(t *testing.T) {
	e := newEngine(t, Config{})
	segments := arena(t, false, pageSize, pageSize)
	d := fill(t, segments, 70)
	bad := engine.Dispatch{Kernel: kernel(t, "faults"), Entry: "trap", Args: []engine.Arg{buffer(segments[0]), scalar(0)},
		Grid: [3]uint32{1, 1, 1}, Count: 1, Segments: segments}
	round := func(space uint64) {
		d.Space, bad.Space = space, space
		run(t, e, d)
		run(t, e, bad)
	}
	for space := range uint64(20) {
		round(space)
		e.Forget(space)
	}
	before, goroutines := mappings(t), runtime.NumGoroutine()
	for space := range uint64(300) {
		round(space)
		if space%2 == 0 {
			e.Forget(space)
		}
	}
	e.mu.Lock()
	idle := e.mu.idle
	e.mu.Unlock()
	if idle > instancesMax {
		t.Errorf("%d idle instances, limit %d", idle, instancesMax)
	}
	for space := range uint64(300) {
		e.Forget(space)
	}
	e.mu.Lock()
	for _, m := range e.mu.modules {
		if m.uses != 0 {
			t.Errorf("%d users of a kernel that nobody uses", m.uses)
		}
	}
	idle = e.mu.idle
	e.mu.Unlock()
	if idle != 0 {
		t.Errorf("%d idle instances after all spaces were forgotten", idle)
	}
	// The Go heap may have taken a few mappings meanwhile; each leaked space would be four or more.
	if after := mappings(t); after > before+50 {
		t.Errorf("%d mappings before, %d after 300 spaces", before, after)
	}
	// That of the last execution may still be on its way out; 600 executions that leaked one would show.
	if after := runtime.NumGoroutine(); after > goroutines+4 {
		t.Errorf("%d goroutines before, %d after", goroutines, after)
	}
}

func TestModulesAreBounded(t *testing.T) {
	e := newEngine(t, Config{})
	base := kernel(t, "own").Code
	for i := range modulesMax + 20 {
		name := fmt.Sprint(i)
		section := append([]byte{0, byte(len(name) + 2), byte(len(name))}, name...)
		code := append(append(bytes.Clone(base), section...), 1)
		k := core.Kernel{Format: core.FormatWasm, Code: code, Digest: core.DigestOf(code)}
		if err := e.Check(k, "ordered"); err != nil {
			t.Fatal(err)
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.mu.modules) != modulesMax {
		t.Errorf("%d modules kept, want %d", len(e.mu.modules), modulesMax)
	}
}
