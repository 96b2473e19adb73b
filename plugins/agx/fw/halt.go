package fw

import (
	"fmt"
	"slices"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/agx/abi"
	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/plugins/order"
)

// halt is a halt of the GPU: everything stops, the host is told, and goes on
// when the host says resume.
type halt struct {
	active bool
	// dead are the commands that were running.
	dead []*command
	// stopped: nothing is on the engine any more, and the host was told.
	stopped bool
	// stopBy is when the firmware gives the device up.
	stopBy time.Duration
	// count is the number of halts after this one.
	count uint32
	// again: the plan wants a second fault, deaf: that resume is ignored, never:
	// that halted is not set, stale: that an old Timeout follows.
	again, deaf, never, stale bool
	// event and fault are what the second one says again.
	event abi.Event
}

// force ends what did not leave at the end of a workgroup, where that is
// possible, and reports whether anything was left to be ended.
func (h *halt) force() bool {
	forced := false
	for _, c := range h.dead {
		if c.run != nil && c.run.exec != nil && !c.run.aborted && !c.run.ended.Load() {
			c.run.stop(true)
			forced = forced || c.run.aborted
		}
	}
	return forced
}

func (h *halt) deadline(now time.Duration) time.Duration {
	if !h.stopped {
		return h.stopBy
	}
	return now + poll // The host resumes without a word.
}

// setFault writes the MMU fault register.
func (f *Firmware) setFault(v uint64) {
	f.cfg.Ports.Registers.Store(abi.RegFaultInfo, uint32(v))
	f.cfg.Ports.Registers.Store(abi.RegFaultInfo+4, uint32(v>>32))
}

// fault halts the GPU for an access of a command's VM; nil info leaves the
// register invalid.
func (f *Firmware) fault(c *command, info *abi.MMUFault) {
	f.stopGPU(c, info, func(uint32) abi.Event { return &abi.Fault{} })
}

// hangDetail is what the descriptor says of a command that ran too long.
const hangDetail = "no end of the command within the watchdog's time"

// timeout halts the GPU for a command that ran too long.
func (f *Firmware) timeout(c *command) {
	f.counters.Timeouts++
	if c.run != nil {
		f.blame(c, hw.CauseHang, hangDetail)
	}
	var info *abi.MMUFault
	if c.faultInfo {
		info = &abi.MMUFault{Reason: abi.FaultUnmapped, VMSlot: uint8(c.rc.VMSlot), Address: c.rc.Stream}
	}
	slot := int32(c.q.slot)
	if c.nobody {
		slot = -1
	}
	f.stopGPU(c, info, func(count uint32) abi.Event { return &abi.Timeout{Counter: count - 1, Slot: slot} })
}

// stopGPU takes everything off the engine: the culprit at once where that is
// possible, the others at the end of a workgroup.
func (f *Firmware) stopGPU(culprit *command, info *abi.MMUFault, event func(count uint32) abi.Event) {
	f.counters.Halts++
	count := f.host.status.Load(abi.FwStatusHaltCount) + 1
	f.host.status.Store(abi.FwStatusHaltCount, count)
	f.host.faults.Store(abi.FaultInfoHalts, count)
	f.setGlobal(abi.GlobalFaultQueueUUID, culprit.q.info.UUID)
	if info != nil {
		f.setFault(info.Encode())
		f.say("HALT", "count=%d %s", count, info)
	} else {
		f.setFault(0)
		f.say("HALT", "count=%d", count)
	}
	f.halt = halt{active: true, dead: slices.Clone(f.running), count: count, stopBy: f.cfg.Clock.Now() + f.cfg.HaltGrace, event: event(count)}
	f.running = nil
	base := f.abi.PendingStampsOffset() / 4
	for i := range uint32(abi.PendingStamps) {
		if p, valid := f.abi.DecodePendingStamp(f.host.globals.Load(base+i*2), f.host.globals.Load(base+i*2+1)); valid {
			// It harms nobody at once: silicon would go on.
			f.counters.Misuses++
			f.say("CHECK", "halt %d: the host did not clear the pending stamp of slot %d", count, p.Slot)
			break
		}
	}
	for i, c := range f.halt.dead {
		c.dead = true
		info, value := f.abi.EncodePendingStamp(abi.PendingStamp{Slot: c.q.slot, Value: c.rc.Meta.Value})
		f.host.globals.Store(base+uint32(i)*2+1, value)
		f.host.globals.Store(base+uint32(i)*2, info)
		if c.run != nil && c.run.exec != nil {
			c.run.stop(c == culprit)
		}
	}
	f.injectHalt()
	if f.injected.doom != nil {
		return
	}
	f.settleHalt(culprit)
	if !f.halt.stopped {
		// It cannot be stopped at once: the host hears of it before halted is set.
		f.event(f.halt.event, uint64(culprit.q.info.UUID))
	}
}

