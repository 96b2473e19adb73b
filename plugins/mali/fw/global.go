package fw

import (
	"fmt"
	"time"

	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/plugins/mali/abi"
)

// global is the global interface.
type global struct {
	// in and out are the device addresses of its blocks; the rest is what was
	// written to the output block.
	in, out    uint64
	ack, dbAck uint32
	// cores may be given to groups; progress is the progress timer, 0 for none.
	cores    uint64
	progress time.Duration
	// idleAt is when GLB_IDLE is due, idleTold that it was reported since something ran.
	idleAt   time.Duration
	idleTold bool
	// held are requests whose acknowledgement a fault plan took.
	held uint32
}

func (f *Firmware) newGlobal(in uint64) global {
	g := global{in: in, out: in + hw.PageSize, idleAt: never}
	req := f.load(in + abi.GlobalReq)
	f.mcu.haltSeen = req&abi.GlobalHalt != 0
	g.ack = f.bootAck(req, abi.GlobalHalt)
	g.dbAck = f.bootAck(f.load(in+abi.GlobalDoorbellReq), 0)
	f.store(g.out+abi.GlobalAck, g.ack)
	f.store(g.out+abi.GlobalDoorbellAck, g.dbAck)
	f.store(g.out+abi.GlobalHaltStatus, abi.HaltOK)
	return g
}

// takeDoorbells looks at the doorbells and does what was rung for.
func (f *Firmware) takeDoorbells() bool {
	r, worked := f.cfg.Ports.Registers, false
	for i := range min(abi.DoorbellsMax, uint32(f.cfg.Groups)+1) {
		if r.Take(abi.RegDoorbell(i)) == 0 {
			continue
		}
		worked = true
		name := doorbellUser
		if i == 0 {
			name = doorbellGlobal
		}
		rules, lost := f.meet(PointDoorbell, name, uint64(i))
		for _, rule := range rules {
			lost = lost || rule.Action == FaultDrop
			if rule.Action == FaultSpurious {
				f.raise(abi.RegJobIntRaw, abi.JobIntGlobal|abi.JobIntGroup(i))
			}
		}
		if lost {
			continue
		}
		f.counters.Doorbells++
		f.note("DB", func(w []uint32) string { return fmt.Sprint(w[0]) }, i)
		if i == 0 {
			f.kickGlobal()
		} else {
			f.kickUser(uint8(i))
		}
		if f.mcu.frozen || f.mcu.status != abi.MCUEnabled {
			return true
		}
	}
	return worked
}

// kickUser makes the streams of a user doorbell look at their rings.
func (f *Firmware) kickUser(doorbell uint8) {
	for _, g := range f.groups {
		for _, s := range g.streams {
			if s.started && s.doorbell == doorbell {
				s.readInsert()
				s.look = true
			}
		}
	}
}

// kickGlobal takes the requests of the global interface, then those of the groups that were rung for.
func (f *Firmware) kickGlobal() {
	req := f.load(f.glb.in + abi.GlobalReq)
	halt := req&abi.GlobalHalt != 0
	if halt && !f.mcu.haltSeen {
		f.beginHalt()
	}
	f.mcu.haltSeen = halt
	diff := abi.Pending(req, f.glb.ack) &^ (abi.GlobalEvents | abi.GlobalHalt)
	f.glb.held &= diff
	if diff != 0 {
		f.note("GLB_REQ", func(w []uint32) string { return abi.DescribeGlobal(w[0]) }, diff)
	}
	if levels := diff & abi.GlobalLevels; levels != 0 {
		if levels&abi.GlobalIdleEnable != 0 {
			f.glb.idleTold, f.glb.idleAt = false, never
		}
		f.ackGlobal(req, levels)
	}
	for bit := uint32(1); bit != 0; bit <<= 1 {
		if diff&bit&abi.GlobalToggles&^f.glb.held != 0 {
			f.globalRequest(req, bit)
		}
	}
	if f.mcu.frozen {
		return
	}
	db := f.load(f.glb.in + abi.GlobalDoorbellReq)
	rung := db ^ f.glb.dbAck
	// Before the groups are looked at: who rings while they are is heard again.
	f.glb.dbAck = db
	f.store(f.glb.out+abi.GlobalDoorbellAck, db)
	for _, g := range f.groups {
		if rung>>g.slot&1 != 0 {
			f.kickGroup(g)
		}
		if f.mcu.frozen {
			return
		}
	}
}

