package fw

import (
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/engine"
	"github.com/gpuwm/gpuwm/plugins/hw"
)

// startEngine starts a dispatch on the engine, or what the plan makes of it.
func (f *Firmware) startEngine(g *guContext, work engine.Dispatch, notify func()) (engine.Execution, error) {
	rules, lost := f.meet(PointBatch, "", uint64(g.id))
	if lost {
		return &hung{clock: f.cfg.Clock, since: f.cfg.Clock.Now(), notify: notify}, nil
	}
	var loyal bool
	for _, r := range rules {
		x := &hung{clock: f.cfg.Clock, since: f.cfg.Clock.Now(), notify: notify}
		switch r.Action {
		case FaultHang:
			return x, nil
		case FaultStuck:
			return stuck{x}, nil
		case FaultTrap:
			return nil, &core.FaultError{Cause: core.CauseTrap, Detail: "injected trap"}
		case FaultCat:
			return nil, &unmapped{errInjected}
		case FaultNoPreempt:
			loyal = true
		}
	}
	exec, err := f.cfg.Engine.Start(work, notify)
	if a, ok := exec.(aborter); loyal && ok {
		return unstoppableAborter{unstoppable{exec}, a}, err
	}
	if loyal && err == nil {
		return unstoppable{exec}, nil
	}
	return exec, err
}

// hung is an execution that reaches no end by itself.
type hung struct {
	clock  hw.Clock
	since  time.Duration
	notify func()
	ended  bool
	took   time.Duration
}

// Stop implements engine.Execution: it never comes to the end of a workgroup.
func (h *hung) Stop() {}

// Abort ends it, as a reset of the engine does.
func (h *hung) Abort() {
	if !h.ended {
		h.ended, h.took = true, h.clock.Now()-h.since
		h.notify()
	}
}

// Progress implements engine.Execution.
func (h *hung) Progress() (uint64, time.Duration) {
	if h.ended {
		return 0, h.took
	}
	return 0, h.clock.Now() - h.since
}

// Result implements engine.Execution.
func (h *hung) Result() engine.Result { return engine.Result{Executed: h.took} }

// stuck can't be aborted either.
type stuck struct{ engine.Execution }

// unstoppable runs to its end, or until it is aborted if it can be.
type unstoppable struct{ engine.Execution }

// Stop implements engine.Execution: it does not.
func (unstoppable) Stop() {}

type unstoppableAborter struct {
	unstoppable
	aborter
}
