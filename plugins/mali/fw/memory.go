package fw

import "github.com/gpuwm/gpuwm/plugins/mali/abi"

// transfer begins a load or store; memory and registers meet when it completes.
func (s *stream) transfer(i abi.Instruction) outcome {
	f := s.g.f
	kind := abi.AccessRead
	if i.Op == abi.OpStoreMultiple {
		kind = abi.AccessWrite
	}
	var at [16]uint64
	for n := range uint8(16) {
		if i.Mask>>n&1 == 0 {
			continue
		}
		va := s.pair(i.Address) + uint64(int64(i.Offset)) + 4*uint64(n)
		if va%4 != 0 {
			s.fault(abi.ExceptionAddressRange, va)
			return outcomeNext
		}
		device, err := f.translate(s.g.as, va, 4, kind)
		if err != nil {
			return s.accessOutcome(err)
		}
		at[n] = device
		if kind == abi.AccessRead && f.cfg.PoisonLoads {
			s.regs[i.Dest+n] = poison
		}
	}
	o := &op{ins: i, slot: s.other, complete: func() {
		for n := range uint8(16) {
			switch {
			case i.Mask>>n&1 == 0:
			case kind == abi.AccessRead:
				s.regs[i.Dest+n] = f.load(at[n])
			default:
				f.store(at[n], s.regs[i.Dest+n])
			}
		}
	}}
	s.issue(o)
	return outcomeNext
}

// poison is what a register holds that a load will write.
const poison = 0xDEAD_BEEF

// progressWait waits for another stream's progress counter.
func (s *stream) progressWait(i abi.Instruction) outcome {
	if int(i.Queue) >= len(s.g.streams) {
		s.fatal(abi.ExceptionInvalidInstruction, s.pc())
		return outcomeStay
	}
	want := s.pair(i.Source)
	if s.g.streams[i.Queue].progress < want {
		s.block(abi.BlockedProgress, abi.WaitStatus{Progress: true}, 0, want)
		return outcomeStay
	}
	return outcomeNext
}

// protected asks for protected mode, which never comes.
func (s *stream) protected() outcome {
	if !s.protectedTold {
		s.protectedTold = true
		s.event(abi.StreamProtectedPend)
	}
	s.block(abi.Unblocked, abi.WaitStatus{Protected: true}, 0, 0)
	return outcomeStay
}
