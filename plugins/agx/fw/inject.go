package fw

import (
	"slices"
	"time"

	"github.com/gpuwm/gpuwm/plugins/agx/abi"
	"github.com/gpuwm/gpuwm/plugins/hw"
)

// injected is what faults have done to the firmware.
type injected struct {
	// doom ends the firmware in the next pass; until then nothing leaves it.
	doom func()
	// frozenControl, frozenPipes: the rings are not taken from.
	frozenControl, frozenPipes bool
	// eventsFull: the event ring counts as full.
	eventsFull bool
}

const noID = hw.NoID

// fullDefault is how long the event ring counts as full, touchDelay how long after
// its completion the firmware looks at its last command again.
const (
	fullDefault = 10 * time.Millisecond
	touchDelay  = time.Millisecond
)

// meet counts what passes a point and returns the rules that hit it, those that
// end the firmware carried out. lost says that it must not happen.
func (f *Firmware) meet(point, name string, id uint64) (rules []hw.Rule, lost bool) {
	if f.injected.doom != nil {
		return nil, true
	}
	if f.cfg.Faults == nil || f.phase == phaseCrashed {
		return nil, false
	}
	for _, r := range f.cfg.Faults.Meet(point, name, id) {
		f.counters.Faults++
		f.say("FAULT", "%s", r)
		switch r.Action {
		case FaultCrash:
			f.doomed(func() { f.crash("injected at " + point) })
		case FaultMute:
			f.doomed(f.die)
		default:
			rules = append(rules, r)
		}
	}
	return rules, f.injected.doom != nil
}

// doomed arranges the end of the firmware; the first one counts.
func (f *Firmware) doomed(end func()) {
	if f.injected.doom == nil {
		f.injected.doom = end
	}
}

// takeDoom ends the firmware if a fault said so.
func (f *Firmware) takeDoom() bool {
	doom := f.injected.doom
	if doom == nil {
		return false
	}
	f.injected.doom = nil
	doom()
	return true
}

// lasting sets a switch for as long as a rule says.
func (f *Firmware) lasting(r hw.Rule, missing time.Duration, on *bool, then func()) {
	*on = true
	if d := r.Duration(missing); d != never {
		f.after(d, func() {
			*on = false
			then()
		})
	}
}

// injectManagement meets a management message; send sends it.
func (f *Firmware) injectManagement(m abi.Management, send func(abi.Management)) {
	rules, lost := f.meet(PointManagement, m.Type.String(), noID)
	wait := time.Duration(0)
	for _, r := range rules {
		switch {
		case r.Action == FaultDrop:
			return
		case r.Action == FaultDelay:
			wait += r.Duration(0)
		case r.Action == FaultVersion && m.Type == abi.Hello:
			m.Min, m.Max = uint16(r.Number()), uint16(r.Number())
		case r.Action == FaultNoGPU && m.Type == abi.EndpointMap && m.Base == 1:
			m.Bitmap = 0
		}
	}
	f.inTime(wait, lost, func() { send(m) })
}

// inTime does something now or after a while, unless it is lost.
func (f *Firmware) inTime(wait time.Duration, lost bool, do func()) {
	switch {
	case lost:
	case wait > 0:
		f.after(wait, do)
	default:
		do()
	}
}

// injectInit meets the Init message.
func (f *Firmware) injectInit(do func()) {
	rules, lost := f.meet(PointInit, "", noID)
	wait := time.Duration(0)
	for _, r := range rules {
		if r.Action == FaultDrop {
			return
		}
		wait += r.Duration(0)
	}
	f.inTime(wait, lost, do)
}

// injectControl meets a device-control message and executes it. True means that
// the ring is frozen from it on.
func (f *Firmware) injectControl(m abi.ControlMessage) bool {
	rules, lost := f.meet(PointControl, m.Control().String(), noID)
	if lost {
		return true
	}
	do := true
	for _, r := range rules {
		switch r.Action {
		case FaultFreeze:
			f.lasting(r, never, &f.injected.frozenControl, func() { f.kicked = true })
			return true
		case FaultDrop:
			do = false
		}
	}
	if do {
		f.control(m)
	}
	if f.phase != phaseCrashed {
		f.host.control.Consume()
	}
	return f.phase == phaseCrashed
}

// injectPipe meets a RunWorkQueue and handles it. True means that the ring is frozen from it on.
func (f *Firmware) injectPipe(m *abi.RunWorkQueue, level uint32) bool {
	rules, lost := f.meet(PointPipe, "", f.uuidOf(m.Queue))
	if lost {
		return true
	}
	do := true
	for _, r := range rules {
		switch r.Action {
		case FaultFreeze:
			f.lasting(r, never, &f.injected.frozenPipes, func() { f.kicked = true })
			return true
		case FaultDrop:
			do = false
		}
	}
	if !do {
		m.Write = f.writeOf(m.Queue) // The firmware still learns of a new queue.
	}
	f.kick(level, m)
	if f.phase != phaseCrashed {
		f.host.pipes[level].Consume()
	}
	return f.phase == phaseCrashed
}

