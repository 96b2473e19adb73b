package driver

import (
	"fmt"
	"slices"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/mali/abi"
)

// phase is what the driver as a whole does.
type phase uint8

// The phases and what may follow.
const (
	// phaseDown was never up; then loading.
	phaseDown phase = iota
	// phaseLoading boots the firmware; then up, or the device is given up.
	phaseLoading
	// phaseUp takes work; then resetting or suspending.
	phaseUp
	// phaseResetting saves what can be saved and resets the GPU; then loading.
	phaseResetting
	// phaseSuspending takes everybody off and halts the firmware; then off.
	phaseSuspending
	// phaseOff has no power; then loading.
	phaseOff
)

// resetWindow is how long resets count as one row when no job ends between them.
const resetWindow = time.Minute

// resets counts GPU resets.
type resets struct {
	total, row int
	last       time.Duration
	reason     error
	// hard says that the GPU is being reset this moment: nobody is there to talk to.
	hard bool
}

// Resets returns how many GPU resets there were. For tests, on the goroutine that calls Step.
func (d *Driver) Resets() int { return d.resets.total }

// broken is reset for errors that may also come while the device comes up.
func (d *Driver) broken(err error) {
	switch d.phase {
	case phaseDown, phaseLoading:
		d.fail(err)
	default:
		d.reset(err)
	}
}

// reset is the answer to everything that a new firmware helps against. Who can be
// suspended is, and goes on; who had begun and could not is a victim, unless there is
// evidence against it. A request during a reset is dropped; too many in a row, or one
// that fails, and the device is given up.
func (d *Driver) reset(reason error) {
	if d.loop.Failure() != nil || d.phase != phaseUp && d.phase != phaseSuspending {
		return
	}
	now := d.now()
	if now-d.resets.last > resetWindow {
		d.resets.row = 0
	}
	d.resets.total++
	d.resets.row++
	d.resets.last, d.resets.reason = now, reason
	if d.resets.row > d.config.ResetsMax {
		d.fail(fmt.Errorf("%d GPU resets in a row: %w", d.resets.row-1, reason))
		return
	}
	d.log.Warn("gpu reset", "attempt", d.resets.row, "error", reason)
	d.phase = phaseResetting
	d.dropWaits()
	d.tick.running = false
	d.suspendAll(d.resetGPU)
}

// resetGPU resets the GPU and boots the firmware anew.
func (d *Driver) resetGPU() {
	d.softReset(func() {
		for _, g := range d.ordered() {
			g.advance(gpuReset)
		}
		d.phase = phaseLoading
		d.boot(true, func(err error) {
			if err != nil {
				d.fail(err)
				return
			}
			d.resets.reason = nil
			d.up()
			for _, g := range d.ordered() {
				g.judge()
			}
		})
	})
}

// softReset drops everything volatile and goes on; when that fails the device is given up.
func (d *Driver) softReset(done func()) {
	d.resets.hard = true
	d.write(abi.RegGPUIntClear, abi.GPUIntResetDone)
	d.write(abi.RegGPUCommand, abi.CommandSoftReset)
	d.expect(d.config.Timeouts.Reset, registerPoll, func() bool { return d.read(abi.RegGPUIntRaw)&abi.GPUIntResetDone != 0 }, func() {
		d.write(abi.RegGPUIntClear, abi.GPUIntResetDone)
		d.resets.hard = false
		for _, s := range d.slots {
			if s.group != nil {
				s.group.slot = nil
				s.group = nil
			}
			s.asked = 0
		}
		d.spaces.forget()
		d.cleaned() // The cache is empty.
		done()
	}, func() { d.fail(fmt.Errorf("GPU reset: not done in %s", d.config.Timeouts.Reset)) })
}

// judge decides what becomes of a group after a reset.
func (g *group) judge() {
	switch {
	case g.state == gone || g.buried && !g.destroy:
	case !g.alive():
		g.afterSlot()
	case g.state == suspended || g.suspend == 0: // Saved, or it never had a job.
		g.afterSlot()
	case g.begun():
		g.innocent = true
		g.condemn(&evidence{cause: core.CauseDevice, detail: "the GPU was reset under it"})
	default:
		g.taking = true // Nothing of it is under way: it starts anew behind what is done.
		g.afterSlot()
	}
}

// begun reports whether work of the group may have been done that nobody knows of.
func (g *group) begun() bool {
	for _, q := range g.queues {
		for i, j := range q.jobs {
			if j.work == nil && (i == 0 || j.seqno <= q.count()) {
				return true
			}
			if j.work != nil && j.work.begun() {
				return true
			}
		}
	}
	return false
}

