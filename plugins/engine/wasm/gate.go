package wasm

import (
	"fmt"
	"maps"
	"math"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gpuwm/gpuwm/core"
)

// Limits of the gate.
const (
	// heapMin is the smallest heap that is worth a collection.
	heapMin = 64 << 20
	// heapFactor times the live heap is when the next collection is due; the
	// same as GOGC=100.
	heapFactor = 2
	// gateInterval is how often the size of the heap is looked at.
	gateInterval = 50 * time.Millisecond
	// A collection waits between these bounds for workers to reach a boundary;
	// the bound doubles while they do not, so that long workgroups get one too.
	gatherMin = 50 * time.Millisecond
	gatherMax = 10 * time.Second
	// heapRoom is how far the heap may grow beyond what the last collection left.
	// Where it stays above for heapPatience looks without a collection, because
	// some workgroup does not end, the engines are reported as failed.
	heapRoom     = 2 << 30
	heapPatience = int(gatherMax / gateInterval)
	// workersPerCore bounds, over all engines of the process, the workers that
	// get a processor of the Go scheduler each: four dispatches side by side at
	// full width. Dispatches beyond that get one worker each.
	workersPerCore = 4
)

// gate keeps garbage collections and running kernels apart. There is one per
// process, as there is one collector.
type gate struct {
	// call is 2 × the number of the attempt to collect, plus 1 while workers
	// are to park at their next boundary.
	call atomic.Uint64
	mu   sync.Mutex
	cond *sync.Cond
	// engines are those that are open.
	engines map[*Engine]struct{}
	// running are workers that have entered and are not parked, reserved those
	// handed out by reserve.
	running, reserved int
	// laggards are workers that were inside a workgroup when the last attempt
	// was given up, and have been since. While there are some, none is made: a
	// workgroup that never ends must not make the others park again and again.
	laggards      int
	stop, stopped chan struct{}
	oldPercent    int
	oldLimit      int64
	// room and patience are heapRoom and heapPatience, but in a test.
	room     uint64
	patience int
	// collections counts, for tests.
	collections atomic.Uint64
}

// pass is what one worker holds between enter and leave: the last call it saw.
type pass struct{ seen uint64 }

var processGate = newGate()

func newGate() *gate {
	g := &gate{engines: map[*Engine]struct{}{}, room: heapRoom, patience: heapPatience}
	g.cond = sync.NewCond(&g.mu)
	return g
}

// open is called by each engine before it executes anything.
func (g *gate) open(e *Engine) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.engines[e] = struct{}{}
	if g.stop != nil {
		return
	}
	if procs := runtime.NumCPU() * (1 + workersPerCore); runtime.GOMAXPROCS(0) < procs {
		runtime.GOMAXPROCS(procs)
	}
	g.oldPercent = debug.SetGCPercent(-1)
	g.oldLimit = debug.SetMemoryLimit(math.MaxInt64)
	g.stop, g.stopped = make(chan struct{}), make(chan struct{})
	go g.watch(g.stop, g.stopped)
}

// close undoes open. The collector stays off while a workgroup still runs that
// nobody can stop: giving it back would freeze the process.
func (g *gate) close(e *Engine) {
	g.mu.Lock()
	delete(g.engines, e)
	if len(g.engines) > 0 || g.running > 0 || g.stop == nil {
		g.mu.Unlock()
		return
	}
	stop, stopped := g.stop, g.stopped
	g.stop, g.stopped = nil, nil
	debug.SetGCPercent(g.oldPercent)
	debug.SetMemoryLimit(g.oldLimit)
	g.mu.Unlock()
	close(stop)
	<-stopped
}

// reserve hands out processors for up to n workers, at least one; release gives them back.
func (g *gate) reserve(n int) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	n = max(1, min(n, runtime.NumCPU()*workersPerCore-g.reserved))
	g.reserved += n
	return n
}

func (g *gate) release(n int) {
	g.mu.Lock()
	g.reserved -= n
	g.mu.Unlock()
}

