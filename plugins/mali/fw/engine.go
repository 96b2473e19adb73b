package fw

import (
	"errors"
	"fmt"
	"slices"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/plugins/mali/abi"
	"github.com/gpuwm/gpuwm/plugins/order"
)

// begin starts a dispatch on the engine.
func (f *Firmware) begin(d *dispatch) bool {
	s := d.s
	work, err := f.orderOf(d)
	if err != nil {
		return f.beginFailed(d, err)
	}
	s.stallAt = never
	r := &run{d: d, at: d.at, count: d.work.Count, base: d.base, as: s.g.as, space: work.Space, since: f.now(),
		sampleAt: f.now() + f.cfg.SampleInterval, rotateAt: never}
	r.base.Status, r.base.Cause, r.base.Detail = hw.StatusRunning, hw.CauseNone, ""
	_ = hw.WriteReport(f.cfg.Arena, d.at, r.base)
	exec, err := f.startEngine(s, work, func() {
		r.ended.Store(true)
		f.steps.Raise()
	})
	if err != nil {
		return f.beginFailed(d, err)
	}
	f.counters.Executions++
	f.note("RUN", func(w []uint32) string {
		return fmt.Sprintf("csg=%d cs=%d from %d cores=%#x", w[0], w[1], uint64(w[2])|uint64(w[3])<<32, uint64(w[4])|uint64(w[5])<<32)
	}, s.g.slot, s.index, uint32(work.First), uint32(work.First>>32), uint32(d.cores), uint32(d.cores>>32))
	r.exec, d.run = exec, r
	f.runs = append(f.runs, r)
	if g := s.g; g.progressAt == never {
		g.progressAt = f.now()
	}
	return true
}

// beginFailed reports a dispatch that could not be started; one whose address
// space is off waits.
func (f *Firmware) beginFailed(d *dispatch, err error) bool {
	s := d.s
	if a := asAccess(err); a != nil {
		if !s.accessFailed(err, false) {
			return false
		}
		f.finishFault(d, hw.CauseMemory, err.Error())
		return true
	}
	var fe *core.FaultError
	switch {
	case errors.As(err, &fe):
		f.finishFault(d, order.CauseOf(fe.Cause), fe.Detail)
		s.engineFault(fe)
	case errors.Is(err, hw.ErrInvalid):
		f.finishFault(d, hw.CauseDescriptor, err.Error())
		s.fault(abi.ExceptionDataInvalid, d.program())
	default:
		f.finishFault(d, hw.CauseEngine, err.Error())
		s.fatal(abi.ExceptionEndpoint, d.program())
	}
	return true
}

// finishFault writes the fault into the descriptor and takes the dispatch off its stream.
func (f *Firmware) finishFault(d *dispatch, cause hw.Cause, detail string) {
	d.base.Status, d.base.Cause, d.base.Detail = hw.StatusFault, cause, detail
	_ = hw.WriteReport(f.cfg.Arena, d.at, d.base)
	f.remove(d)
}

// remove takes a dispatch off its stream: its scoreboard entry is counted down.
func (f *Firmware) remove(d *dispatch) {
	s := d.s
	s.dispatches = slices.DeleteFunc(s.dispatches, func(x *dispatch) bool { return x == d })
	s.look = true
	s.settle()
}

// engineFault is what a kernel's misbehaviour is to the stream.
func (s *stream) engineFault(fe *core.FaultError) {
	switch fe.Cause {
	case core.CauseTrap:
		s.fault(abi.ExceptionImprecise, 0)
	case core.CauseMemory:
		s.fault(abi.ExceptionAddressRange, 0)
	case core.CauseKernel:
		s.fault(abi.ExceptionInvalidEncoding, 0)
	default:
		s.fatal(abi.ExceptionEndpoint, 0)
	}
}
