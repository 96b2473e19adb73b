package order

import (
	"errors"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/engine"
	"github.com/gpuwm/gpuwm/plugins/hw"
)

// Progress is what the descriptor of a running dispatch should say now: base,
// which earlier executions of its count workgroups made, and what x has done since.
func Progress(base hw.Report, count uint64, x engine.Execution) hw.Report {
	workgroups, executed := x.Progress()
	r := base
	r.Done += min(workgroups, count-r.Done)
	r.Executed += workgroups
	r.ExecutedTime += max(executed, 0)
	return r
}

// Settle is what the descriptor should say once x has ended, but for its status,
// and the error that x ended with.
func Settle(base hw.Report, count uint64, x engine.Execution) (hw.Report, error) {
	res := x.Result()
	r := Progress(base, count, x)
	r.Executed = max(r.Executed, base.Executed+res.Done)
	r.Done = base.Done + min(res.Done, count-base.Done)
	r.ExecutedTime = base.ExecutedTime + max(res.Executed, 0)
	return r, res.Err
}

// FaultOf is an engine's error as a fault; one that blames nobody is the device's.
func FaultOf(err error) *core.FaultError {
	var fe *core.FaultError
	if errors.As(err, &fe) {
		return fe
	}
	return &core.FaultError{Cause: core.CauseDevice, Detail: err.Error()}
}

// CauseOf translates the cause of an engine's fault for a descriptor.
func CauseOf(c core.Cause) hw.Cause {
	switch c {
	case core.CauseTrap:
		return hw.CauseTrap
	case core.CauseMemory:
		return hw.CauseMemory
	case core.CauseHang:
		return hw.CauseHang
	case core.CauseKernel:
		return hw.CauseKernel
	}
	return hw.CauseEngine
}
