package fw

import (
	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/agx/abi"
	"github.com/gpuwm/gpuwm/plugins/engine"
	"github.com/gpuwm/gpuwm/plugins/hw"
)

// startEngine starts a dispatch, or what the plan makes of it; nil means that
// nothing runs.
func (f *Firmware) startEngine(c *command, work engine.Dispatch, notify func()) (engine.Execution, error) {
	rules, lost := f.meet(PointCommand, "", uint64(c.q.info.UUID))
	x := engine.NewHang(f.cfg.Clock.Now, notify)
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
			return engine.Stuck{Execution: x}, nil
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
