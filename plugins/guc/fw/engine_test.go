package fw_test

import (
	"errors"
	"sync"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/engine"
	"github.com/gpuwm/gpuwm/plugins/hw"
)

// scriptEngine is an engine on one core under a clock. The entry point says
// what a dispatch does, argument 0 how many microseconds a workgroup takes.
//
//	run    ends
//	hang   never reaches the end of a workgroup, can be aborted
//	stuck  the same, cannot be aborted
//	trap   faults after the first workgroup; memory, refuse and early likewise
type scriptEngine struct {
	clock hw.Clock
	mu    struct {
		sync.Mutex
		// executed counts how often each workgroup of each job ran to its end.
		executed map[core.JobID]map[uint64]int
		started  []engine.Dispatch
		running  int
		forgot   []uint64
	}
}

func newScriptEngine(clock hw.Clock) *scriptEngine {
	e := &scriptEngine{clock: clock}
	e.mu.executed = map[core.JobID]map[uint64]int{}
	return e
}

func (e *scriptEngine) Name() string                    { return "script" }
func (e *scriptEngine) Formats() []string               { return []string{"script"} }
func (e *scriptEngine) Check(core.Kernel, string) error { return nil }
func (e *scriptEngine) Close() error                    { return nil }

func (e *scriptEngine) Forget(space uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.mu.forgot = append(e.mu.forgot, space)
}

// starts returns the dispatches in the order of their start.
func (e *scriptEngine) starts() []engine.Dispatch {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]engine.Dispatch(nil), e.mu.started...)
}

// reporter is a test or a property.
type reporter interface {
	Helper()
	Errorf(string, ...any)
}

// exactlyOnce fails unless workgroups [0, count) of the job ran once each.
func (e *scriptEngine) exactlyOnce(t reporter, job core.JobID, count uint64) {
	t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	for i := range count {
		if n := e.mu.executed[job][i]; n != 1 {
			t.Errorf("job %d: workgroup %d ran %d times", job, i, n)
		}
	}
	if n := uint64(len(e.mu.executed[job])); n != count {
		t.Errorf("job %d: %d workgroups ran, want %d", job, n, count)
	}
}

// execution is one dispatch of a scriptEngine.
type execution struct {
	e      *scriptEngine
	d      engine.Dispatch
	per    time.Duration
	start  time.Duration
	notify func()

	mu struct {
		sync.Mutex
		timer  hw.Timer
		ended  bool
		result engine.Result
	}
}

// abortable adds Abort.
type abortable struct{ *execution }

func (e *scriptEngine) Start(d engine.Dispatch, notify func()) (engine.Execution, error) {
	if d.Entry == "refuse" || d.Count > 1_000_000 {
		return nil, &core.FaultError{Cause: core.CauseKernel, Detail: "no such entry"}
	}
	x := &execution{e: e, d: d, per: time.Millisecond, start: e.clock.Now(), notify: notify}
	if len(d.Args) > 0 && !d.Args[0].Buffer {
		x.per = time.Duration(min(max(d.Args[0].Bits, 1), 1_000_000)) * time.Microsecond
	}
	e.mu.Lock()
	e.mu.started = append(e.mu.started, d)
	e.mu.running++
	e.mu.Unlock()
	x.mu.Lock()
	defer x.mu.Unlock()
	switch d.Entry {
	case "run":
		x.endAfter(d.Count, nil)
	case "trap":
		x.endAfter(1, &core.FaultError{Cause: core.CauseTrap, Detail: "unreachable in workgroup (1,0,0)"})
	case "memory":
		x.endAfter(1, &core.FaultError{Cause: core.CauseMemory, Detail: "needs 5 GiB"})
	case "early":
		x.endAfter(1, nil)
	case "stuck":
		return x, nil
	case "hang":
	default:
		x.endAfter(0, errors.New("unknown script"))
	}
	return abortable{x}, nil
}

// endAfter arranges the end when n workgroups will be done; x.mu is held.
func (x *execution) endAfter(n uint64, err error) {
	x.mu.timer = x.e.clock.AfterFunc(x.start+time.Duration(n)*x.per-x.e.clock.Now(), func() { x.end(n, err) })
}

func (x *execution) end(n uint64, err error) {
	x.mu.Lock()
	if x.mu.ended {
		x.mu.Unlock()
		return
	}
	x.mu.ended = true
	x.mu.result = engine.Result{Done: n, Executed: x.e.clock.Now() - x.start, Err: err}
	x.mu.Unlock()
	x.e.mu.Lock()
	x.e.mu.running--
	seen := x.e.mu.executed[x.d.Job]
	if seen == nil {
		seen = map[uint64]int{}
		x.e.mu.executed[x.d.Job] = seen
	}
	for i := range n {
		seen[x.d.First+i]++
	}
	x.e.mu.Unlock()
	x.notify()
}

func (x *execution) Stop() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.mu.ended || x.d.Entry == "hang" || x.d.Entry == "stuck" {
		return
	}
	elapsed := x.e.clock.Now() - x.start
	n := min(uint64((elapsed+x.per-1)/x.per), x.d.Count)
	if x.mu.timer.Stop() {
		x.endAfter(n, nil)
	}
}

func (a abortable) Abort() {
	n, _ := a.Progress()
	a.end(n, nil)
}

func (x *execution) Progress() (uint64, time.Duration) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.mu.ended {
		return x.mu.result.Done, x.mu.result.Executed
	}
	elapsed := x.e.clock.Now() - x.start
	if x.d.Entry == "hang" || x.d.Entry == "stuck" {
		return 0, elapsed
	}
	return min(uint64(elapsed/x.per), x.d.Count), elapsed
}

func (x *execution) Result() engine.Result {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.mu.result
}
