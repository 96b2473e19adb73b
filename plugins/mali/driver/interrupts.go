package driver

import (
	"fmt"
	"math/bits"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/mali/abi"
)

// serveInterrupts handles everything that stands in the interrupt registers, until
// nothing does; all looks at every resident too, because an interrupt may be missing.
func (d *Driver) serveInterrupts(all bool) {
	if d.iface == nil || !d.listening() {
		return
	}
	d.serveMMU()
	for d.loop.Failure() == nil && d.listening() {
		raw := d.read(abi.RegJobIntRaw)
		if raw == 0 {
			break
		}
		d.write(abi.RegJobIntClear, raw)
		if raw&abi.JobIntGlobal != 0 {
			d.serveGlobal()
		}
		for _, s := range d.slots {
			if raw&abi.JobIntGroup(s.index) != 0 {
				d.serveSlot(s)
			}
		}
	}
	if all && d.listening() && d.loop.Failure() == nil {
		for _, s := range d.slots {
			d.serveSlot(s)
		}
	}
}

// listening reports whether the interface is served: always between boot and reset.
func (d *Driver) listening() bool {
	switch d.phase {
	case phaseUp, phaseResetting, phaseSuspending:
		return d.iface != nil && d.loop.Failure() == nil && !d.resets.hard
	}
	return false
}

// serveGlobal takes the events of the global interface.
func (d *Driver) serveGlobal() {
	req, ack := d.load(d.iface.input+abi.GlobalReq), d.load(d.iface.output+abi.GlobalAck)
	events := abi.Pending(req, ack) & abi.GlobalEvents
	d.store(d.iface.input+abi.GlobalReq, abi.Acknowledge(req, ack, events))
	if events&abi.GlobalIdle != 0 {
		d.tickNow()
	}
}

// serveSlot takes the events of a slot and of its streams.
func (d *Driver) serveSlot(s *slot) {
	g := s.group
	if g == nil {
		return
	}
	// IRQ_ACK first: an event that comes while we look raises the interrupt again.
	streams := d.load(s.iface.output + abi.GroupIRQReq)
	pending := streams ^ d.load(s.iface.input+abi.GroupIRQAck)
	d.store(s.iface.input+abi.GroupIRQAck, streams)
	req, ack := d.load(s.iface.input+abi.GroupReq), d.load(s.iface.output+abi.GroupAck)
	events := abi.Pending(req, ack) & abi.GroupEvents
	d.store(s.iface.input+abi.GroupReq, abi.Acknowledge(req, ack, events))
	again := uint32(0)
	for ; pending != 0; pending &= pending - 1 {
		if m := bits.TrailingZeros32(pending); m < len(g.queues) && d.serveStream(s, m) {
			again |= 1 << m
		}
	}
	if d.loop.Failure() != nil || s.group != g {
		return
	}
	if again != 0 {
		d.kickStreams(s, again)
		d.kick(1 << s.index)
	}
	g.scan()
	if events&abi.GroupSyncUpdate != 0 {
		d.recheckBlocked()
	}
	if events&abi.GroupIdle != 0 {
		d.tickNow()
	}
	if events&abi.GroupProgressEvent != 0 && g.busy() && !g.buried {
		g.timedout = true
		g.condemn(g.accuse(core.CauseHang, "no progress on an endpoint, the firmware says"))
	}
}

