package fw

import (
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/engine"
	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/plugins/mali/abi"
)

// duplicateAfter is when a duplicated interrupt comes a second time.
const duplicateAfter = time.Millisecond

// meet counts what passes a point and returns the rules that hit it, those for
// the firmware as a whole carried out. lost says that it must not happen: the MCU stands still.
func (f *Firmware) meet(point, name string, id uint64) (rules []hw.Rule, lost bool) {
	if f.mcu.frozen {
		return nil, point != PointCommand && point != PointBoot
	}
	for _, r := range f.cfg.Faults.Meet(point, name, id) {
		f.counters.Faults++
		f.say("FAULT-PLAN", r.String())
		switch r.Action {
		case FaultCrash, FaultFreeze:
			f.crash(r.Action == FaultCrash)
			return nil, true
		}
		rules = append(rules, r)
	}
	return rules, false
}

// stuckRule reports whether a command is never to end.
func stuckRule(rules []hw.Rule) bool {
	for _, r := range rules {
		if r.Action == FaultStuck {
			return true
		}
	}
	return false
}

// acknowledge meets an acknowledgement: do gives it (with a wrong state, if
// that is not 0), later is called when it is not given now.
func (f *Firmware) acknowledge(point, name string, id uint64, do func(wrong uint32), later func()) {
	rules, lost := f.meet(point, name, id)
	if lost {
		return
	}
	wrong, wait := uint32(0), time.Duration(0)
	for _, r := range rules {
		switch r.Action {
		case FaultDrop:
			later()
			return
		case FaultDelay:
			wait += r.Duration(0)
		case FaultState:
			wrong = uint32(r.Number())
		}
	}
	if wait == 0 {
		do(wrong)
		return
	}
	later()
	f.after(wait, func() {
		if !f.mcu.frozen {
			do(wrong)
		}
	})
}

// interruptJob raises a bit of the job interrupt, with what the plan makes of it.
func (f *Firmware) interruptJob(name string, id uint64, bit uint32) {
	rules, lost := f.meet(PointInterrupt, name, id)
	if lost {
		return
	}
	wait := time.Duration(0)
	raise := func() {
		f.note("IRQ", func(w []uint32) string { return abi.DescribeInterrupt(w[0]) }, bit)
		f.raise(abi.RegJobIntRaw, bit)
	}
	for _, r := range rules {
		switch r.Action {
		case FaultDrop:
			return
		case FaultDelay:
			wait += r.Duration(0)
		case FaultDuplicate:
			f.after(duplicateAfter, raise)
		}
	}
	if wait > 0 {
		f.after(wait, raise)
		return
	}
	raise()
}

// interruptLost reports whether an interrupt is dropped.
func (f *Firmware) interruptLost(name string, id uint64) bool {
	rules, lost := f.meet(PointInterrupt, name, id)
	for _, r := range rules {
		lost = lost || r.Action == FaultDrop
	}
	return lost
}

// injectInstruction meets an instruction and reports whether it is not to be
// executed now.
func (s *stream) injectInstruction(i abi.Instruction, at uint64) bool {
	f := s.g.f
	rules, lost := f.meet(PointInstruction, i.Op.String(), s.id())
	if lost {
		return true
	}
	for _, r := range rules {
		bad := &access{exception: abi.ExceptionTranslationPage, kind: abi.AccessRead, as: s.g.as, address: at}
		switch r.Action {
		case FaultFault:
			s.fault(abi.Exception(r.Number()), at)
		case FaultLate:
			s.late = abi.Exception(r.Number())
			continue
		case FaultHalt:
			s.fatal(abi.Exception(r.Number()), at)
		case FaultMMU:
			f.mmuFault(bad)
			s.fault(bad.exception, at)
		case FaultMMUFatal:
			f.mmuFault(bad)
			s.fatal(abi.ExceptionBus, at)
		case FaultMMUOnly:
			f.mmuFault(bad)
			continue
		}
		return true
	}
	return false
}

// startEngine starts a dispatch on the engine, or what the plan makes of it.
func (f *Firmware) startEngine(s *stream, work engine.Dispatch, notify func()) (engine.Execution, error) {
	rules, lost := f.meet(PointRun, "", s.id())
	x := &hung{clock: f.cfg.Clock, since: f.now(), notify: notify}
	if lost {
		return x, nil
	}
	for _, r := range rules {
		switch r.Action {
		case FaultHang:
			return x, nil
		case FaultStuck:
			return stuck{x}, nil
		case FaultTrap:
			return nil, &core.FaultError{Cause: core.CauseTrap, Detail: "injected trap"}
		case FaultMMU:
			return nil, &access{exception: abi.ExceptionTranslationPage, kind: abi.AccessRead, as: s.g.as, address: s.pc()}
		}
	}
	return f.cfg.Engine.Start(work, notify)
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

// Abort ends it, as a reset does.
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
