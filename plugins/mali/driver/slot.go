package driver

import (
	"fmt"
	"slices"
	"time"

	"github.com/gpuwm/gpuwm/plugins/mali/abi"
)

// slot is one CSG slot.
type slot struct {
	index uint32
	iface groupIface
	group *group
	// priority is the CSG priority that the firmware acknowledged.
	priority uint8
	// asked are the bits of CSG_REQ whose acknowledgement is awaited; before is a mask of the
	// states that may be acknowledged until then: the one there was, and those that were
	// requested in vain.
	asked  uint32
	before uint32
	// failed says that what came was not what was asked for.
	failed bool
}

// ask requests toggles of a slot; submit tells the firmware.
func (d *Driver) ask(s *slot, toggles uint32) {
	req, ack := d.load(s.iface.input+abi.GroupReq), d.load(s.iface.output+abi.GroupAck)
	d.store(s.iface.input+abi.GroupReq, abi.Toggle(req, ack, toggles))
	s.asked |= toggles
}

// askState requests a state of the slot's group.
func (d *Driver) askState(s *slot, to abi.GroupState, e event) {
	if !s.group.advance(e) {
		return
	}
	req := s.iface.input + abi.GroupReq
	if s.asked&abi.GroupStateMask == 0 {
		s.before = 0
	} else {
		s.before |= 1 << (d.load(req) & abi.GroupStateMask)
	}
	s.before |= 1 << (d.load(s.iface.output+abi.GroupAck) & abi.GroupStateMask)
	d.store(req, abi.SetField(d.load(req), abi.GroupStateMask, uint32(to)))
	s.asked |= abi.GroupStateMask
	if to == abi.GroupSuspend {
		s.group.noteAsked()
		s.group.spoilImage()
	}
}

// spoilImage overwrites the beginning of the suspend buffer before it is written anew: should
// that not happen, an older image must not be taken for the new one.
func (g *group) spoilImage() {
	const size = 64
	for at := g.suspend; at < g.suspend+size; at += 8 {
		g.d.store64(at, 0)
	}
}

// submit rings once for everything that was asked of the slots and goes on when
// all of it is acknowledged, or with those that were late.
func (d *Driver) submit(bound time.Duration, done func(late []*slot)) {
	mask := uint32(0)
	for _, s := range d.slots {
		if s.asked != 0 {
			mask |= 1 << s.index
		}
	}
	if mask == 0 {
		done(nil)
		return
	}
	d.kick(mask)
	d.expect(bound, 0, d.acknowledged, func() { done(nil) }, func() {
		done(slices.DeleteFunc(slices.Clone(d.slots), func(s *slot) bool { return s.asked == 0 }))
	})
}

// acknowledged takes what was acknowledged and reports whether all is.
func (d *Driver) acknowledged() bool {
	left := false
	for _, s := range d.slots {
		if s.asked != 0 {
			d.acknowledge(s)
			left = left || s.asked != 0
		}
	}
	return !left
}

// acknowledge takes what one slot acknowledged: EP_CFG first, then the state, then STATUS_UPDATE.
func (d *Driver) acknowledge(s *slot) {
	req, ack := d.load(s.iface.input+abi.GroupReq), d.load(s.iface.output+abi.GroupAck)
	equal := s.asked &^ abi.Pending(req, ack)
	g := s.group
	if equal&abi.GroupEndpointCfg != 0 {
		s.priority = abi.DecodeEndpoints(d.load(s.iface.input + abi.GroupEndpointReq)).Priority
	}
	status := equal&abi.GroupStatusUpdate != 0
	if s.asked&abi.GroupStateMask != 0 {
		have, want := ack&abi.GroupStateMask, req&abi.GroupStateMask
		switch {
		case have == want:
			equal |= abi.GroupStateMask
			d.reached(s, abi.GroupState(have))
			status = status || have == uint32(abi.GroupSuspend)
		case s.before>>have&1 == 0:
			equal |= abi.GroupStateMask
			s.failed = true
			g.advance(contradict)
			d.log.Warn("group state contradicts", "entity", g.key, "slot", s.index, "state", abi.GroupState(have))
		default:
			equal &^= abi.GroupStateMask
		}
	}
	s.asked &^= equal
	if status && g != nil {
		d.deriveQueues(s)
	}
}

// reached moves the state of a group whose slot is where it was wanted.
func (d *Driver) reached(s *slot, to abi.GroupState) {
	switch to {
	case abi.GroupTerminate:
		s.group.advance(ackTerminated)
	case abi.GroupSuspend:
		s.group.advance(ackSuspended)
		if !s.group.dirty {
			s.group.dirty = true
			d.dirty = append(d.dirty, s.group)
		}
	default:
		s.group.advance(ackActive)
		s.group.seen, s.group.since = d.now(), d.now()
	}
}

