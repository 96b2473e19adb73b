package driver

import (
	"fmt"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/agx/abi"
	"github.com/gpuwm/gpuwm/plugins/hw"
)

// haltKind is which event announced a halt.
type haltKind uint8

const (
	haltFault haltKind = iota
	haltTimeout
	// haltSilent: no event came, the flag was seen by the poll.
	haltSilent
)

// halt is what the event said.
type halt struct {
	kind haltKind
	// slot is the event slot of a time-out, negative for none.
	slot int32
}

// recovery is the stop of the whole GPU that a fault or a time-out brings: the
// firmware has halted, the host notes who was on the GPU, and resumes it.
type recovery struct {
	step recoveryStep
	halt halt
	// halts is the firmware's count at the last recovery, row how many followed each
	// other without a command that ended well, total all of them.
	halts      uint32
	row, total int
	// until bounds the present step, tries counts how often the firmware was told to resume.
	until time.Duration
	tries int
}

// recoveryStep is where a recovery stands.
type recoveryStep uint8

// The steps.
const (
	// recoveryNone: the GPU runs.
	recoveryNone recoveryStep = iota
	// recoveryHalting waits for the halted flag.
	recoveryHalting
	// recoveryResuming waits until the firmware took the resume.
	recoveryResuming
)

const (
	// recoveryLook is how often both flags are looked at.
	recoveryLook = time.Millisecond
	// resumesMax is how often the firmware is told to resume before the GPU counts as wedged.
	resumesMax = 3
)

func (r *recovery) active() bool { return r.step != recoveryNone }

// halted begins a recovery. An event during one belongs to the next halt, which is
// noticed when this one is over.
func (d *Driver) halted(h halt) {
	r := &d.recovery
	if r.active() {
		return
	}
	r.step, r.halt, r.tries = recoveryHalting, h, 0
	r.until = d.config.Clock.Now() + d.config.Timeouts.Halt
	d.lookHalt()
}

// lookHalt is one look at the flags.
func (d *Driver) lookHalt() {
	r := &d.recovery
	now := d.config.Clock.Now()
	switch r.step {
	case recoveryNone:
		return
	case recoveryHalting:
		if d.load32(d.status(abi.FwStatusHalted)) != 0 {
			d.mark()
			d.resume()
		} else if now >= r.until {
			d.unhalted()
		}
	case recoveryResuming:
		if d.load32(d.status(abi.FwStatusResume)) == 0 {
			d.resumed()
			return // Another recovery looks for itself.
		}
		if now >= r.until {
			d.urge()
		}
	}
	if d.loop.Failure() == nil && r.active() {
		d.loop.After(recoveryLook, d.lookHalt)
	}
}

// unhalted: the GPU does not halt. When the count rose it tried, and there is nothing that would
// get it out of that; otherwise the event meant nothing.
func (d *Driver) unhalted() {
	r := &d.recovery
	if d.load32(d.status(abi.FwStatusHaltCount)) != r.halts {
		d.fail(fmt.Errorf("gpu does not halt in %s: wedged", d.config.Timeouts.Halt))
		return
	}
	d.log.Warn("halt event without a halt")
	r.step = recoveryNone
}

// resume lets the firmware go on. Both words are written once: the firmware may take them at any time, and
// halt again, and who writes them a second time wipes that out.
func (d *Driver) resume() {
	d.store32(d.status(abi.FwStatusHalted), 0)
	d.store32(d.status(abi.FwStatusResume), 1)
	d.recovery.step = recoveryResuming
	d.urge()
}

// urge makes the firmware look at the resume, again when it did not see it.
func (d *Driver) urge() {
	r := &d.recovery
	if r.tries == resumesMax {
		d.fail(fmt.Errorf("gpu does not resume, told %d times: wedged", resumesMax))
		return
	}
	r.tries++
	r.until = d.config.Clock.Now() + d.config.Timeouts.Halt
	d.ring(abi.DoorbellKick)
}

// resumed: the firmware runs on, and owes the stamps of the dead commands.
func (d *Driver) resumed() {
	r := &d.recovery
	r.step = recoveryNone
	for _, q := range d.working() {
		if q.marked() {
			q.armRetire(d.config.Timeouts.Retire)
		}
	}
	if d.load32(d.status(abi.FwStatusHalted)) != 0 {
		d.halted(halt{kind: haltSilent, slot: -1})
		return
	}
	d.loop.LookAgain()
}

// testify hears the witnesses of a halt that will not come to its end.
func (d *Driver) testify() {
	if d.recovery.step == recoveryHalting && d.load32(d.status(abi.FwStatusHaltCount)) != d.recovery.halts {
		d.mark()
	}
}

