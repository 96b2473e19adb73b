package fw

import "github.com/gpuwm/gpuwm/plugins/mali/abi"

// writeSync adds to or sets a sync object, writes its status, and wakes who
// waits: the host too when the scope is the system's.
func (s *stream) writeSync(i abi.Instruction) {
	f := s.g.f
	wide := i.Op == abi.OpSyncAdd64 || i.Op == abi.OpSyncSet64
	size, statusAt := uint64(abi.Sync32Size), uint64(abi.Sync32Status)
	if wide {
		size, statusAt = abi.Sync64Size, abi.Sync64Status
	}
	at, ok := s.address(i.Address, 0, size, size/2, abi.AccessAtomic)
	if !ok {
		return
	}
	if i.Propagate {
		status := uint32(0)
		if s.failed {
			status = 1
		}
		// Before the value: who sees the value must see how it was reached.
		f.store(at+statusAt, status)
	}
	switch i.Op {
	case abi.OpSyncAdd32:
		f.store(at, f.load(at)+s.regs[i.Source])
	case abi.OpSyncSet32:
		f.store(at, s.regs[i.Source])
	case abi.OpSyncAdd64:
		f.storeLong(at, f.load64(at)+s.pair(i.Source))
	case abi.OpSyncSet64:
		f.storeLong(at, s.pair(i.Source))
	}
	f.counters.Syncs++
	f.syncs++
	if i.Scope == abi.ScopeSystem {
		s.g.event(abi.GroupSyncUpdate)
	}
}

// syncWait tries a SYNC_WAIT and reports what became of it.
func (s *stream) syncWait(i abi.Instruction) outcome {
	f := s.g.f
	wide := i.Op == abi.OpSyncWait64
	size, statusAt := uint64(abi.Sync32Size), uint64(abi.Sync32Status)
	value := uint64(s.regs[i.Source])
	if wide {
		size, statusAt, value = abi.Sync64Size, abi.Sync64Status, s.pair(i.Source)
	}
	if i.Condition != abi.LessOrEqual && i.Condition != abi.Greater {
		s.fatal(abi.ExceptionInvalidInstruction, s.pc())
		return outcomeStay
	}
	va := s.pair(i.Address)
	if va%(size/2) != 0 {
		s.fault(abi.ExceptionAddressRange, va)
		return outcomeNext
	}
	at, err := f.translate(s.g.as, va, size, abi.AccessRead)
	if err != nil {
		return s.accessOutcome(err)
	}
	have := uint64(f.load(at))
	if wide {
		have = f.load64(at)
	}
	if (have > value) != (i.Condition == abi.Greater) {
		s.block(abi.BlockedSync, abi.WaitStatus{Sync: true, Sync64: wide, Condition: i.Condition}, va, value)
		s.syncsSeen = f.syncs
		s.pollAt = never
		if f.cfg.SyncPoll > 0 {
			s.pollAt = f.now() + f.cfg.SyncPoll
		}
		return outcomeStay
	}
	s.pollAt = never
	if inherits := i.Reject == f.cfg.RejectInherits; inherits && f.load(at+statusAt) != 0 {
		s.fault(abi.ExceptionInherit, va)
	}
	return outcomeNext
}

// worthATry reports whether a blocked instruction could go on now.
func (s *stream) worthATry() bool {
	f := s.g.f
	if s.look || s.wait.reason == abi.BlockedResource {
		return true
	}
	if s.wait.reason == abi.BlockedSync {
		return s.syncsSeen != f.syncs || f.now() >= s.pollAt
	}
	if s.stallAt != never {
		return f.now() >= s.stallAt
	}
	return s.wait == wait{}
}
