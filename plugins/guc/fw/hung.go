package fw

import (
	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/engine"
)

// startEngine starts a dispatch on the engine, or what the plan makes of it.
func (f *Firmware) startEngine(g *guContext, work engine.Dispatch, notify func()) (engine.Execution, error) {
	rules, lost := f.meet(PointBatch, "", uint64(g.id))
	if lost {
		return engine.NewHang(f.cfg.Clock.Now, notify), nil
	}
	var loyal bool
	for _, r := range rules {
		x := engine.NewHang(f.cfg.Clock.Now, notify)
		switch r.Action {
		case FaultHang:
			return x, nil
		case FaultStuck:
			return engine.Stuck{Execution: x}, nil
		case FaultTrap:
			return nil, &core.FaultError{Cause: core.CauseTrap, Detail: "injected trap"}
		case FaultCat:
			return nil, &unmapped{errInjected}
		case FaultNoPreempt:
			loyal = true
		}
	}
	exec, err := f.cfg.Engine.Start(work, notify)
	if a, ok := exec.(engine.Aborter); loyal && ok {
		return unstoppableAborter{unstoppable{exec}, a}, err
	}
	if loyal && err == nil {
		return unstoppable{exec}, nil
	}
	return exec, err
}

// unstoppable runs to its end, or until it is aborted if it can be.
type unstoppable struct{ engine.Execution }

// Stop implements engine.Execution: it does not.
func (unstoppable) Stop() {}

type unstoppableAborter struct {
	unstoppable
	engine.Aborter
}