// mark notes who was on the GPU when it was halted, and what that means for each. It is
// reported when the commands are retired, which follows the resume.
func (d *Driver) mark() {
	r := &d.recovery
	halts := d.load32(d.status(abi.FwStatusHaltCount))
	r.halts = halts
	r.total++
	r.row++
	if r.row > d.config.RecoveriesMax {
		d.fail(fmt.Errorf("%d halts in a row", r.row-1))
		return
	}
	info, valid := abi.DecodeMMUFault(uint64(d.config.Ports.Registers.Load(abi.RegFaultInfo)) | uint64(d.config.Ports.Registers.Load(abi.RegFaultInfo+4))<<32)
	d.log.Warn("gpu halted", "attempt", r.row, "slot", r.halt.slot, "fault", info, "valid", valid)
	var list []abi.PendingStamp
	for i := range uint64(abi.PendingStamps) {
		at := d.lay.globals + uint64(d.abi.PendingStampsOffset()) + i*abi.PendingStampSize
		p, ok := d.abi.DecodePendingStamp(d.load32(at), d.load32(at+4))
		if ok {
			list = append(list, p)
			d.store32(at, 0)
		}
	}
	for _, p := range list {
		q := d.events.holder(p.Slot)
		if q == nil {
			d.log.Warn("halted slot of nobody", "slot", p.Slot)
			continue
		}
		d.scanQueue(q) // What was done before is done.
		if d.loop.Failure() != nil {
			return
		}
		for _, c := range q.upTo(p.Value) {
			c.fault = d.judge(q, c, p.Slot, info, valid, len(list))
			q.advance(mark)
		}
	}
}

// judge says what a halt means for a command that was on the GPU. The fault register blames an
// address space, a time-out a slot; where neither names one, the command's own descriptor does.
func (d *Driver) judge(q *queue, c *command, slot uint32, info abi.MMUFault, valid bool, others int) *fault {
	report, err := q.readReport(c)
	said := testimony(report)
	accused := err == nil && report.Status == hw.StatusFault && said.guilty
	f := &fault{cause: core.CauseDevice}
	switch h := d.recovery.halt; {
	case valid:
		f.guilty = uint32(info.VMSlot) == c.vm
		f.cause, f.detail = core.CauseMemory, info.String()
	case h.kind == haltTimeout && h.slot >= 0:
		f.guilty = uint32(h.slot) == slot
		f.cause, f.detail = core.CauseHang, "the firmware's watchdog ended it"
	case h.kind == haltTimeout && (others == 1 || err == nil && report.Status == hw.StatusRunning):
		// It was executing when the watchdog bit, whoever was on the pipe beside it.
		f.guilty, f.cause, f.detail = true, core.CauseHang, "the firmware's watchdog ended it"
	default:
		f.guilty, f.detail = accused, "the GPU was halted, and nobody said why"
	}
	switch {
	case !f.guilty:
		f.cause, f.detail = core.CauseDevice, "victim of a halt of the GPU: "+f.detail
	case accused:
		f.cause, f.detail = said.cause, said.detail
	}
	return f
}

// upTo are the commands that a halt or a channel error concerns when it names this value: those
// up to it, but for earlier ones whose descriptor says that all was done. These only miss their stamp.
func (q *queue) upTo(value uint32) []*command {
	var list []*command
	for _, c := range q.commands {
		if c.fault != nil || !abi.Passed(value, c.value) {
			continue
		}
		if r, err := q.readReport(c); c.value != value && err == nil && r.Status == hw.StatusDone && r.Done == c.count {
			continue
		}
		list = append(list, c)
	}
	return list
}

// channelError: one queue was stopped by the firmware. Its commands up to the
// value are over, and it goes on when it is told to, once; nobody else is concerned.
func (d *Driver) channelError(m *abi.ChannelError) {
	q := d.events.owner(m.Slot)
	if q == nil || m.Pipe != uint32(abi.PipeCompute) || !q.submitted(m.Slot, m.Value) {
		d.log.Warn("channel error of nobody", "slot", m.Slot, "pipe", m.Pipe)
		return
	}
	if abi.Passed(q.recovered, m.Value) {
		d.log.Warn("channel error again", "entity", q.entity, "slot", m.Slot)
		return
	}
	q.recovered = m.Value
	d.scanQueue(q)
	what := abi.ChannelErrorType(m.Error)
	d.log.Warn("channel error", "entity", q.entity, "slot", m.Slot, "cause", what)
	for _, c := range q.upTo(m.Value) {
		f := &fault{guilty: true, cause: core.CauseTrap, detail: fmt.Sprintf("channel error: %s", what)}
		if what == abi.ChannelMemoryError {
			f.cause = core.CauseMemory
		}
		if r, err := q.readReport(c); err == nil && r.Status == hw.StatusFault && testimony(r).guilty {
			f = testimony(r)
		}
		c.fault = f
		q.advance(mark)
	}
	d.control(&abi.RecoverChannel{Pipe: m.Pipe, Queue: q.work.queueInfo(), Value: m.Value}, func() {
		if q.marked() {
			q.armRetire(d.config.Timeouts.Retire)
		}
		d.loop.LookAgain()
	})
}

// submitted reports whether the firmware was told of a command with this stamp value since the
// queue took its event slot, and knows the queue still.
func (q *queue) submitted(slot, value uint32) bool {
	return q.work != nil && q.work.known && !q.relaying && q.state != destroying && q.slot == slot &&
		abi.StampsBetween(q.base, value) > 0 && abi.Passed(q.value, value)
}
