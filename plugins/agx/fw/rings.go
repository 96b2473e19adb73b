package fw

import (
	"github.com/gpuwm/gpuwm/plugins/agx/abi"
	"github.com/gpuwm/gpuwm/plugins/hw"
)

// takeRings looks at the rings of the host if a doorbell rang: device control
// first, then the pipes from the strongest level on.
func (f *Firmware) takeRings() bool {
	if !f.kicked || f.power.switching {
		return false
	}
	f.kicked = false
	f.takeControl()
	if !f.initialized {
		return true
	}
	for level := range f.host.pipes {
		f.takePipe(uint32(level))
	}
	f.recheck(anySlot) // A host may have moved a stamp that a barrier waits for.
	return true
}

// takeControl executes device-control messages. That the read index moves is
// what tells the host.
func (f *Firmware) takeControl() {
	for !f.halt.active && !f.injected.frozenControl && f.injected.doom == nil {
		entry, err := f.host.control.Peek()
		if err != nil {
			f.crash("device control: " + err.Error())
			return
		}
		if entry == nil {
			return
		}
		f.sayBytes("DEVCTRL", entry, f.abi.ControlText)
		m, err := f.abi.DecodeControl(entry)
		if err != nil {
			f.log(abi.LogWarn, "device control: "+err.Error())
			f.counters.Controls++
			f.host.control.Consume()
			continue
		}
		if f.injectControl(m) {
			return
		}
	}
}

// control executes one message.
func (f *Firmware) control(m abi.ControlMessage) {
	f.counters.Controls++
	if !f.initialized && m.Control() != abi.ControlInitialize {
		f.crash("device control: " + m.Control().String() + " before Initialize")
		return
	}
	switch m := m.(type) {
	case *abi.DestroyContext:
		f.destroyContext(m)
	case *abi.RecoverChannel:
		f.recoverChannel(m)
	case *abi.Write32:
		if f.cfg.Write32Ignored {
			return
		}
		if err := f.store32(m.Address, m.Value); err != nil {
			f.misuse("Write32: %v", err)
			return
		}
		f.recheck(anySlot)
	default:
		switch m.Control() {
		case abi.ControlInitialize:
			if f.initialized {
				f.misuse("second Initialize")
				return
			}
			f.initialized, f.kicked = true, true
			f.powerOn()
		case abi.ControlUpdateIdleTS:
			f.power.idleSince = f.cfg.Clock.Now()
		default:
			f.log(abi.LogWarn, "device control: "+m.Control().String()+" is not modelled")
		}
	}
}

// destroyContext forgets the queues of a context and flushes the cache.
func (f *Firmware) destroyContext(m *abi.DestroyContext) {
	if !m.FlushOnly() {
		for _, q := range f.order {
			if q.info.Context == m.Context && !q.idle() {
				f.misuse("DestroyContext %#x: queue %d is not idle", uint64(m.Context), q.info.UUID)
				return
			}
		}
		if !f.closeContext(m) {
			return
		}
		f.forgetQueues(m.Context)
	}
	f.flush()
	f.spaces.sweep(f.cfg.Engine, f.bound)
}

// bound reports whether a VM slot still names an address space.
func (f *Firmware) bound(slot uint32) bool {
	_, err := f.space(slot)
	return err == nil
}

// takePipe takes the messages of one level.
func (f *Firmware) takePipe(level uint32) {
	for !f.halt.active && !f.injected.frozenPipes && f.injected.doom == nil {
		pipe := f.host.pipes[level]
		entry, err := pipe.Peek()
		if err != nil {
			f.misuse("pipe %d: %v", level, err)
			return
		}
		if entry == nil {
			return
		}
		var m abi.RunWorkQueue
		if err := f.abi.Decode(entry, &m); err != nil {
			pipe.Consume()
			f.misuse("pipe %d: %v", level, err)
			continue
		}
		f.say("PIPE", "level=%d %s", level, lazy{f.abi, &m})
		if f.injectPipe(&m, level) {
			return
		}
	}
}

// kick handles one RunWorkQueue.
func (f *Firmware) kick(level uint32, m *abi.RunWorkQueue) {
	f.counters.Kicks++
	f.powerOn()
	if m.Pipe != uint32(abi.PipeCompute) || m.Slot >= abi.Slots {
		f.misuse("RunWorkQueue: pipe %d slot %d", m.Pipe, m.Slot)
		return
	}
	q := f.queues[m.Queue]
	switch {
	case m.New && q != nil:
		f.misuse("RunWorkQueue: queue %#x is not new", uint64(m.Queue))
		return
	case !m.New && q == nil:
		f.misuse("RunWorkQueue: queue %#x is not known", uint64(m.Queue))
		return
	case m.New:
		var err error
		if q, err = f.newQueue(m, level); err != nil {
			f.misuse("RunWorkQueue: %v", err)
			return
		}
	}
	f.extend(q, level, m)
}

// writeOf is the write index of a queue as the firmware has it, or would have it.
func (f *Firmware) writeOf(va abi.VA) uint32 {
	if q := f.queues[va]; q != nil {
		return q.write
	}
	var info abi.QueueInfo
	if f.decode(va, &info, "queue info") != nil {
		return 0
	}
	ring, err := f.words(info.RingState, abi.RingStateSize)
	if err != nil {
		return 0
	}
	return ring.Load(abi.RingStateRead)
}

// uuidOf is the uuid of the queue that a message names, as far as it is known.
func (f *Firmware) uuidOf(va abi.VA) uint64 {
	if q := f.queues[va]; q != nil {
		return uint64(q.info.UUID)
	}
	off, _, _ := f.abi.Offset(&abi.QueueInfo{}, "uuid")
	if v, err := f.load32(va + abi.VA(off)); err == nil {
		return uint64(v)
	}
	return hw.NoID
}