// globalRequest does one toggled request, then acknowledges it.
func (f *Firmware) globalRequest(req, bit uint32) {
	in := f.glb.in
	switch bit {
	case abi.GlobalCfgProgressTimer:
		units := uint64(f.load(in + abi.GlobalProgressTimer))
		f.glb.progress = 0
		if units > 0 {
			f.glb.progress = max(span(units*abi.TimerUnit, f.cfg.CycleRate), f.cfg.ProgressMin)
		}
	case abi.GlobalCfgAllocEnable:
		f.glb.cores = f.load64(in+abi.GlobalAllocEnable) & f.cfg.Shaders
	case abi.GlobalProtectedEnter:
		return // Not modelled: never acknowledged.
	}
	f.acknowledge(PointGlobal, abi.DescribeGlobal(bit), hw.NoID, func(uint32) { f.ackGlobal(req, bit) }, func() { f.glb.held |= bit })
}

// ackGlobal makes acknowledgement bits equal to the request.
func (f *Firmware) ackGlobal(req, mask uint32) {
	f.glb.held &^= mask
	changed := (f.glb.ack ^ req) & mask
	if changed == 0 {
		return
	}
	f.setGlobalAck(abi.Acknowledge(f.glb.ack, req, mask))
	if changed&f.load(f.glb.in+abi.GlobalAckIRQMask) != 0 {
		f.interruptGlobal()
	}
}

func (f *Firmware) setGlobalAck(ack uint32) {
	f.note("GLB_ACK", func(w []uint32) string { return abi.DescribeGlobal(w[0]) }, ack^f.glb.ack)
	f.glb.ack = ack
	f.store(f.glb.out+abi.GlobalAck, ack)
}

// globalEvent tells the host of something unless it has not seen the last one.
func (f *Firmware) globalEvent(bit uint32) bool {
	req := f.load(f.glb.in + abi.GlobalReq)
	if (req^f.glb.ack)&bit != 0 {
		return false
	}
	f.setGlobalAck(f.glb.ack ^ bit)
	if f.load(f.glb.in+abi.GlobalAckIRQMask)&bit != 0 {
		f.interruptGlobal()
	}
	return true
}

// interruptGlobal raises bit 31 of the job interrupt.
func (f *Firmware) interruptGlobal() {
	f.interruptJob(irqGlobal, hw.NoID, abi.JobIntGlobal)
}

// idleTimer is the host's hysteresis before GLB_IDLE.
func (f *Firmware) idleTimer() time.Duration {
	t := abi.DecodeTimer(f.load(f.glb.in + abi.GlobalIdleTimer))
	rate := f.cfg.TimestampRate
	if t.Cycles {
		rate = f.cfg.CycleRate
	}
	return span(uint64(t.Units)*abi.TimerUnit, rate)
}

// watchIdle reports GLB_IDLE when every group has been idle for long enough.
func (f *Firmware) watchIdle() bool {
	busy := f.glb.ack&abi.GlobalIdleEnable == 0
	for _, g := range f.groups {
		busy = busy || g.active() && !g.idle
	}
	if busy {
		f.glb.idleAt, f.glb.idleTold = never, false
		return false
	}
	if f.glb.idleTold {
		return false
	}
	if f.glb.idleAt == never {
		f.glb.idleAt = f.now() + f.idleTimer()
	}
	if f.now() < f.glb.idleAt {
		return false
	}
	f.glb.idleAt, f.glb.idleTold = never, true
	if f.globalEvent(abi.GlobalIdle) {
		f.counters.GlobalIdles++
	}
	return true
}
