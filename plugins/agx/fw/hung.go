package fw

import (
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/agx/abi"
	"github.com/gpuwm/gpuwm/plugins/engine"
	"github.com/gpuwm/gpuwm/plugins/hw"
)

// startEngine starts a dispatch, or what the plan makes of it; nil means that
// nothing runs.
func (f *Firmware) startEngine(c *command, work engine.Dispatch, notify func()) (engine.Execution, error) {
	rules, lost := f.meet(PointCommand, "", uint64(c.q.info.UUID))
	x := &hung{clock: f.cfg.Clock, since: f.cfg.Clock.Now(), notify: notify}
	if lost {
		return x, nil
	}
	for _, r := range rules {
		switch r.Action {
		case FaultHang:
			return x, nil
		case FaultHangInfo, FaultNobody:
			c.faultInfo, c.nobody = r.Action == FaultHangInfo, r.Action == FaultNobody
			return x, nil
		case FaultStuck:
			return stuck{x}, nil
		case FaultSoft:
			done := c.run.base
			done.Status, done.Done = hw.StatusDone, c.run.count
			c.run.base = done
			f.report(c, done)
			return nil, nil
		case FaultFault, FaultUnknown, FaultVM:
			f.blame(c, hw.CauseMemory, "injected fault")
			info := &abi.MMUFault{Reason: abi.FaultUnmapped, Read: true, VMSlot: uint8(c.rc.VMSlot), Address: c.rc.Stream}
			if r.Action == FaultVM {
				info.VMSlot = uint8(r.Number())
			}
			if r.Action == FaultUnknown {
				info = nil
			}
			f.fault(c, info)
			return nil, nil
		case FaultChannel:
			f.blame(c, hw.CauseEngine, "injected channel error")
			f.stopCommand(c, abi.ChannelErrorType(r.Number()))
			return nil, nil
		}
	}
	exec, err := f.cfg.Engine.Start(work, notify)
	if err != nil {
		return nil, &core.FaultError{Cause: core.CauseDevice, Detail: err.Error()}
	}
	return exec, nil
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

// Abort ends it, as a halt of the GPU does.
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
