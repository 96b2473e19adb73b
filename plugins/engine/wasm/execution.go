package wasm

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/engine"
	"github.com/tetratelabs/wazero/api"
)

// argsMax is how many arguments fit into the argument block of 64 KiB.
const argsMax = (pageSize - 24) / 8

// execution is one dispatch at work.
type execution struct {
	engine   *Engine
	dispatch engine.Dispatch
	notify   func()
	begun    time.Duration // on the engine's clock

	// next is the number of the next workgroup to draw, counted from First.
	next atomic.Uint64
	_    [56]byte // next is written all the time: keep what is only read off its cache line
	stop atomic.Bool

	inst     *instance
	executed *atomic.Uint64
	workers  []worker

	mu struct {
		sync.Mutex
		trapped bool
		trapAt  uint64 // lowest workgroup that trapped, counted from First
		trapErr error
		ready   bool // workers are set
		ended   bool
		result  engine.Result
	}
}

// worker counts what it finished, on a cache line of its own.
type worker struct {
	finished atomic.Uint64
	_        [56]byte
}

func newExecution(e *Engine, d engine.Dispatch, notify func()) *execution {
	return &execution{engine: e, dispatch: d, notify: notify, begun: e.config.Now(),
		executed: e.config.Usage.Slot(d.Job, d.Epoch)}
}

// Stop implements engine.Execution.
func (x *execution) Stop() {
	x.stop.Store(true)
	processGate.nudge()
}

// Progress implements engine.Execution.
func (x *execution) Progress() (uint64, time.Duration) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.mu.ended {
		return x.finished(), x.mu.result.Executed
	}
	executed := x.engine.config.Now() - x.begun
	if !x.mu.ready {
		return 0, executed
	}
	return x.finished(), executed
}

// Result implements engine.Execution.
func (x *execution) Result() engine.Result {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.mu.result
}

func (x *execution) finished() uint64 {
	var n uint64
	for i := range x.workers {
		n += x.workers[i].finished.Load()
	}
	return n
}

// run is the execution from preparation to notify, on a goroutine of its own.
func (x *execution) run() {
	args, segments, err := x.arguments()
	if err == nil && x.dispatch.Count > 0 {
		x.inst, err = x.engine.acquire(x.dispatch.Kernel, x.dispatch.Entry, x.dispatch.Space, segments)
	}
	if err != nil || x.inst == nil {
		x.end(0, err)
		return
	}
	x.fillArguments(args)
	x.inst.copyIn()
	x.inst.memory.mark()
	x.work()
	x.inst.copyOut()
	done, err := x.verdict()
	grew, _ := x.inst.memory.grown()
	x.engine.giveBack(x.inst, grew || err != nil)
	x.end(done, err)
}

// end publishes the result.
func (x *execution) end(done uint64, err error) {
	x.mu.Lock()
	x.mu.ended = true
	x.mu.result = engine.Result{Done: done, Executed: x.engine.config.Now() - x.begun, Err: err}
	x.mu.Unlock()
	x.engine.ended()
	x.notify()
}

// argument is an argument with the segment that it points into, or -1.
type argument struct {
	segment int
	bits    uint64 // the scalar, or the offset into the segment
}

// arguments resolves addresses to the segments that they name, which it
// returns once each, in the order of the dispatch.
func (x *execution) arguments() ([]argument, []engine.Segment, error) {
	d := x.dispatch
	if len(d.Args) > argsMax {
		return nil, nil, &core.FaultError{Cause: core.CauseKernel, Detail: fmt.Sprintf("%d arguments, at most %d", len(d.Args), argsMax)}
	}
	args := make([]argument, len(d.Args))
	named := make([]bool, len(d.Segments))
	for i, a := range d.Args {
		args[i] = argument{segment: -1, bits: a.Bits}
		if !a.Buffer {
			continue
		}
		s := slices.IndexFunc(d.Segments, func(s engine.Segment) bool {
			return a.Bits >= s.Address && a.Bits-s.Address < s.Size
		})
		if s < 0 {
			return nil, nil, &core.FaultError{Cause: core.CauseKernel, Detail: fmt.Sprintf("argument %d: address %#x is in no buffer", i+1, a.Bits)}
		}
		if g := d.Segments[s]; uint64(len(g.Bytes)) < g.Size {
			return nil, nil, &core.FaultError{Cause: core.CauseKernel, Detail: fmt.Sprintf("argument %d: buffer of %d bytes has memory for %d", i+1, g.Size, len(g.Bytes))}
		}
		named[s] = true
		args[i] = argument{segment: s, bits: a.Bits - d.Segments[s].Address}
	}
	var used []engine.Segment
	place := make([]int, len(d.Segments))
	for s, n := range named {
		if n {
			place[s] = len(used)
			used = append(used, d.Segments[s])
		}
	}
	for i := range args {
		if args[i].segment >= 0 {
			args[i].segment = place[args[i].segment]
		}
	}
	return args, used, nil
}

