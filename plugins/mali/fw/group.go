package fw

import (
	"fmt"
	"time"

	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/plugins/mali/abi"
)

// group is one CSG slot.
type group struct {
	f    *Firmware
	slot uint32
	// in and out are the device addresses of its blocks; then what was written to
	// the output block.
	in, out            uint64
	ack, dbAck, irqReq uint32
	streams            []*stream

	// state is what was reached; START and RESUME mean that it is active.
	state abi.GroupState
	// leaving is what an active group is on its way to.
	leaving *leaving
	// What the host programmed: endpoints with EP_CFG, the rest with START and RESUME.
	endpoints  abi.Endpoints
	allow      uint64
	allowOther bool
	as         uint32
	suspendVA  uint64
	generation uint64

	// idle: every started stream satisfies an enabled idle condition.
	idle bool
	// progressAt is when endpoint work last completed a task, progressMark what was
	// done then, progressTold that the timer's event was raised.
	progressAt   time.Duration
	progressMark uint64
	progressTold bool
	// held are requests whose acknowledgement a fault plan took.
	held uint32
}

// leaving is a suspend or terminate under way.
type leaving struct{ to abi.GroupState }

func (f *Firmware) newGroup(slot uint32, in uint64) *group {
	g := &group{f: f, slot: slot, in: in, out: in + hw.PageSize, progressAt: never}
	g.ack = f.bootAck(f.load(in+abi.GroupReq), abi.GroupStateMask)
	g.dbAck = f.bootAck(f.load(in+abi.GroupDoorbellReq), 0)
	g.irqReq = f.bootAck(f.load(in+abi.GroupIRQAck), 0)
	for at := uint64(0); at < abi.GroupOutputSize; at += 4 {
		f.store(g.out+at, 0)
	}
	f.store(g.out+abi.GroupAck, g.ack)
	f.store(g.out+abi.GroupDoorbellAck, g.dbAck)
	f.store(g.out+abi.GroupIRQReq, g.irqReq)
	return g
}

// active reports whether the group may run.
func (g *group) active() bool { return g.state == abi.GroupStart || g.state == abi.GroupResume }

// kickGroup takes the requests of a group: endpoints, then its streams, then
// its state, then the status registers.
func (f *Firmware) kickGroup(g *group) {
	req := f.load(g.in + abi.GroupReq)
	diff := abi.Pending(req, g.ack) &^ abi.GroupEvents
	g.held &= diff
	if diff != 0 {
		f.note("CSG_REQ", func(w []uint32) string {
			return fmt.Sprintf("csg=%d %s", w[0], abi.DescribeGroup(w[1], w[2]))
		}, g.slot, req, diff)
	}
	if diff&abi.GroupEndpointCfg&^g.held != 0 {
		g.readEndpoints()
		f.ackGroup(g, "EP_CFG", req, abi.GroupEndpointCfg)
	}
	db := f.load(g.in + abi.GroupDoorbellReq)
	rung := db ^ g.dbAck
	g.dbAck = db
	f.store(g.out+abi.GroupDoorbellAck, db)
	for _, s := range g.streams {
		if rung>>s.index&1 != 0 {
			s.kick()
		}
	}
	if want := abi.GroupState(req & abi.GroupStateMask); uint32(want) != g.ack&abi.GroupStateMask && want != g.state {
		f.changeState(g, want)
	}
	if diff&abi.GroupStatusUpdate&^g.held != 0 && !f.mcu.frozen {
		g.writeStatus()
		f.ackGroup(g, "STATUS_UPDATE", req, abi.GroupStatusUpdate)
	}
}

// readEndpoints takes over what the group may use.
func (g *group) readEndpoints() {
	f := g.f
	g.endpoints = abi.DecodeEndpoints(f.load(g.in + abi.GroupEndpointReq))
	g.allow = f.load64(g.in + abi.GroupAllowCompute)
	g.allowOther = f.load64(g.in+abi.GroupAllowFragment) != 0 || f.load(g.in+abi.GroupAllowOther) != 0
	g.comparePriority()
}

// comparePriority finds active groups of equal priority: each could get half of the endpoints it needs.
func (g *group) comparePriority() {
	f := g.f
	for _, other := range f.groups {
		if g.active() && other != g && other.active() && other.endpoints.Priority == g.endpoints.Priority {
			f.violation("groups %d and %d have the same priority %d", g.slot, other.slot, g.endpoints.Priority)
		}
	}
}

// changeState begins a legal change and refuses others.
func (f *Firmware) changeState(g *group, want abi.GroupState) {
	legal := false
	switch want {
	case abi.GroupTerminate:
		legal = true
	case abi.GroupStart, abi.GroupResume:
		legal = !g.active()
	case abi.GroupSuspend:
		legal = g.active()
	}
	if g.leaving != nil && want != abi.GroupTerminate {
		return // It is on its way.
	}
	if !legal {
		f.counters.Illegal++
		f.violation("group %d: %s in %s", g.slot, want, g.state)
		if f.cfg.StrictTransitions {
			f.setGroupAck(g, g.ack|abi.GroupStateMask)
			f.interruptGroup(g, abi.GroupStateMask)
		}
		return
	}
	switch want {
	case abi.GroupStart, abi.GroupResume:
		f.enter(g, want)
	default:
		f.beginLeave(g, want)
	}
}

