package fw

import (
	"time"

	"github.com/gpuwm/gpuwm/plugins/mali/abi"
)

// op is an operation that counts on a scoreboard between its issue and its end.
type op struct {
	ins  abi.Instruction
	slot uint8
	// waitMask: deferred until these are zero; then it is issued.
	waitMask uint16
	issued   bool
	doneAt   time.Duration
	// complete is what happens at the end; nil for what only takes time.
	complete func()
}

// issue begins what an instruction does beside the stream: at once, or deferred
// until the scoreboards of its trailer are zero. It reports whether there was room.
func (s *stream) issue(o *op) bool {
	if o.waitMask&s.busy(o) == 0 {
		s.perform(o)
		return true
	}
	deferred := 0
	for _, other := range s.ops {
		if !other.issued {
			deferred++
		}
	}
	if deferred >= s.g.f.cfg.Deferrals {
		return false
	}
	s.ops = append(s.ops, o)
	return true
}

// perform executes an operation that has waited long enough; what takes time
// completes later.
func (s *stream) perform(o *op) {
	f := s.g.f
	latency := s.execute(o)
	if latency == 0 || o.complete == nil && latency < 0 {
		if o.complete != nil {
			o.complete()
		}
		return
	}
	o.issued, o.doneAt = true, f.now()+max(latency, 0)
	s.ops = append(s.ops, o)
}

// settle completes what is due and issues what was deferred, in the order of
// the stream. It reports whether anything happened.
func (s *stream) settle() bool {
	now, worked := s.g.f.now(), false
	for {
		at := -1
		for i, o := range s.ops {
			if o.issued && o.doneAt <= now || !o.issued && o.waitMask&s.busy(o) == 0 {
				at = i
				break
			}
		}
		if at < 0 {
			return worked
		}
		o := s.ops[at]
		s.ops = append(s.ops[:at:at], s.ops[at+1:]...)
		if !o.issued {
			s.perform(o)
		} else if o.complete != nil {
			o.complete()
		}
		worked, s.look = true, true
	}
}

// drain completes everything that was issued, as a suspend does; what is
// deferred stays.
func (s *stream) drain() {
	var deferred []*op
	for _, o := range s.ops {
		switch {
		case !o.issued:
			deferred = append(deferred, o)
		case o.complete != nil:
			o.complete()
		}
	}
	s.ops = deferred
	if s.wait.reason == abi.BlockedScoreboard && s.wait.status.Scoreboards&s.busy(nil) == 0 {
		s.wait = wait{}
	}
}

// execute does what an asynchronous instruction does when it is issued, and
// returns how long it takes; 0 is at once, negative that it failed.
func (s *stream) execute(o *op) time.Duration {
	f, i := s.g.f, o.ins
	switch i.Op {
	case abi.OpFlushCache2:
		id := s.regs[i.Source] & flushIDMask
		if id != 0 && id != f.gpu.flushID {
			f.counters.FlushesSkipped++ // Somebody has flushed since.
			return 0
		}
		o.complete = func() { f.flush(i.L2) }
		return f.cfg.Latency
	case abi.OpStoreState:
		at, ok := s.address(i.Address, int64(i.Offset), 8, 8, abi.AccessWrite)
		if !ok {
			return -1
		}
		v := s.stored(i.State)
		o.complete = func() { f.storeLong(at, v) }
		return f.cfg.Latency
	case abi.OpSyncAdd32, abi.OpSyncSet32, abi.OpSyncAdd64, abi.OpSyncSet64:
		s.writeSync(i)
		return 0
	case abi.OpHeapOperation:
		switch i.Heap {
		case abi.HeapVertexStart:
			s.heapCounts[0]++
		case abi.HeapVertexEnd:
			s.heapCounts[1]++
		case abi.HeapFragmentEnd:
			s.heapCounts[2]++
		}
		return 0
	}
	return f.cfg.Latency // TRACE_POINT, graphics.
}

// stored is what STORE_STATE stores.
func (s *stream) stored(state abi.StoredState) uint64 {
	f := s.g.f
	switch state {
	case abi.StateTimestamp:
		return ticks(f.now(), f.cfg.TimestampRate)
	case abi.StateCycles:
		return ticks(f.now(), f.cfg.CycleRate)
	case abi.StateError:
		if s.failed {
			return uint64(s.failure)
		}
	}
	return 0
}

// address translates what a register pair and an offset name; when it cannot
// be used, the fault is reported and false returned.
func (s *stream) address(pair uint8, offset int64, size, alignment uint64, kind abi.AccessType) (uint64, bool) {
	va := s.pair(pair) + uint64(offset)
	if va%alignment != 0 {
		s.fault(abi.ExceptionAddressRange, va)
		return 0, false
	}
	at, err := s.g.f.translate(s.g.as, va, size, kind)
	if err == nil {
		return at, true
	}
	if a := asAccess(err); a != nil && a.disabled {
		s.fatal(abi.ExceptionBus, va) // An operation beside the stream cannot wait.
		return 0, false
	}
	s.accessFailed(err, false)
	return 0, false
}

// pair is the value of a register pair.
func (s *stream) pair(r uint8) uint64 { return uint64(s.regs[r]) | uint64(s.regs[r+1])<<32 }

func (s *stream) setPair(r uint8, v uint64) { s.regs[r], s.regs[r+1] = uint32(v), uint32(v>>32) }
