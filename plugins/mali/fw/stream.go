package fw

import (
	"fmt"
	"math/bits"
	"time"

	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/plugins/mali/abi"
)

// stream is one CS of a slot.
type stream struct {
	g     *group
	index uint32
	// in and out are the device addresses of its blocks, ack what was acknowledged.
	in, out uint64
	ack     uint32

	// armed: the host started it before its group. started: it has a context.
	armed, started bool
	// stopping: it fetches nothing more and stops when its work has ended.
	stopping bool
	// halted: after a fatal fault it does nothing until its group is terminated.
	// faultHeld: after a fault it waits for the host's acknowledgement or a kick.
	halted, faultHeld bool

	// Latched at start.
	priority, doorbell uint8
	// userIn and userOut are the device addresses of the ring pages.
	userIn, userOut uint64
	// insert is INSERT as read last, shown is EXTRACT as written last.
	insert, shown uint64

	csContext
	// wait is why the present instruction does not go on.
	wait wait
	// ops are operations between issue and completion, deferred ones included.
	ops []*op
	// readyAt is when the next instruction may execute.
	readyAt time.Duration
	// look: something changed, a blocked instruction is worth another try.
	look bool
	// syncsSeen and pollAt belong to a blocked SYNC_WAIT, stallAt to an access
	// through a disabled address space (never: none).
	syncsSeen       uint64
	pollAt, stallAt time.Duration
	// insertAt is when an INSERT that could not be is read again.
	insertAt time.Duration
	// protectedTold: it asked for protected mode.
	protectedTold bool
	// fetched: the ring's present instruction has moved EXTRACT (see ExtractAtFetch).
	fetched bool
	// late is a fault that a plan reports once the ring is empty, 0 for none.
	late abi.Exception
	// again are events that a fault plan repeats once the host has seen the first one.
	again []func()
	// then is what a fault plan has happen once the host has cleared the interrupt of the event before it.
	then func()
}

// csContext is what an image keeps of a stream.
type csContext struct {
	base    uint64
	size    uint32
	extract uint64
	// frames are the open calls, the innermost last; none at the level of the ring.
	frames          []frame
	regs            [registersMax]uint32
	endpoint, other uint8
	// failed is the error state.
	failed     bool
	failure    uint32
	handler    [2]uint64
	resources  abi.Resources
	progress   uint64
	heap       uint64
	heapCounts [3]uint32
	dispatches []*dispatch
}

// frame is where a call goes on, and where it ends.
type frame struct{ pc, end uint64 }

// wait is why a stream is blocked; the zero value means that it is not.
type wait struct {
	reason  abi.BlockedReason
	status  abi.WaitStatus
	pointer uint64
	value   uint64
}

func (f *Firmware) newStream(g *group, index uint32, in uint64) *stream {
	s := &stream{g: g, index: index, in: in, out: in + hw.PageSize, pollAt: never, stallAt: never, insertAt: never}
	s.ack = f.bootAck(f.load(in+abi.StreamReq), abi.StreamStateMask)
	for at := uint64(0); at < abi.StreamOutputSize; at += 4 {
		f.store(s.out+at, 0)
	}
	f.store(s.out+abi.StreamAck, s.ack)
	return s
}

// id is how a fault plan names the stream.
func (s *stream) id() uint64 { return uint64(s.g.slot)*abi.StreamsMax + uint64(s.index) }

// kick takes the requests of a stream and looks at its ring.
func (s *stream) kick() {
	f := s.g.f
	req := f.load(s.in + abi.StreamReq)
	diff := abi.Pending(req, s.ack) &^ abi.StreamEvents
	if diff != 0 {
		f.note("CS_REQ", func(w []uint32) string {
			return fmt.Sprintf("csg=%d cs=%d %s", w[0], w[1], abi.DescribeStream(w[2], w[3]))
		}, s.g.slot, s.index, req, diff)
	}
	if levels := diff & (abi.StreamIdleConditions | abi.StreamExtractEvent); levels != 0 {
		s.setAck(abi.Acknowledge(s.ack, req, levels))
	}
	s.faultHeld = false // A kick is as good as an acknowledgement.
	if diff&abi.StreamStateMask != 0 {
		switch req & abi.StreamStateMask {
		case abi.StreamStart:
			s.start()
		case abi.StreamStop:
			s.stopping = s.started
			s.armed = false
			if !s.started {
				s.stopped()
			}
		default:
			f.violation("stream %d of group %d: state %d", s.index, s.g.slot, req&abi.StreamStateMask)
		}
	}
	if s.started {
		s.readInsert()
	}
	s.look = true
}

// start arms the stream, or begins if its group is active already, and
// acknowledges. A repeat only acknowledges.
func (s *stream) start() {
	if !s.started && !s.armed {
		s.armed = true
		if s.g.active() && s.g.leaving == nil {
			s.begin()
		}
	}
	s.g.f.acknowledge(PointStream, "START", s.id(), func(uint32) {
		if s.started || s.armed {
			s.setAck(abi.SetField(s.ack, abi.StreamStateMask, abi.StreamStart))
		}
	}, func() {})
}

// stopped acknowledges a stop.
func (s *stream) stopped() {
	f := s.g.f
	s.started, s.stopping = false, false
	f.acknowledge(PointStream, "STOP", s.id(), func(uint32) {
		s.setAck(abi.SetField(s.ack, abi.StreamStateMask, abi.StreamStop))
	}, func() {})
}