// injectBarrier meets a barrier and reports whether the plan holds it.
func (f *Firmware) injectBarrier(q *workQueue) bool {
	rules, lost := f.meet(PointBarrier, "", uint64(q.info.UUID))
	for _, r := range rules {
		f.lasting(r, never, &q.held, func() { f.recheck(anySlot) })
	}
	return lost || q.held
}

// injectStamp writes a command's shared stamp, or what the plan makes of it, and
// reports whether the command goes on.
func (f *Firmware) injectStamp(c *command) bool {
	rules, lost := f.meet(PointStamp, "", uint64(c.q.slot))
	if lost {
		return false
	}
	value := c.rc.Meta.Value
	for _, r := range rules {
		switch r.Action {
		case FaultKeep:
			return true
		case FaultBack:
			value -= uint32(r.Number()) * abi.StampStep
		case FaultJump:
			value += uint32(r.Number()) * abi.StampStep
		}
	}
	_ = f.store32(c.rc.Meta.Stamp, value) // The address was checked when the command was read.
	f.say("STAMP", "uuid=%d slot=%d shared=%#x", c.q.info.UUID, c.q.slot, value)
	return true
}

// lastTouch arranges that the firmware looks at a command again after it has
// told of its completion, unless the next one of its queue was retired before.
func (f *Firmware) lastTouch(c *command) {
	rules, lost := f.meet(PointRetired, "", uint64(c.q.info.UUID))
	if lost {
		return
	}
	wait := touchDelay
	for _, r := range rules {
		wait = max(wait, r.Duration(0))
	}
	f.after(wait, func() {
		if c.q.last == c {
			f.touchCommand(c)
		}
	})
}

// injectEvent meets an event; emit writes an entry.
func (f *Firmware) injectEvent(m abi.Event, id uint64, emit func([]byte)) {
	rules, lost := f.meet(PointEvent, m.Event().String(), id)
	if lost {
		return
	}
	entries, wait := [][]byte{f.abi.Bytes(m)}, time.Duration(0)
	for _, r := range rules {
		switch r.Action {
		case FaultDrop:
			return
		case FaultDelay:
			wait += r.Duration(0)
		case FaultDuplicate:
			entries = append(entries, entries[len(entries)-1])
		case FaultSlot:
			if _, ok := m.(*abi.Flag); ok {
				other := &abi.Flag{}
				other.Set(uint32(r.Number()))
				entries[len(entries)-1] = f.abi.Bytes(other)
			}
		case FaultType:
			unknown := make([]byte, f.abi.EventEntry)
			unknown[0] = byte(r.Number())
			entries = slices.Insert(entries, 0, unknown)
		case FaultFull:
			f.lasting(r, fullDefault, &f.injected.eventsFull, func() {})
		}
	}
	f.inTime(wait, false, func() {
		for _, e := range entries {
			emit(e)
		}
	})
}

// injectRX meets the message that makes the host look.
func (f *Firmware) injectRX(do func()) {
	rules, lost := f.meet(PointRX, "", noID)
	wait := time.Duration(0)
	for _, r := range rules {
		if r.Action == FaultDrop {
			return
		}
		wait += r.Duration(0)
	}
	f.inTime(wait, lost, do)
}

// injectHalt meets a halt that has begun.
func (f *Firmware) injectHalt() {
	rules, _ := f.meet(PointHalt, "", noID)
	for _, r := range rules {
		f.halt.never = f.halt.never || r.Action == FaultNever
		f.halt.deaf = f.halt.deaf || r.Action == FaultDeaf
		f.halt.again = f.halt.again || r.Action == FaultAgain
		f.halt.stale = f.halt.stale || r.Action == FaultStale
	}
}

// injectLog meets a line of the log, may change its payload, and returns the
// index that is told.
func (f *Firmware) injectLog(index uint64, payload []byte) uint64 {
	rules, _ := f.meet(PointLog, "", noID)
	for _, r := range rules {
		switch r.Action {
		case FaultIndex:
			index = r.Number()
		case FaultEndless:
			text := payload[len(payload)-abi.LogTextSize:]
			for i := range text {
				if text[i] == 0 {
					text[i] = '.'
				}
			}
		}
	}
	return index
}

// injectPower meets a GPU that has just been switched off.
func (f *Firmware) injectPower() {
	rules, _ := f.meet(PointPowerOff, "", noID)
	for _, r := range rules {
		f.lasting(r, 0, &f.power.switching, func() {
			if f.kicked {
				f.powerOn()
			}
		})
	}
}