// settleHalt looks whether the engine is empty, and tells the host. culprit is
// nil when the host was told before.
func (f *Firmware) settleHalt(culprit *command) bool {
	for _, c := range f.halt.dead {
		if c.run == nil || c.run.exec == nil {
			continue
		}
		if !c.run.ended.Load() {
			return false
		}
		r, err := f.settle(c)
		old, _ := hw.ReadReport(f.cfg.Arena, c.run.at, c.run.count)
		switch {
		case old.Status == hw.StatusFault:
			r.Status, r.Cause, r.Detail = old.Status, old.Cause, old.Detail
		case err != nil:
			r.Status, r.Cause, r.Detail = hw.StatusFault, hw.CauseEngine, err.Error()
			if fe, ok := err.(*core.FaultError); ok {
				r.Cause, r.Detail = order.CauseOf(fe.Cause), fe.Detail
			}
		case r.Done == c.run.count:
			r.Status = hw.StatusDone
		case c.run.aborted:
			r.Status, r.Cause, r.Detail = hw.StatusFault, hw.CauseEngine, "ended by a halt of the GPU"
		default:
			r.Status = hw.StatusPreempted
		}
		f.report(c, r)
	}
	f.halt.stopped = true
	if !f.halt.never {
		f.host.status.Store(abi.FwStatusHalted, 1)
	}
	if culprit != nil {
		f.event(f.halt.event, uint64(culprit.q.info.UUID))
	}
	return true
}

// takeHalt waits for the engine and then for the host.
func (f *Firmware) takeHalt() bool {
	if !f.halt.stopped {
		if f.settleHalt(nil) {
			return true
		}
		if f.cfg.Clock.Now() < f.halt.stopBy {
			return false
		}
		if f.halt.force() {
			return true
		}
		f.crash(fmt.Sprintf("agx_recovery: the GPU did not halt in %s", f.cfg.HaltGrace))
		return true
	}
	if f.host.status.Load(abi.FwStatusResume) != 1 || f.host.status.Load(abi.FwStatusHalted) != 0 || f.halt.deaf || f.halt.never {
		return false
	}
	f.host.status.Store(abi.FwStatusResume, 0)
	if f.halt.again {
		f.halt.again = false
		f.secondFault()
		return true
	}
	f.resume()
	return true
}

// secondFault halts again, with the same commands.
func (f *Firmware) secondFault() {
	f.counters.Halts++
	f.halt.count++
	f.host.status.Store(abi.FwStatusHaltCount, f.halt.count)
	f.host.faults.Store(abi.FaultInfoHalts, f.halt.count)
	base := f.abi.PendingStampsOffset() / 4
	for i, c := range f.halt.dead {
		info, value := f.abi.EncodePendingStamp(abi.PendingStamp{Slot: c.q.slot, Value: c.rc.Meta.Value})
		f.host.globals.Store(base+uint32(i)*2+1, value)
		f.host.globals.Store(base+uint32(i)*2, info)
	}
	f.host.status.Store(abi.FwStatusHalted, 1)
	f.say("HALT", "count=%d, during recovery", f.halt.count)
	event := f.halt.event
	if t, ok := event.(*abi.Timeout); ok {
		event = &abi.Timeout{Counter: f.halt.count - 1, Slot: t.Slot}
	}
	f.event(event, noID)
}

// resume retires what was running, with stamps and Flags, and goes on.
func (f *Firmware) resume() {
	old := f.halt
	f.say("HALT", "resumed, %d commands end", len(old.dead))
	f.setFault(0)
	f.halt = halt{}
	f.kicked = true
	for _, c := range old.dead {
		c.dead = false
		f.retireDead(c)
	}
	if old.stale {
		f.event(&abi.Timeout{Counter: old.count - 1, Slot: int32(old.dead[0].q.slot)}, noID)
	}
}
