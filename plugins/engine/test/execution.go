package test

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/engine"
)

// Execution is one dispatch in virtual time.
type Execution struct {
	clock    Clock
	dispatch engine.Dispatch
	notify   func()
	begun    time.Duration
	script   script
	output   []byte
	executed *atomic.Uint64

	mu struct {
		sync.Mutex
		next     uint64   // workgroups drawn, counted from First
		inFlight []uint64 // those that end with the present round
		hung     []uint64 // those that never end
		finished uint64
		stopping bool
		ended    bool
		result   engine.Result
		timer    Timer
	}
}

var _ engine.Execution = (*Execution)(nil)

// start begins the first round; err is what is wrong with the kernel.
func (x *Execution) start(err error) {
	if err != nil {
		x.later(0, func() { x.end(0, &core.FaultError{Cause: core.CauseKernel, Job: x.dispatch.Job, Detail: err.Error()}) })
		return
	}
	x.script, _ = parse(string(x.dispatch.Kernel.Code)) // checked before
	if err := x.resolve(); err != nil {
		x.later(0, func() { x.end(0, err) })
		return
	}
	if x.dispatch.Count == 0 {
		x.later(0, func() { x.end(0, nil) })
		return
	}
	x.mu.Lock()
	x.draw()
	idle := len(x.mu.inFlight) == 0
	x.mu.Unlock()
	if !idle {
		x.later(x.script.workgroup, x.round)
	}
}

// resolve finds the memory of the first buffer argument.
func (x *Execution) resolve() error {
	i := slices.IndexFunc(x.dispatch.Args, func(a engine.Arg) bool { return a.Buffer })
	if i < 0 {
		return nil
	}
	at := x.dispatch.Args[i].Bits
	for _, s := range x.dispatch.Segments {
		if at >= s.Address && at-s.Address < s.Size && uint64(len(s.Bytes)) >= s.Size {
			x.output = s.Bytes[at-s.Address : s.Size]
			return nil
		}
	}
	return &core.FaultError{Cause: core.CauseKernel, Job: x.dispatch.Job, Detail: fmt.Sprintf("argument %d: address %#x is in no buffer", i+1, at)}
}

func (x *Execution) later(d time.Duration, f func()) {
	timer := x.clock.AfterFunc(d, f)
	x.mu.Lock()
	x.mu.timer = timer
	x.mu.Unlock()
}

// draw gives every free core its next workgroup; the caller holds the lock.
func (x *Execution) draw() {
	for !x.mu.stopping && x.mu.next < x.dispatch.Count &&
		uint64(len(x.mu.inFlight)+len(x.mu.hung)) < x.script.cores {
		i := x.mu.next
		x.mu.next++
		if x.script.hangs[x.dispatch.First+i] {
			x.mu.hung = append(x.mu.hung, i)
		} else {
			x.mu.inFlight = append(x.mu.inFlight, i)
		}
	}
}

// round is called when the workgroups in flight are over.
func (x *Execution) round() {
	x.mu.Lock()
	if x.mu.ended {
		x.mu.Unlock()
		return
	}
	for n, i := range x.mu.inFlight {
		linear := x.dispatch.First + i
		if x.script.traps[linear] {
			x.mu.inFlight = x.mu.inFlight[n:]
			done := x.prefix()
			x.mu.Unlock()
			x.end(done, &core.FaultError{Cause: core.CauseTrap, Job: x.dispatch.Job, Detail: fmt.Sprintf("trap in workgroup %d", linear)})
			return
		}
		write(x.output, linear)
		x.executed.Add(1)
		x.mu.finished++
	}
	x.mu.inFlight = x.mu.inFlight[:0]
	x.draw()
	working, hung, done := len(x.mu.inFlight) > 0, len(x.mu.hung) > 0, x.prefix()
	x.mu.Unlock()
	switch {
	case working:
		x.later(x.script.workgroup, x.round)
	case !hung:
		x.end(done, nil)
	}
}

// prefix counts the workgroups done before the first that is not; the caller
// holds the lock.
func (x *Execution) prefix() uint64 {
	done := x.mu.next
	for _, i := range slices.Concat(x.mu.inFlight, x.mu.hung) {
		done = min(done, i)
	}
	return done
}

func (x *Execution) end(done uint64, err error) {
	now := x.clock.Now()
	x.mu.Lock()
	if x.mu.ended {
		x.mu.Unlock()
		return
	}
	x.mu.ended = true
	x.mu.result = engine.Result{Done: done, Executed: now - x.begun, Err: err}
	x.mu.Unlock()
	x.notify()
}

// Stop implements engine.Execution. With a hung workgroup the end never comes.
func (x *Execution) Stop() {
	x.mu.Lock()
	x.mu.stopping = true
	x.mu.Unlock()
}

// Abort ends the execution at once, as a reset of the hardware does, and calls
// notify before it returns unless it has been called: workgroups in flight are
// lost, and Done is what is done as a prefix.
func (x *Execution) Abort() {
	x.mu.Lock()
	timer, done := x.mu.timer, x.prefix()
	x.mu.Unlock()
	if timer != nil {
		timer.Stop()
	}
	x.end(done, nil)
}

// Progress implements engine.Execution.
func (x *Execution) Progress() (uint64, time.Duration) {
	now := x.clock.Now()
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.mu.ended {
		return x.mu.finished, x.mu.result.Executed
	}
	return x.mu.finished, now - x.begun
}

// Result implements engine.Execution.
func (x *Execution) Result() engine.Result {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.mu.result
}