// enter makes a group active.
func (f *Firmware) enter(g *group, state abi.GroupState) {
	g.readEndpoints()
	g.as = abi.GroupConfigAS(f.load(g.in + abi.GroupConfig))
	g.suspendVA = f.load64(g.in + abi.GroupSuspendBuffer)
	g.state, g.idle, g.progressTold, g.progressAt = state, false, false, never
	g.comparePriority()
	ack := func() { f.ackState(g, state) }
	if state == abi.GroupStart {
		f.counters.Starts++
		if !f.cfg.FatalFirst {
			ack()
		}
		g.generation = 0
		for _, s := range g.streams {
			if s.armed {
				s.begin()
			}
		}
		if f.cfg.FatalFirst {
			ack()
		}
		return
	}
	f.counters.Resumes++
	ack()
	if err := f.restore(g); err != nil {
		f.say("CSG", fmt.Sprintf("csg=%d resume refused: %v", g.slot, err))
		for _, s := range g.streams {
			if s.armed {
				s.forget()
				s.started = true
				s.fatal(abi.ExceptionConfig, 0)
			}
		}
	}
}

// beginLeave stops fetching and asks what runs to end: at the next workgroup
// for a suspend (or at its end, if that is what the device does), at once for a terminate.
func (f *Firmware) beginLeave(g *group, to abi.GroupState) {
	if !g.active() {
		g.state = to
		f.left(g, to)
		return
	}
	g.leaving = &leaving{to}
	for _, r := range f.runs {
		if r.d == nil || r.d.s.g != g {
			continue
		}
		if to == abi.GroupTerminate {
			r.abort()
		} else if !f.cfg.WholeDispatches {
			r.stop()
		}
	}
}

// leave ends what beginLeave began for the groups that have nothing on the engine
// any more.
func (f *Firmware) leave() bool {
	worked := false
	for _, g := range f.groups {
		if g.leaving == nil || f.runsOf(g) > 0 {
			continue
		}
		to := g.leaving.to
		if to == abi.GroupSuspend {
			for _, s := range g.streams {
				s.drain()
			}
			g.writeStatus()
			if err := f.save(g); err != nil {
				f.say("CSG", fmt.Sprintf("csg=%d suspend failed: %v", g.slot, err))
				f.mmuAccess(err)
				g.leaving = nil
				for _, s := range g.streams {
					if s.started {
						s.fatal(abi.ExceptionBus, g.suspendVA)
					}
				}
				continue
			}
		}
		g.leaving, g.state = nil, to
		f.left(g, to)
		worked = true
	}
	return worked
}

// left acknowledges that a group is off its slot; its streams are stopped.
func (f *Firmware) left(g *group, to abi.GroupState) {
	g.idle, g.progressAt = false, never
	for _, s := range g.streams {
		s.forget()
		s.setAck(s.ack &^ abi.StreamStateMask)
	}
	if to == abi.GroupSuspend {
		f.counters.Suspends++
	} else {
		f.counters.Terminates++
	}
	f.ackState(g, to)
}

// ackState acknowledges a state, with what a fault plan makes of it.
func (f *Firmware) ackState(g *group, state abi.GroupState) {
	value := uint32(state)
	f.acknowledge(PointGroup, state.String(), uint64(g.slot), func(wrong uint32) {
		if g.state != state {
			return // It was late, and something else came first.
		}
		if wrong != 0 {
			value = wrong
		}
		f.setGroupAck(g, abi.SetField(g.ack, abi.GroupStateMask, value))
		f.interruptGroup(g, abi.GroupStateMask)
	}, func() {})
}

// ackGroup acknowledges a toggled request.
func (f *Firmware) ackGroup(g *group, name string, req, bit uint32) {
	f.acknowledge(PointGroup, name, uint64(g.slot), func(uint32) {
		g.held &^= bit
		if (g.ack^req)&bit == 0 {
			return
		}
		f.setGroupAck(g, abi.Acknowledge(g.ack, req, bit))
		f.interruptGroup(g, bit)
	}, func() { g.held |= bit })
}

func (f *Firmware) setGroupAck(g *group, ack uint32) {
	f.note("CSG_ACK", func(w []uint32) string {
		return fmt.Sprintf("csg=%d %s", w[0], abi.DescribeGroup(w[1], w[2]))
	}, g.slot, ack, ack^g.ack)
	g.ack = ack
	f.store(g.out+abi.GroupAck, ack)
}

// interruptGroup raises a group's interrupt for bits of its acknowledgement.
func (f *Firmware) interruptGroup(g *group, mask uint32) {
	if f.load(g.in+abi.GroupAckIRQMask)&mask != 0 {
		f.interruptJob(irqGroup, uint64(g.slot), abi.JobIntGroup(g.slot))
	}
}

// event tells the host of something unless it has not seen the last one.
func (g *group) event(bit uint32) bool {
	if (g.f.load(g.in+abi.GroupReq)^g.ack)&bit != 0 {
		return false
	}
	g.f.setGroupAck(g, g.ack^bit)
	g.f.interruptGroup(g, bit)
	return true
}
