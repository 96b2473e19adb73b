package fw

import "github.com/gpuwm/gpuwm/plugins/mali/abi"

// readInsert reads INSERT in halves, so that a host that stores it in halves
// is caught at it, and passes over a value that cannot be.
func (s *stream) readInsert() {
	f := s.g.f
	if s.userIn == 0 {
		return
	}
	var v uint64
	const triesMax = 8
	for range triesMax {
		high := f.load(s.userIn + abi.RingInsert + 4)
		v = uint64(f.load(s.userIn+abi.RingInsert)) | uint64(high)<<32
		if f.load(s.userIn+abi.RingInsert+4) == high {
			break
		}
	}
	rules, lost := f.meet(PointInsert, "", s.id())
	if lost {
		return
	}
	for _, r := range rules {
		if r.Action == FaultTorn { // The old low half with the new high one.
			v = v&^0xFFFFFFFF | (s.insert^1<<31)&0xFFFFFFFF
		}
	}
	if v < s.extract || v-s.extract > uint64(s.size) || v%abi.InstructionSize != 0 {
		f.counters.InsertsIgnored++
		if f.cfg.RefuseInsert {
			s.fatal(abi.ExceptionConfig, v)
			return
		}
		s.insertAt = f.now() + max(f.cfg.SyncPoll, syncPollDefault)
		return
	}
	s.insert = v
}

// showExtract publishes EXTRACT.
func (s *stream) showExtract() {
	at := s.extract
	if s.fetched {
		at += abi.InstructionSize
	}
	s.shown = at
	s.g.f.storeLong(s.userOut+abi.RingExtract, at)
}

// busy are the scoreboards that are not zero, without those that one operation holds.
func (s *stream) busy(without *op) uint16 {
	mask := uint16(0)
	for _, o := range s.ops {
		if o != without {
			mask |= 1 << o.slot
		}
	}
	for _, d := range s.dispatches {
		mask |= 1 << d.slot
	}
	return mask
}

// empty reports whether the ring has been executed to its end.
func (s *stream) empty() bool { return len(s.frames) == 0 && s.extract == s.insert }

// pc is the address of the present instruction.
func (s *stream) pc() uint64 {
	if n := len(s.frames); n > 0 {
		return s.frames[n-1].pc
	}
	if s.size == 0 {
		return s.base
	}
	return s.base + s.extract&uint64(s.size-1)
}
