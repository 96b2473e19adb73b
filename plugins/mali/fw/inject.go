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
	x := engine.NewHang(f.cfg.Clock.Now, notify)
	if lost {
		return x, nil
	}
	for _, r := range rules {
		switch r.Action {
		case FaultHang:
			return x, nil
		case FaultStuck:
			return engine.Stuck{Execution: x}, nil
		case FaultTrap:
			return nil, &core.FaultError{Cause: core.CauseTrap, Detail: "injected trap"}
		case FaultMMU:
			return nil, &access{exception: abi.ExceptionTranslationPage, kind: abi.AccessRead, as: s.g.as, address: s.pc()}
		}
	}
	return f.cfg.Engine.Start(work, notify)
}
