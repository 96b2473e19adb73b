package wasm

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/engine"
)

const childHang = "GPUWM_TEST_HANG"

// sink keeps garbage from being optimised away.
var sink []byte

// hang fills every core with workgroups that never end, then works on as a
// plugin would: it allocates far more than a collection's worth, asks, stops,
// and runs another space.
func hang(t *testing.T) {
	e, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	segments := arena(t, false, pageSize, pageSize)
	d := engine.Dispatch{Kernel: kernel(t, "faults"), Entry: "endless", Args: []engine.Arg{buffer(segments[0]), scalar(20)},
		Grid: [3]uint32{100, 1, 1}, Count: 100, Space: 1, Segments: segments}
	var stuck []engine.Execution
	for range runtime.NumCPU() {
		d.Space++
		x, err := e.Start(d, func() { fmt.Println("an endless dispatch ended") })
		if err != nil {
			t.Fatal(err)
		}
		stuck = append(stuck, x)
	}
	for _, x := range stuck {
		// The other workers finish all but the one workgroup; with one core, those before it.
		want := uint64(99)
		if runtime.NumCPU() == 1 {
			want = 20
		}
		for n, _ := x.Progress(); n < want; n, _ = x.Progress() {
			runtime.Gosched()
		}
		x.Stop()
		x.Stop()
	}
	for range 4 * heapMin / (64 << 10) {
		sink = make([]byte, 64<<10)
	}
	d = fill(t, arena(t, false, pageSize, pageSize), 7000)
	d.Space = 100
	if r := run(t, e, d); r.Err != nil || r.Done != 7000 {
		t.Fatalf("another space: %+v", r)
	}
	e.Forget(2)
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	fmt.Println("alive")
	os.Exit(0)
}

// TestEndlessWorkgroupLeavesTheProcessAlive runs itself in another process,
// since nothing else can end what hang starts.
func TestEndlessWorkgroupLeavesTheProcessAlive(t *testing.T) {
	if os.Getenv(childHang) != "" {
		hang(t)
	}
	child := exec.Command(os.Args[0], "-test.timeout=2m", "-test.run=^"+t.Name()+"$")
	child.Env = append(os.Environ(), childHang+"=1")
	out, err := child.CombinedOutput()
	if err != nil || !bytes.Equal(out, []byte("alive\n")) {
		t.Fatalf("child: %v\n%s", err, out)
	}
}

// TestCollectionsHappenBetweenWorkgroups allocates much while kernels run: the
// heap must be collected, by the gate, and the kernels come to their end.
func TestCollectionsHappenBetweenWorkgroups(t *testing.T) {
	e := newEngine(t, Config{})
	segments := arena(t, false, pageSize)
	d := engine.Dispatch{Kernel: kernel(t, "basic"), Entry: "spin", Args: []engine.Arg{buffer(segments[0]), scalar(20_000)},
		Grid: [3]uint32{1 << 20, 1, 1}, Count: 1 << 20, Space: 1, Segments: segments}
	before := processGate.collections.Load()
	x, over := start(t, e, d)
	for processGate.collections.Load() < before+3 {
		sink = make([]byte, 64<<10)
		if heapBytes() > 4<<30 {
			t.Fatal("the heap is never collected")
		}
	}
	x.Stop()
	<-over
	if r := x.Result(); r.Err != nil || r.Done == 0 {
		t.Errorf("%+v", r)
	}
}

func TestGateGivesUpOnALongWorkgroup(t *testing.T) {
	g := newGate()
	var on atomic.Bool // nobody says stop
	p, _ := g.enter(&on)
	if g.collect(1) {
		t.Error("collected while a worker was inside a workgroup")
	}
	if g.ready() {
		t.Error("ready to park the others again, though one is still inside")
	}
	other, _ := g.enter(&on) // must not park: the collection was given up
	g.boundary(&other, &on)
	if g.ready() {
		t.Error("a newcomer counted for the one still inside")
	}
	g.boundary(&p, &on)
	if !g.ready() {
		t.Error("not ready though all have passed a boundary")
	}
	g.leave(p)
	g.leave(other)
	if !g.collect(gatherMax) || !g.ready() || g.running != 0 {
		t.Error("did not collect though nobody was inside")
	}
}

// TestHeapHasABound: garbage that a long workgroup keeps from being collected
// makes the engine fail before it fills the machine.
func TestHeapHasABound(t *testing.T) {
	g := newGate()
	g.room, g.patience = 1, 3
	failed := make(chan error, 8)
	e := &Engine{config: Config{Failed: func(err error) { failed <- err }}}
	g.open(e)
	var on atomic.Bool
	p, _ := g.enter(&on)
	garbage := make([]byte, 2*heapMin)
	if err := <-failed; !errors.Is(err, core.ErrFull) {
		t.Error(err)
	}
	runtime.KeepAlive(garbage)
	g.leave(p)
	g.close(e)
}

// TestStopDuringACollection: workers that wait for a collection, which waits for
// another dispatch's long workgroup, leave at once when they are told to stop.
func TestStopDuringACollection(t *testing.T) {
	e := newEngine(t, Config{})
	spin := func(space, count, rounds uint64) (engine.Execution, chan struct{}) {
		segments := arena(t, false, pageSize)
		return start(t, e, engine.Dispatch{Kernel: kernel(t, "basic"), Entry: "spin", Args: []engine.Arg{buffer(segments[0]), scalar(rounds)},
			Grid: [3]uint32{uint32(count), 1, 1}, Count: count, Space: space, Segments: segments})
	}
	_, longOver := spin(1, 1, 300_000_000)
	inside := func() int {
		processGate.mu.Lock()
		defer processGate.mu.Unlock()
		return processGate.running
	}
	for inside() == 0 {
		runtime.Gosched()
	}
	many, manyOver := spin(2, 1<<20, 20_000)
	for n, _ := many.Progress(); n == 0; n, _ = many.Progress() {
		runtime.Gosched()
	}
	collected := make(chan bool)
	go func() { collected <- processGate.collect(time.Minute) }()
	for processGate.call.Load()%2 == 0 || inside() > 1 {
		runtime.Gosched()
	}
	// Begins while the others park: it gets no further than the gate.
	late, lateOver := spin(3, 1<<20, 20_000)
	many.Stop()
	late.Stop()
	<-manyOver
	<-lateOver
	if inside() == 0 || processGate.call.Load()%2 == 0 {
		t.Error("the stop waited for another dispatch's workgroup")
	}
	<-longOver
	if !<-collected {
		t.Error("nothing was collected")
	}
}