// suspendAll takes every group off: suspended if it can go on, terminated if not or
// if it does not leave in time; what was suspended is flushed to memory.
func (d *Driver) suspendAll(done func()) {
	bound := d.config.Timeouts.Ack
	if d.phase == phaseResetting {
		bound = d.config.Timeouts.Leave
	}
	for _, s := range d.slots {
		g := s.group
		s.asked &= abi.GroupStateMask // Of the rest nobody wants to know any more.
		switch {
		case g == nil || g.state == unknown:
		case g.state == terminating && g.timedout: // It had its time, and the reset takes the slot away.
			s.asked = 0
			g.advance(force)
		case (g.state == starting || g.state == resuming) && d.says(s, abi.GroupTerminate):
			s.asked = 0 // TERMINATE could not be told from what it says already: the reset takes the slot away.
		case g.state == terminating:
		case g.state == suspending && s.asked != 0: // Asked already, and waited for once more.
		case g.state == active && g.alive():
			d.askState(s, abi.GroupSuspend, sendSuspend)
		case g.state == active || g.state == starting || g.state == resuming || g.state == suspending:
			d.askState(s, abi.GroupTerminate, sendTerminate)
		}
	}
	judge := func(late []*slot, lives bool, bound time.Duration) {
		for _, s := range late {
			d.escalate(s, lives)
		}
		d.submit(bound, func(late []*slot) {
			for _, s := range late {
				d.log.Warn("group not terminated", "entity", s.group.key, "slot", s.index)
				s.asked = 0
				s.group.advance(force)
			}
			d.saveSuspended(done)
		})
	}
	d.submit(bound, func(late []*slot) {
		again, stays := false, false
		for _, s := range late {
			switch g := s.group; {
			case !g.executing():
			case g.cameOn(): // Progress is a sample: who seems to come on is asked once more.
				g.noteAsked()
				again = true
			default:
				stays = true
			}
		}
		if !again && !stays {
			judge(late, false, d.config.Timeouts.Leave)
			return
		}
		// Who stays is to blame only if the firmware lives, after all that time.
		d.toggleGlobal(abi.GlobalPing)
		answered := func() bool { return d.globalPending(abi.GlobalPing) == 0 }
		last := func() {
			lives, bound := answered(), d.config.Timeouts.Leave
			if !lives {
				bound = 0 // It was waited for often enough.
			}
			judge(slices.DeleteFunc(slices.Clone(d.slots), func(s *slot) bool { return s.asked == 0 }), lives, bound)
		}
		if again {
			d.submit(bound, func([]*slot) { last() })
			return
		}
		d.kick(0)
		d.expect(bound, 0, func() bool { return d.acknowledged() || answered() }, last, last)
	})
}

// says reports whether a state is acknowledged now, whoever asked for it.
func (d *Driver) says(s *slot, state abi.GroupState) bool {
	return d.load(s.iface.output+abi.GroupAck)&abi.GroupStateMask == uint32(state)
}

// escalate terminates a group that did not leave in time. It is innocent unless its job stays on its
// endpoint under a firmware that lives.
func (d *Driver) escalate(s *slot, lives bool) {
	g := s.group
	switch {
	case g.state == suspending && g.alive():
		if lives && g.executing() && !g.cameOn() {
			g.evidence = g.accuse(core.CauseHang, "did not leave its endpoint in time")
			g.timedout = true
		} else {
			g.timedout, g.innocent = true, true
			g.evidence = &evidence{cause: core.CauseDevice, detail: "was not suspended in time"}
		}
	case g.state == terminating:
		s.asked = 0
		g.advance(force)
		return
	case g.state == unknown:
		s.asked = 0
		return
	}
	d.askState(s, abi.GroupTerminate, sendTerminate)
}

// saveSuspended flushes suspend buffers to memory, also those of groups that left their
// slots earlier: what is still in a cache would be an older one after a reset. Then it empties the slots.
func (d *Driver) saveSuspended(done func()) {
	var dirty []*group
	for _, g := range d.dirty {
		if g.state == suspended {
			dirty = append(dirty, g)
		}
	}
	phase := d.phase
	empty := func() {
		for _, s := range d.slots {
			if g := s.group; g != nil && g.state.off() {
				d.unbind(s)
				if d.phase != phase || d.loop.Failure() != nil {
					return // Unless it was one already, this is a reset now.
				}
			}
		}
		done()
	}
	if len(dirty) == 0 {
		empty()
		return
	}
	d.flushCaches(empty, func() {
		d.log.Warn("cache not flushed")
		for _, g := range dirty {
			if g.begun() {
				g.evidence, g.innocent = &evidence{cause: core.CauseDevice, detail: "its suspend buffer was not flushed"}, true
			}
			g.advance(rebuild)
			g.taking = true
		}
		empty()
	})
}

// flushCaches writes L2 and load/store caches back to memory.
func (d *Driver) flushCaches(done, late func()) {
	d.write(abi.RegGPUIntClear, abi.GPUIntCleanDone)
	d.write(abi.RegGPUCommand, abi.CommandFlush(abi.FlushClean, abi.FlushClean, abi.FlushNone))
	d.expect(d.config.Timeouts.Flush, registerPoll, func() bool { return d.read(abi.RegGPUIntRaw)&abi.GPUIntCleanDone != 0 }, func() {
		d.write(abi.RegGPUIntClear, abi.GPUIntCleanDone)
		d.cleaned()
		done()
	}, late)
}

// cleaned: nothing that was saved is in the cache any more. Nobody is saved while a flush is under way.
func (d *Driver) cleaned() {
	for _, g := range d.dirty {
		g.dirty = false
	}
	d.dirty, d.stale = nil, nil
}
