package fw

import (
	"errors"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/engine"
	"github.com/gpuwm/gpuwm/plugins/guc/abi"
	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/plugins/order"
)

// hangDetail is what the descriptor says of a context that did not leave.
const hangDetail = "no preemption point within the preemption timeout"

// errInjected is a memory error that the fault plan made.
var errInjected = errors.New("injected memory error")

// unmapped says that an address is in no mapping.
type unmapped struct{ err error }

// Error implements error.
func (u *unmapped) Error() string { return u.err.Error() }

// faultError ends a context for an error of its ring or its dispatch.
func (f *Firmware) faultError(in *instance, err error) {
	var u *unmapped
	var fe *core.FaultError
	switch {
	case errors.As(err, &u):
		f.catError(in, err.Error())
	case errors.As(err, &fe):
		f.fault(in, order.CauseOf(fe.Cause), fe.Detail)
	default:
		f.fault(in, hw.CauseDescriptor, err.Error())
	}
}

// fault resets the engine under a context that misbehaved: descriptor, 0x8002,
// 0x1008, and then whatever disable waited for it (the order can be configured).
func (f *Firmware) fault(in *instance, cause hw.Cause, detail string) {
	g := in.g
	f.blame(in, cause, detail)
	f.counters.Resets++
	for _, a := range f.cfg.ResetOrder {
		switch a {
		case abi.ActionStateCapture:
			f.event(abi.StateCapture{})
		case abi.ActionContextReset:
			f.event(abi.ContextReset{ID: g.id})
		default:
			f.afterReset(g)
		}
	}
}

// catError ends a context that named memory which is not mapped.
func (f *Firmware) catError(in *instance, detail string) {
	g := in.g
	f.blame(in, hw.CauseMemory, detail)
	f.counters.CatErrors++
	f.event(abi.CatError{ID: g.id, Extended: f.extendedCat, Type: abi.CatTypeUnsupported})
	f.afterReset(g)
}

// blame writes the fault into the descriptor, if the context got that far, and
// takes the context off. The ring head stays at the command that failed.
func (f *Firmware) blame(in *instance, cause hw.Cause, detail string) {
	if in.run != nil {
		r := f.progress(in)
		r.Status, r.Cause, r.Detail = hw.StatusFault, cause, detail
		f.report(in, r)
	}
	f.save(in)
}

// afterReset makes a context unschedulable and answers the disable that waited.
func (f *Firmware) afterReset(g *guContext) {
	if g.disables > 0 {
		f.disabled(g)
		return
	}
	f.setState(g, contextReset)
}

// engineFault ends a context whose execution or start failed in the engine.
func (f *Firmware) engineFault(in *instance, err error) {
	fe := order.FaultOf(err)
	f.fault(in, order.CauseOf(fe.Cause), fe.Detail)
}

// force resets an engine whose context did not leave in time.
func (f *Firmware) force(in *instance) {
	if f.noEngineReset {
		in.preemptAt = never
		return
	}
	rules, lost := f.meet(PointEngineReset, "", uint64(in.g.id))
	if lost {
		return
	}
	a, ok := in.run.exec.(engine.Aborter)
	if !ok || len(rules) > 0 {
		f.engineFailed(in)
		return
	}
	in.aborting = true
	f.noteEngine("reset under it:", in)
	in.abortAt = f.cfg.Clock.Now() + f.cfg.AbortGrace
	a.Abort()
}

// reasonHung is the reason of an engine failure: the engine did not leave its
// workgroup. The numbers of the real firmware are not public.
const reasonHung = 1

// engineFailed reports that an engine cannot be reset and stops the firmware:
// the context never left, so that no MODE_DONE of it follows.
func (f *Firmware) engineFailed(in *instance) {
	g := in.g
	f.counters.EngineFailures++
	r := f.progress(in)
	r.Status, r.Cause, r.Detail = hw.StatusFault, hw.CauseHang, hangDetail
	f.report(in, r)
	f.setState(g, contextReset)
	f.counters.Resets++
	f.event(abi.StateCapture{})
	f.event(abi.ContextReset{ID: g.id})
	f.event(abi.EngineFailure{Class: g.class.class, Instance: in.index, Reason: reasonHung})
	f.die()
}