// setAck publishes the acknowledgement.
func (s *stream) setAck(ack uint32) {
	if ack == s.ack {
		return
	}
	f := s.g.f
	f.note("CS_ACK", func(w []uint32) string {
		return fmt.Sprintf("csg=%d cs=%d %s", w[0], w[1], abi.DescribeStream(w[2], w[3]))
	}, s.g.slot, s.index, ack, ack^s.ack)
	s.ack = ack
	f.store(s.out+abi.StreamAck, ack)
}

// latch takes over what the host programmed; false when it cannot work.
func (s *stream) latch() bool {
	f := s.g.f
	s.base, s.size = f.load64(s.in+abi.StreamBase), f.load(s.in+abi.StreamSize)
	s.priority, s.doorbell = abi.DecodeStreamConfig(f.load(s.in + abi.StreamConfig))
	s.armed, s.started, s.stopping, s.halted, s.faultHeld = false, true, false, false, false
	s.wait, s.pollAt, s.stallAt, s.insertAt = wait{}, never, never, never
	s.fetched, s.protectedTold, s.late = false, false, 0
	s.readyAt, s.look, s.ops, s.again, s.then = f.now(), true, nil, nil, nil
	s.userIn, s.userOut = 0, 0
	if s.size < abi.RingSizeMin || bits.OnesCount32(s.size) != 1 || s.base%abi.InstructionSize != 0 {
		return false
	}
	if _, err := f.translate(s.g.as, s.base, uint64(s.size), abi.AccessExecute); err != nil {
		return false
	}
	in, err := f.translate(0, f.load64(s.in+abi.StreamUserInput), 2*8, abi.AccessRead)
	if err != nil || in%8 != 0 {
		return false
	}
	out, err := f.translate(0, f.load64(s.in+abi.StreamUserOutput), 2*8, abi.AccessWrite)
	if err != nil || out%8 != 0 {
		return false
	}
	s.userIn, s.userOut = in, out
	return true
}

// begin starts from EXTRACT_INIT with an empty context.
func (s *stream) begin() {
	f := s.g.f
	regs := s.regs
	s.csContext = csContext{}
	if f.cfg.KeepRegisters {
		s.regs = regs
	}
	if !s.latch() {
		s.fatal(abi.ExceptionConfig, s.base)
		return
	}
	s.extract = f.load64(s.userIn + abi.RingExtractInit)
	s.insert = s.extract
	s.showExtract()
	f.store(s.userOut+abi.RingActive, 1)
	s.readInsert()
}

// forget drops the context; the registers stay for whoever finds them.
func (s *stream) forget() {
	for _, d := range s.dispatches {
		d.s = nil
	}
	if s.userOut != 0 {
		s.g.f.store(s.userOut+abi.RingActive, 0)
	}
	s.csContext = csContext{regs: s.regs}
	s.armed, s.started, s.stopping, s.halted, s.faultHeld = false, false, false, false, false
	s.ops, s.again, s.then, s.wait, s.pollAt, s.stallAt, s.insertAt = nil, nil, nil, wait{}, never, never, never
	s.userIn, s.userOut = 0, 0
}

// isIdle reports whether an enabled idle condition holds with all scoreboards zero.
func (s *stream) isIdle() bool {
	if s.halted || s.faultHeld || s.busy(nil) != 0 {
		return false
	}
	enabled := s.ack
	switch {
	case s.wait.status.Protected:
		return enabled&abi.StreamIdleProtected != 0
	case s.wait.reason == abi.BlockedSync:
		return enabled&abi.StreamIdleSyncWait != 0
	case s.wait.reason == abi.BlockedResource:
		return enabled&abi.StreamIdleResource != 0
	}
	return s.empty() && enabled&abi.StreamIdleEmpty != 0
}

// writeStatus refreshes the status registers.
func (s *stream) writeStatus() {
	f, out := s.g.f, s.out
	f.storeLong(out+abi.StreamStatusPC, s.pc())
	f.store(out+abi.StreamStatusWait, s.wait.status.Encode())
	granted := abi.Resources(0)
	if s.wait.reason != abi.BlockedResource {
		granted = s.resources
	}
	f.store(out+abi.StreamStatusResource, abi.ResourceStatus(s.resources, granted))
	f.storeLong(out+abi.StreamWaitPointer, s.wait.pointer)
	f.store(out+abi.StreamWaitValue, uint32(s.wait.value))
	f.store(out+abi.StreamWaitValueHigh, uint32(s.wait.value>>32))
	f.store(out+abi.StreamScoreboards, uint32(s.busy(nil)))
	f.store(out+abi.StreamBlockedReason, uint32(s.wait.reason))
	for i, at := range [...]uint64{abi.StreamHeapVertexStart, abi.StreamHeapVertexEnd, abi.StreamHeapFragmentEnd} {
		f.store(out+at, s.heapCounts[i])
	}
	f.storeLong(out+abi.StreamHeapAddress, s.heap)
}

// deadline is when something of the stream falls due.
func (s *stream) deadline() time.Duration {
	f, at := s.g.f, never
	if !s.started {
		return at
	}
	for _, o := range s.ops {
		if o.issued {
			at = f.sooner(at, o.doneAt)
		}
	}
	if s.halted {
		return at
	}
	at = f.sooner(at, s.insertAt, s.stallAt)
	switch {
	case !s.runnable():
	case s.wait == wait{}:
		at = f.sooner(at, s.readyAt)
	default:
		at = f.sooner(at, s.pollAt)
		if s.look {
			at = f.sooner(at, s.readyAt)
		}
	}
	return at
}

// runnable reports whether the stream has an instruction that it may try.
func (s *stream) runnable() bool {
	return s.started && !s.halted && !s.faultHeld && !s.stopping && s.g.active() && s.g.leaving == nil && !s.empty()
}