// enter is called by a worker before its first workgroup, leave after its last.
// False means that the worker was told to stop; it is not in, and must not leave.
func (g *gate) enter(stop *atomic.Bool) (pass, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	seen, in := g.admit(stop)
	return pass{seen: seen}, in
}

// admit waits until nobody collects, or until the worker is told to stop: a
// suspend must not wait for somebody else's workgroup. The caller holds the lock.
func (g *gate) admit(stop *atomic.Bool) (uint64, bool) {
	for g.call.Load()%2 == 1 {
		if stop.Load() {
			return 0, false
		}
		g.cond.Wait()
	}
	g.running++
	return g.call.Load(), true
}

// nudge is called after a worker's stop was set, which it may be parked with.
func (g *gate) nudge() {
	g.mu.Lock()
	g.cond.Broadcast()
	g.mu.Unlock()
}

func (g *gate) leave(p pass) {
	g.mu.Lock()
	g.depart(p)
	g.mu.Unlock()
}

// depart takes the worker out of those running; the caller holds the lock.
func (g *gate) depart(p pass) {
	g.running--
	if call := g.call.Load(); call%2 == 0 && p.seen != call {
		g.laggards--
	}
	g.cond.Broadcast()
}

// boundary is called between two workgroups. It costs one load unless there was
// a call. False is as that of enter.
func (g *gate) boundary(p *pass, stop *atomic.Bool) bool {
	if g.call.Load() == p.seen {
		return true
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.depart(*p)
	var in bool
	p.seen, in = g.admit(stop)
	return in
}

// watch collects when the heap has grown, one per process, and reports when it
// has grown too far.
func (g *gate) watch(stop, stopped chan struct{}) {
	defer close(stopped)
	tick := time.NewTicker(gateInterval)
	defer tick.Stop()
	due, bound := uint64(heapMin), gatherMin
	limit, above := g.room, 0
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		heap := heapBytes()
		if heap < due {
			continue
		}
		if g.ready() {
			if g.collect(bound) {
				bound = max(gatherMin, bound/2)
				live := heapBytes()
				due, limit, above = max(heapMin, heapFactor*live), live+g.room, 0
				continue
			}
			bound = min(2*bound, gatherMax)
		}
		if heap <= limit {
			above = 0
		} else if above++; above == g.patience {
			g.fail(fmt.Errorf("%d bytes of heap, and a workgroup that does not end keeps the garbage collector out: %w", heap, core.ErrFull))
		}
	}
}

// fail tells the engines' owners.
func (g *gate) fail(err error) {
	g.mu.Lock()
	engines := slices.Collect(maps.Keys(g.engines))
	g.mu.Unlock()
	for _, e := range engines {
		if e.config.Failed != nil {
			e.config.Failed(err)
		}
	}
}

// ready reports that every worker reached a boundary since the last attempt.
func (g *gate) ready() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.laggards == 0
}

// collect runs a collection with no worker inside a workgroup. It gives up, and
// returns false, when a worker has not come to a boundary within bound.
func (g *gate) collect(bound time.Duration) bool {
	var expired atomic.Bool
	timer := time.AfterFunc(bound, func() {
		expired.Store(true)
		g.mu.Lock()
		g.cond.Broadcast()
		g.mu.Unlock()
	})
	defer timer.Stop()
	g.mu.Lock()
	g.call.Add(3) // the next attempt, and park: only one goroutine collects
	for g.running > 0 && !expired.Load() {
		g.cond.Wait()
	}
	gathered := g.running == 0
	g.mu.Unlock()
	if gathered {
		runtime.GC()
		g.collections.Add(1)
	}
	g.mu.Lock()
	g.call.Add(^uint64(0)) // go on
	g.laggards = g.running
	g.cond.Broadcast()
	g.mu.Unlock()
	return gathered
}

// heapBytes is the size of live and not yet swept objects, read without
// stopping the world.
func heapBytes() uint64 {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}