// deriveQueues reads the status registers of a slot, which are fresh now: which queues are blocked, and by what.
func (d *Driver) deriveQueues(s *slot) {
	g, blocked := s.group, uint32(0)
	for m, q := range g.queues {
		out := s.iface.streams[m].output
		if abi.BlockedReason(d.load(out+abi.StreamBlockedReason)) != abi.BlockedSync || len(q.jobs) == 0 {
			continue
		}
		w := abi.DecodeWaitStatus(d.load(out + abi.StreamStatusWait))
		g.waits[m] = syncWait{address: d.load64Words(out + abi.StreamWaitPointer), value: uint64(d.load(out + abi.StreamWaitValue)),
			wide: w.Sync64, greater: w.Condition == abi.Greater}
		if w.Sync64 {
			g.waits[m].value |= uint64(d.load(out+abi.StreamWaitValueHigh)) << 32
		}
		if d.load(out+abi.StreamScoreboards) == 0 && !d.satisfied(g, m) {
			blocked |= 1 << m
		}
	}
	g.setBlocked(blocked)
	g.refresh()
}

// satisfied evaluates a sync wait on the host. A wait that can't be read is none of ours to end.
func (d *Driver) satisfied(g *group, m int) bool {
	w := g.waits[m]
	size := uint64(abi.Sync32Size)
	if w.wide {
		size = abi.Sync64Size
	}
	at, err := d.resolve(g.space, w.address, size)
	if err != nil {
		return false
	}
	value := uint64(d.load(at))
	if w.wide {
		value = d.load64Words(at)
	}
	return (value > w.value) == w.greater
}

// recheckBlocked looks at what blocked queues wait for: nothing tells when the host stores
// to a sync object, or another slot does for a group that has none.
func (d *Driver) recheckBlocked() {
	if d.blockedGroups == 0 {
		return
	}
	for _, g := range d.ordered() {
		left := g.blocked
		for m := range g.queues {
			if left&(1<<m) != 0 && d.satisfied(g, m) {
				left &^= 1 << m
			}
		}
		if left != g.blocked {
			g.setBlocked(left)
			g.refresh()
		}
	}
}

// bind gives a group its slot and programs everything but the state.
func (d *Driver) bind(s *slot, g *group, priority uint8) {
	s.group, g.slot, s.failed = g, s, false
	cores := d.read64(abi.RegShaderPresent)
	streams := uint32(0)
	for m, q := range g.queues {
		in := s.iface.streams[m].input
		if g.state == created {
			d.store64(q.pages+abi.RingExtractInit, q.begin)
		} else {
			d.store64(q.pages+abi.RingExtractInit, q.from())
		}
		d.store64Words(in+abi.StreamBase, q.ringVA)
		d.store(in+abi.StreamSize, q.size)
		d.store64Words(in+abi.StreamUserInput, mcuAddress(q.pages))
		d.store64Words(in+abi.StreamUserOutput, mcuAddress(q.pages+abi.RingPageSize))
		d.store(in+abi.StreamConfig, abi.StreamConfigWord(q.priority, uint8(s.index+1)))
		d.store(in+abi.StreamAckIRQMask, ^uint32(0))
		ack := d.load(s.iface.streams[m].output + abi.StreamAck)
		d.store(in+abi.StreamReq, ack&abi.StreamEvents|abi.StreamStart|abi.StreamIdleSyncWait|abi.StreamIdleEmpty)
		streams |= 1 << m
		q.watch = watch{at: d.now()}
	}
	in := s.iface.input
	d.store64Words(in+abi.GroupAllowCompute, cores)
	d.store64Words(in+abi.GroupAllowFragment, 0)
	d.store(in+abi.GroupAllowOther, 0)
	d.setPriority(s, priority)
	d.store(in+abi.GroupConfig, g.space.as)
	d.store64Words(in+abi.GroupSuspendBuffer, mcuAddress(g.suspend))
	d.store64Words(in+abi.GroupProtectedBuffer, 0)
	d.store(in+abi.GroupAckIRQMask, ^uint32(0))
	d.kickStreams(s, streams)
	if g.state == suspended {
		g.resumed = true
		d.askState(s, abi.GroupResume, sendResume)
	} else {
		d.askState(s, abi.GroupStart, sendStart)
	}
}

// setPriority writes EP_REQ and requests it: as many cores as there are, and the CSG priority.
func (d *Driver) setPriority(s *slot, priority uint8) {
	cores := d.read64(abi.RegShaderPresent)
	count := 0
	for ; cores != 0; cores &= cores - 1 {
		count++
	}
	d.store(s.iface.input+abi.GroupEndpointReq, abi.Endpoints{Compute: uint8(min(count, 255)), Priority: priority}.Encode())
	d.ask(s, abi.GroupEndpointCfg)
}

// unbind takes a group that is off the hardware out of its slot, after a last look: what it finds may begin
// a reset, which takes the caller's place.
func (d *Driver) unbind(s *slot) {
	g := s.group
	if g == nil {
		return
	}
	d.serveMMU() // While the address space is still its own.
	d.serveSlot(s)
	if d.loop.Failure() != nil || s.group != g {
		return
	}
	g.scan()
	g.blameFault()
	for m := range g.queues {
		// The slot is used again only by a later START or RESUME.
		in := s.iface.streams[m].input + abi.StreamReq
		d.store(in, abi.SetField(d.load(in), abi.StreamStateMask, abi.StreamStop))
	}
	g.charge()
	s.group, g.slot, s.asked = nil, nil, 0
	d.spaces.deactivate(g.space)
}

// slotError names a slot in an error.
func slotError(s *slot, what string, args ...any) error {
	return fmt.Errorf("csg slot %d: %s", s.index, fmt.Sprintf(what, args...))
}