// fillArguments writes the block that entry points get the address of.
func (x *execution) fillArguments(args []argument) {
	block := x.inst.memory.bytes[x.inst.argsAt:][:pageSize]
	le := binary.LittleEndian
	for i, a := range args {
		bits := a.bits
		if a.segment >= 0 {
			bits += x.inst.placed[a.segment].at
		}
		le.PutUint64(block[8*i:], bits)
	}
	rest := block[8*len(args):]
	for i := range 3 {
		le.PutUint32(rest[4*i:], x.dispatch.Grid[i])
		le.PutUint32(rest[12+4*i:], x.dispatch.Group[i])
	}
}

// work runs the range on as many workers as there are, and returns when the
// last has ended. If a workgroup never ends, neither does work.
func (x *execution) work() {
	n := int(min(uint64(len(x.inst.workers)), x.dispatch.Count))
	reserved := processGate.reserve(n)
	defer processGate.release(reserved)
	n = min(n, reserved)
	workers := make([]worker, n)
	x.mu.Lock()
	x.workers, x.mu.ready = workers, true
	x.mu.Unlock()
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { x.drain(&x.workers[i], x.inst.workers[i].ExportedFunction(x.dispatch.Entry)) })
	}
	wg.Wait()
}

// drain is one worker: it draws the next workgroup and finishes it, until none
// is left or it is told to stop. What was drawn is finished, so that the
// workgroups done are always a prefix.
func (x *execution) drain(w *worker, entry api.Function) {
	pass, in := processGate.enter(&x.stop)
	defer func() {
		if in {
			processGate.leave(pass)
		}
	}()
	first, count, grid := x.dispatch.First, x.dispatch.Count, x.dispatch.Grid
	width, height := uint64(grid[0]), uint64(grid[1])
	executed, argsAt := x.executed, x.inst.argsAt
	ctx := x.engine.ctx
	var stack [4]uint64
	for in && !x.stop.Load() {
		if in = processGate.boundary(&pass, &x.stop); !in {
			return
		}
		i := x.next.Add(1) - 1
		if i >= count {
			return
		}
		row := (first + i) / width
		stack = [4]uint64{argsAt, (first + i) % width, row % height, row / height}
		if err := entry.CallWithStack(ctx, stack[:]); err != nil {
			x.trap(i, err)
			return
		}
		executed.Add(1)
		w.finished.Add(1)
	}
}

// trap records the lowest workgroup that misbehaved and stops the others.
func (x *execution) trap(i uint64, err error) {
	x.Stop()
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.mu.trapped || i < x.mu.trapAt {
		x.mu.trapped, x.mu.trapAt, x.mu.trapErr = true, i, err
	}
}

// verdict returns how many workgroups are done as a prefix, and the fault if there was one.
func (x *execution) verdict() (uint64, error) {
	if !x.mu.trapped {
		return min(x.next.Load(), x.dispatch.Count, x.finished()), nil
	}
	if err := x.inst.memory.failure(); err != nil {
		return x.mu.trapAt, err
	}
	fault := &core.FaultError{Cause: core.CauseTrap, Job: x.dispatch.Job}
	_, exhausted := x.inst.memory.grown()
	linear := x.dispatch.First + x.mu.trapAt
	grid := x.dispatch.Grid
	row := linear / uint64(grid[0])
	at := fmt.Sprintf("workgroup (%d, %d, %d)", linear%uint64(grid[0]), row%uint64(grid[1]), row/uint64(grid[1]))
	fault.Detail = fmt.Sprintf("%s in %s", firstLine(x.mu.trapErr), at)
	if exhausted {
		fault.Cause = core.CauseMemory
		fault.Detail = fmt.Sprintf("%s after its memory had grown to the limit of %d bytes", fault.Detail, len(x.inst.memory.bytes))
	}
	return x.mu.trapAt, fault
}

// firstLine drops wazero's stack trace.
func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}
