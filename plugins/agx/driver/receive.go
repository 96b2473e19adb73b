package driver

import (
	"fmt"

	"github.com/gpuwm/gpuwm/plugins/agx/abi"
)

// receivers are the ends of the rings that the firmware writes.
type receivers struct {
	logs                 [abi.LogLevels]*abi.Receiver
	ktrace, stats, event *abi.Receiver
}

// openChannels makes the ends of all rings; the firmware has not begun yet.
func (d *Driver) openChannels() (err error) {
	l, r := &d.lay, &d.rings
	for level := range l.pipes {
		if d.pipes[level].sender, err = abi.NewSender(l.pipes[level]); err != nil {
			return err
		}
	}
	if d.controls.sender, err = abi.NewSender(l.control); err != nil {
		return err
	}
	for level := range l.logs {
		if r.logs[level], err = abi.NewReceiver(l.logs[level]); err != nil {
			return err
		}
	}
	for _, ring := range []struct {
		to   **abi.Receiver
		from abi.Ring
	}{{&r.ktrace, l.ktrace}, {&r.stats, l.stats}, {&r.event, l.event}} {
		if *ring.to, err = abi.NewReceiver(ring.from); err != nil {
			return err
		}
	}
	return nil
}

// receiveRings empties the rings in the vendor's order: log, ktrace, statistics, events last.
func (d *Driver) receiveRings() {
	for level, ring := range d.rings.logs {
		d.drain(ring, func(entry []byte) { d.logLine(abi.LogLevel(level), entry) })
	}
	d.drain(d.rings.ktrace, func([]byte) {})
	d.drain(d.rings.stats, func([]byte) {})
	d.drain(d.rings.event, d.takeEvent)
}

// drain takes at most one full ring; a firmware that writes faster than that is looked at again.
func (d *Driver) drain(r *abi.Receiver, each func([]byte)) {
	for range abi.KTraceEntries {
		if d.loop.Failure() != nil {
			return
		}
		entry, err := r.Receive()
		switch {
		case err != nil:
			d.fail(fmt.Errorf("ring of the firmware: %w", err))
			return
		case entry == nil:
			return
		}
		each(entry)
	}
	d.loop.LookAgain()
}

// logLine repeats a line of the firmware's log. What makes no sense is logged as that.
func (d *Driver) logLine(level abi.LogLevel, entry []byte) {
	var index abi.LogIndex
	if err := d.abi.Decode(entry, &index); err != nil {
		d.log.Warn("firmware log malformed", "error", err)
		return
	}
	if index.Index >= abi.RingEntries {
		d.log.Warn("firmware log index unknown", "index", index.Index)
		return
	}
	at := d.lay.logPayloads + (uint64(level)*abi.RingEntries+index.Index)*abi.LogPayloadSize
	bytes, err := d.config.Arena.Bytes(at, abi.LogPayloadSize)
	if err != nil {
		d.must(err)
		return
	}
	var payload abi.LogPayload
	if err := d.abi.Decode(bytes, &payload); err != nil {
		d.log.Warn("firmware log malformed", "error", err)
		return
	}
	switch level {
	case abi.LogDebug, abi.LogInfo, abi.LogNotice:
		d.log.Debug("firmware says", "level", level, "text", payload.Text())
	default:
		d.log.Warn("firmware says", "level", level, "text", payload.Text())
	}
}

// takeEvent takes one message of the event ring.
func (d *Driver) takeEvent(entry []byte) {
	m, err := d.abi.DecodeEvent(entry)
	if err != nil {
		d.log.Warn("firmware event malformed", "error", err)
		return
	}
	d.life.sign = d.config.Clock.Now()
	switch m := m.(type) {
	case *abi.Flag:
		d.flagged(m)
	case *abi.Fault:
		d.halted(halt{kind: haltFault, slot: -1})
	case *abi.Timeout:
		if int32(m.Counter+1-d.recovery.halts) <= 0 {
			d.log.Warn("stale time-out", "counter", m.Counter, "halts", d.recovery.halts)
			return
		}
		d.halted(halt{kind: haltTimeout, slot: m.Slot})
	case *abi.ChannelError:
		d.channelError(m)
	}
}

// flagged looks at the slots whose stamps have changed. A slot that nobody holds is normal:
// its owner may have seen the stamp before.
func (d *Driver) flagged(m *abi.Flag) {
	for _, slot := range m.Slots() {
		if q := d.events.holder(slot); q != nil {
			d.scanQueue(q)
			q.settle()
		} else {
			d.log.Debug("flag of a free slot", "slot", slot)
		}
		if d.loop.Failure() != nil {
			return
		}
	}
}