// serveStream takes the events of one stream and reports whether it is to be kicked to go on.
func (d *Driver) serveStream(s *slot, m int) bool {
	g, in, out := s.group, s.iface.streams[m].input, s.iface.streams[m].output
	req, ack := d.load(in+abi.StreamReq), d.load(out+abi.StreamAck)
	events := abi.Pending(req, ack) & abi.StreamEvents
	if events == 0 {
		return false
	}
	q := g.queues[m]
	// What they say is read before they are acknowledged, as the stream may go on then; and they are
	// acknowledged before they are handled, which may write REQ too.
	fatal, fault, at := abi.DecodeFault(d.load(out+abi.StreamFatal)), abi.DecodeFault(d.load(out+abi.StreamFault)), q.extract()
	d.store(in+abi.StreamReq, abi.Acknowledge(req, ack, events))
	if events&abi.StreamFatalEvent != 0 {
		d.fatal(g, q, fatal)
	}
	if events&abi.StreamFaultEvent != 0 && d.loop.Failure() == nil {
		d.fault(g, q, fault, at)
	}
	if events&(abi.StreamTilerOOM|abi.StreamProtectedPend) != 0 {
		d.log.Warn("stream event not modelled", "entity", g.key, "slot", s.index)
	}
	return events&(abi.StreamFaultEvent|abi.StreamTilerOOM) != 0
}

// fatal: the stream halts for good, and the group dies of it. An error that nothing
// in the stream can cause accuses nobody: after a RESUME the image did not fit, and the group
// starts anew; 0x41 asks for a reset of the GPU.
func (d *Driver) fatal(g *group, q *queue, f abi.Fault) {
	d.log.Warn("stream halted", "entity", g.key, "slot", q.index, "error", f.Exception)
	detail := "stream halted: " + f.Exception.String()
	g.scan() // What was counted before is not to blame.
	switch f.Exception {
	case abi.ExceptionUnrecoverable:
		g.fatal |= 1 << q.index
		g.evidence = &evidence{queue: q, cause: core.CauseDevice, detail: detail}
		d.broken(fmt.Errorf("group %d: %s", g.key, detail))
		return
	case abi.ExceptionConfig, abi.ExceptionFirmware, abi.ExceptionBus:
		if g.space.faulted {
			break // The MMU says what it was.
		}
		if f.Exception == abi.ExceptionConfig && g.resumed {
			g.taking = true // The owner starts it anew from what is portable.
			g.leave()
			return
		}
		g.fatal |= 1 << q.index
		g.condemn(&evidence{queue: q, cause: core.CauseDevice, detail: detail})
		return
	}
	e := &evidence{queue: q, cause: core.CauseDevice, detail: detail}
	own := f.Exception == abi.ExceptionEndpoint || f.Exception == abi.ExceptionInvalidInstruction || f.Exception == abi.ExceptionCallStack
	memory := f.Exception.MMU() || g.space.faulted
	if len(q.jobs) > 0 && (own || memory) { // Any other code is the firmware's contradiction, and accuses nobody.
		e.job, e.cause = q.jobs[0], core.CauseTrap
		if memory {
			e.cause = core.CauseMemory
		}
	}
	g.fatal |= 1 << q.index
	g.condemn(e)
}

// fault: the job whose entry the stream was in went wrong; the stream goes on with the next one.
func (d *Driver) fault(g *group, q *queue, f abi.Fault, at uint64) {
	for _, j := range q.jobs {
		if at >= j.start && at < j.end {
			e := &evidence{job: j, queue: q, cause: faultCause(f.Exception), detail: "stream fault: " + f.Exception.String()}
			j.fault = e
			d.log.Warn("job faulted", "entity", g.key, "job", j.id, "error", f.Exception)
			return
		}
	}
	d.log.Warn("stream fault without a job", "entity", g.key, "slot", q.index, "error", f.Exception)
}

// faultCause is the shared noun for an exception of a job.
func faultCause(e abi.Exception) core.Cause {
	switch {
	case e.MMU(), e == abi.ExceptionOutOfMemory, e == abi.ExceptionAddressRange:
		return core.CauseMemory
	case e == abi.ExceptionDataInvalid, e == abi.ExceptionInvalidEncoding, e == abi.ExceptionInvalidPC:
		return core.CauseRefused
	case e == abi.ExceptionEvictionTimeout:
		return core.CauseHang
	}
	return core.CauseTrap
}
