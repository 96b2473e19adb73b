package fw

import (
	"errors"
	"fmt"

	"github.com/gpuwm/gpuwm/plugins/agx/abi"
)

// notifier decides when the host is told about a user queue's commands.
type notifier struct {
	threshold abi.VA
	count     uint64
	// held are the slots whose stamps were written since the last Flag.
	held abi.Flag
	some bool
}

// notifierOf returns a notifier, read once.
func (f *Firmware) notifierOf(va abi.VA) (*notifier, error) {
	if n := f.notifiers[va]; n != nil {
		return n, nil
	}
	var m abi.Notifier
	if err := f.decode(va, &m, "notifier"); err != nil {
		return nil, err
	}
	if _, err := f.words(m.Threshold, abi.ThresholdSize); err != nil {
		return nil, fmt.Errorf("notifier: threshold: %w", err)
	}
	n := &notifier{threshold: m.Threshold, count: uint64(m.Count)}
	f.notifiers[va] = n
	return n, nil
}

// notifyRetired counts a retired command. While the count is below the threshold
// the slots are held back; then one Flag has them all.
func (f *Firmware) notifyRetired(c *command) {
	n, err := f.notifierOf(c.rc.Notifier)
	if err != nil {
		return // It was read when the command was.
	}
	n.count++
	n.held.Set(c.q.slot)
	n.some = true
	threshold, err := f.load64(n.threshold)
	if err != nil || n.count < threshold && !(f.cfg.FlushBypasses && c.rc.Meta.FlushStamps != 0) {
		return
	}
	flag := n.held
	n.held, n.some = abi.Flag{}, false
	f.event(&flag, uint64(c.q.slot))
}

// event writes an event, or what the plan makes of it, and rings the host.
func (f *Firmware) event(m abi.Event, id uint64) {
	f.injectEvent(m, id, func(entry []byte) { f.emit(entry) })
}

// emit writes one event entry.
func (f *Firmware) emit(entry []byte) {
	if f.phase != phaseReady {
		return
	}
	if len(f.events) > 0 {
		f.events = append(f.events, entry)
		return
	}
	if f.put(entry) {
		return
	}
	if f.cfg.EventDrop {
		f.counters.EventsDropped++
		f.sayBytes("DROPPED", entry, f.abi.EventText)
		return
	}
	f.events = append(f.events, entry)
}

// put writes an entry into the event ring and reports whether it had room.
func (f *Firmware) put(entry []byte) bool {
	if f.injected.eventsFull {
		return false
	}
	_, err := f.host.eventOut.Send(entry)
	if errors.Is(err, abi.ErrNoRoom) {
		return false
	}
	if err != nil {
		f.misuse("event ring: %v", err)
		return true
	}
	f.counters.Events++
	if m, err := f.abi.DecodeEvent(entry); err == nil && m.Event() == abi.EventFlag {
		f.counters.Flags++
	}
	f.sayBytes("EVENT", entry, f.abi.EventText)
	f.ring42()
	return true
}

// stalled reports whether events wait for room: nothing is started meanwhile.
func (f *Firmware) stalled() bool { return len(f.events) > 0 }

// flushEvents writes the events that wait.
func (f *Firmware) flushEvents() bool {
	worked := false
	for len(f.events) > 0 && f.put(f.events[0]) {
		f.events = f.events[1:]
		worked = true
	}
	return worked
}

// ring42 tells the host to look at the rings; several times before the message
// has left count as one.
func (f *Firmware) ring42() {
	for _, m := range f.out {
		if m.RX() {
			return
		}
	}
	f.injectRX(func() { f.post(abi.RXMessage()) })
}

// log writes a line into the firmware's log; a full ring loses it.
func (f *Firmware) log(level abi.LogLevel, text string) {
	f.say("LOG", "%s: %s", level, text)
	out := f.host.logs[level]
	if out == nil || f.phase == phaseCrashed {
		return
	}
	if full, err := out.Full(); full || err != nil {
		f.counters.LogsDropped++
		return
	}
	index := uint64(f.host.logLines[level] % abi.RingEntries) // No line that was not read has it.
	f.host.logLines[level]++
	f.host.logSeq++
	p := abi.LogPayload{Seq: f.host.logSeq, Timestamp: abi.Ticks(uint64(f.cfg.Clock.Now()))}
	p.SetText(text)
	b := f.abi.Bytes(&p)
	index = f.injectLog(index, b)
	if at := (uint64(level)*abi.RingEntries + index) * abi.LogPayloadSize; index < abi.RingEntries {
		copy(f.host.payloads[at:at+abi.LogPayloadSize], b)
	}
	if _, err := out.Send(f.abi.Bytes(&abi.LogIndex{Index: index})); err != nil {
		f.counters.LogsDropped++
		return
	}
	f.counters.Logs++
	f.ring42()
}

// misuse is something that the host must not do: it ends the firmware, or is
// only logged when the firmware is lenient.
func (f *Firmware) misuse(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	f.counters.Misuses++
	f.say("CHECK", "%s", text)
	if f.cfg.Lenient {
		f.log(abi.LogError, text)
		return
	}
	f.crash(text)
}
