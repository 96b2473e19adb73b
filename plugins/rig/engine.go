package rig

import (
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/engine"
	testengine "github.com/gpuwm/gpuwm/plugins/engine/test"
	"github.com/gpuwm/gpuwm/plugins/hw"
)

// Turn is one life of a job.
type Turn struct {
	Job   core.JobID
	Epoch core.Epoch
}

// Engine is the test engine, or another one in virtual time whose executions can be
// aborted, with a count of what it did.
type Engine struct {
	engine.Engine
	// Executed counts the workgroups that ended, by job and epoch; Running says who is on it.
	Executed map[Turn]uint64
	Running  map[core.JobID]int
	// Longest is the longest dispatch in workgroups, by job.
	Longest map[core.JobID]uint64
	// Dead: the memory is gone, and nothing that is still due may touch it.
	Dead   bool
	active map[*execution]struct{}
}

// Kill ends everything that runs at once, because the memory goes.
func (e *Engine) Kill() {
	e.Dead = true
	for x := range e.active {
		x.Execution.Abort()
	}
}

// NewEngine makes a test engine on a virtual clock.
func NewEngine(clock *hw.VirtualClock) *Engine {
	return &Engine{
		Engine:   testengine.New(testengine.Config{Clock: testClock{clock}}),
		Executed: map[Turn]uint64{}, Running: map[core.JobID]int{}, Longest: map[core.JobID]uint64{}, active: map[*execution]struct{}{},
	}
}

// testClock is a virtual clock as the test engine declares it.
type testClock struct{ *hw.VirtualClock }

// AfterFunc implements the test engine's Clock.
func (c testClock) AfterFunc(d time.Duration, f func()) testengine.Timer {
	return c.VirtualClock.AfterFunc(d, f)
}

// Start implements engine.Engine.
func (e *Engine) Start(d engine.Dispatch, notify func()) (engine.Execution, error) {
	x := &execution{engine: e, dispatch: d}
	e.active[x] = struct{}{}
	e.Running[d.Job]++
	e.Longest[d.Job] = max(e.Longest[d.Job], d.Count)
	inner, err := e.Engine.Start(d, func() {
		if x.Execution != nil { // What ended counts, whether or not the firmware asks.
			x.Progress()
		}
		delete(e.active, x)
		e.Running[d.Job]--
		if !e.Dead {
			notify()
		}
	})
	if err != nil {
		delete(e.active, x)
		e.Running[d.Job]--
		return nil, err
	}
	x.Execution = inner.(aborter)
	return x, nil
}

// aborter is the test engine's execution.
type aborter interface {
	engine.Execution
	Abort()
}

// execution counts what the inner one did.
type execution struct {
	Execution aborter
	engine    *Engine
	dispatch  engine.Dispatch
	counted   uint64
}

// Stop implements engine.Execution.
func (x *execution) Stop() { x.Execution.Stop() }

// Abort ends it in the middle of a workgroup.
func (x *execution) Abort() { x.Execution.Abort() }

// Progress implements engine.Execution.
func (x *execution) Progress() (uint64, time.Duration) {
	done, took := x.Execution.Progress()
	x.engine.Executed[Turn{x.dispatch.Job, x.dispatch.Epoch}] += done - x.counted
	x.counted = done
	return done, took
}

// Result implements engine.Execution.
func (x *execution) Result() engine.Result {
	x.Progress()
	return x.Execution.Result()
}
