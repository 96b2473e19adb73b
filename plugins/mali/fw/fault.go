package fw

import (
	"fmt"

	"github.com/gpuwm/gpuwm/plugins/mali/abi"
)

// fault reports a recoverable fault: the stream is in error state, and goes on
// when the host has acknowledged it or kicks it.
func (s *stream) fault(e abi.Exception, info uint64) {
	f := s.g.f
	f.counters.StreamFaults++
	s.failed, s.failure = true, uint32(e)
	s.faultHeld = true
	s.report("FAULT", abi.StreamFault, abi.StreamFaultInfo, abi.StreamFaultEvent, e, info)
}

// fatal reports a fatal fault: the stream does nothing more until its group is terminated.
func (s *stream) fatal(e abi.Exception, info uint64) {
	f := s.g.f
	f.counters.StreamFatals++
	s.halted = true
	s.ops = nil
	for _, r := range f.runs {
		if r.d != nil && r.d.s == s {
			r.abort()
		}
	}
	s.report("FATAL", abi.StreamFatal, abi.StreamFatalInfo, abi.StreamFatalEvent, e, info)
}

// report fills in the fault and status registers and tells the host.
func (s *stream) report(kind string, at, infoAt uint64, bit uint32, e abi.Exception, info uint64) {
	f := s.g.f
	f.store(s.out+at, abi.Fault{Exception: e}.Encode())
	f.storeLong(s.out+infoAt, info)
	s.writeStatus()
	f.note(kind, func(w []uint32) string {
		return fmt.Sprintf("csg=%d cs=%d %s info=%#x", w[0], w[1], abi.Exception(w[2]), uint64(w[3])|uint64(w[4])<<32)
	}, s.g.slot, s.index, uint32(e), uint32(info), uint32(info>>32))
	rules, lost := f.meet(PointEvent, kind, s.id())
	if lost {
		return
	}
	for _, r := range rules {
		switch r.Action {
		case FaultDrop:
			return
		case FaultAgain:
			s.again = append(s.again, func() { s.event(bit) })
		case FaultThen:
			code := abi.Exception(r.Number())
			s.then = func() { s.fatal(code, 0) }
		}
	}
	s.event(bit)
}

// event toggles the acknowledgement bit of an event unless the host has not
// seen the last one, and raises the stream's interrupt.
func (s *stream) event(bit uint32) {
	f := s.g.f
	if (f.load(s.in+abi.StreamReq)^s.ack)&bit == 0 {
		s.setAck(s.ack ^ bit)
	}
	if f.load(s.in+abi.StreamAckIRQMask)&bit == 0 {
		return
	}
	// A bit that the host has not acknowledged stays: the event is lost on a
	// host that inspects before it acknowledges.
	if own := uint32(1) << s.index; (f.load(s.g.in+abi.GroupIRQAck)^s.g.irqReq)&own == 0 {
		s.g.irqReq ^= own
		f.store(s.g.out+abi.GroupIRQReq, s.g.irqReq)
	}
	f.interruptJob(irqStream, s.id(), abi.JobIntGroup(s.g.slot))
}

// watchFault lets a stream go on whose fault the host has acknowledged, and
// reports whether it did.
func (s *stream) watchFault() bool {
	f := s.g.f
	req := f.load(s.in + abi.StreamReq)
	worked := false
	if s.faultHeld && (req^s.ack)&abi.StreamFaultEvent == 0 {
		s.faultHeld, s.look = false, true
		s.readyAt = max(s.readyAt, f.now())
		worked = true
	}
	if s.then != nil && f.cfg.Ports.Registers.Load(abi.RegJobIntRaw)&abi.JobIntGroup(s.g.slot) == 0 {
		then := s.then
		s.then = nil
		then()
		worked = true
	}
	if own := uint32(1) << s.index; len(s.again) > 0 && (f.load(s.g.in+abi.GroupIRQAck)^s.g.irqReq)&own == 0 {
		again := s.again
		s.again = nil
		for _, do := range again {
			do()
		}
		worked = true
	}
	return worked
}

// accessFailed handles an address that cannot be used: through a disabled
// address space the stream stalls, and is lost when that lasts; otherwise the MMU and
// the stream report it. It reports whether the instruction is over.
func (s *stream) accessFailed(err error, fetch bool) bool {
	f, a := s.g.f, asAccess(err)
	if a == nil {
		s.fault(abi.ExceptionAddressRange, 0)
		return true
	}
	now := f.now()
	if a.disabled {
		if s.stallAt == never {
			s.stallAt = now + f.cfg.Stall
		}
		if now < s.stallAt {
			return false
		}
		s.stallAt = never
		s.fatal(abi.ExceptionBus, a.address)
		return true
	}
	f.mmuFault(a)
	switch {
	case fetch:
		s.fatal(abi.ExceptionBus, a.address)
	case f.cfg.MMUFatal:
		s.fatal(a.exception, a.address)
	default:
		s.fault(a.exception, a.address)
	}
	return true
}

// mmuAccess reports an access of the firmware itself that failed.
func (f *Firmware) mmuAccess(err error) {
	if a := asAccess(err); a != nil && !a.disabled {
		f.mmuFault(a)
	}
}

// violation remembers something that the host must not do.
func (f *Firmware) violation(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	f.say("MISUSE", text)
	if len(f.violations) < violationsMax {
		f.violations = append(f.violations, text)
	}
}

// Violations returns what the host did that it must not: changes of state that
// are not legal, equal priorities of resident groups, writes into the firmware's blocks,
// malformed tables. The first ones are kept.
func (f *Firmware) Violations() []string { return append([]string(nil), f.violations...) }
