package fw

import (
	"time"

	"github.com/gpuwm/gpuwm/plugins/agx/abi"
	"github.com/gpuwm/gpuwm/plugins/hw"
)

// Preemption inside compute commands (OpenPoints.ComputePreempt). A command of a stronger level that finds the pipe
// full makes the weakest one on it leave: its context is stored at the end of a workgroup, and its sequence starts over
// from where FinalizeCompute says when the pipe is free again. A store that takes longer than the vendor's
// timeouts ends as a watchdog's time-out. Commands and queues say whether they allow it; the vendor's driver, and this
// backend's, forbid it.

// contextSwitch is how long a context store may take before the command is killed.
func (f *Firmware) contextSwitch() time.Duration {
	return time.Duration(f.global(abi.GlobalCLContextSwitchTimeoutMS)+f.global(abi.GlobalCLKillTimeoutMS)) * time.Millisecond
}

// preempt makes one command leave the pipe for q, if any may, and reports whether it did.
func (f *Firmware) preempt(q *workQueue) bool {
	var victim *command
	for _, c := range f.running {
		if c.storeBy != never {
			return false // Another one is leaving.
		}
		if c.q.level > q.level && (victim == nil || c.q.level >= victim.q.level) && f.preemptible(c) {
			victim = c
		}
	}
	if victim == nil {
		return false
	}
	f.say("CMD", "uuid=%d slot=%d value=%#x has to leave for uuid=%d", victim.q.info.UUID, victim.q.slot, victim.rc.Meta.Value, q.info.UUID)
	victim.storeBy = f.cfg.Clock.Now() + f.contextSwitch()
	victim.run.exec.Stop()
	return true
}

// preemptible reports whether a command may be made to leave, and knows where it starts over.
func (f *Firmware) preemptible(c *command) bool {
	if c.rc.Meta.NoPreemption != 0 || !c.q.info.Priority.Preemptible() || c.run == nil || c.run.exec == nil {
		return false
	}
	for at := c.at; ; {
		op, size, err := f.abi.DecodeOp(c.sequence[at:])
		if err != nil {
			return false
		}
		if end, ok := op.(*abi.FinalizeCompute); ok {
			restart := int64(at) + int64(end.Restart)
			if end.Restart >= 0 || restart < 0 {
				return false
			}
			first, _, err := f.abi.DecodeOp(c.sequence[restart:])
			_, starts := first.(*abi.StartCompute)
			c.restart = uint32(restart)
			return err == nil && starts
		}
		at += size
	}
}

// stored takes a command off the pipe whose context is in memory.
func (f *Firmware) stored(c *command, r hw.Report) {
	r.Status = hw.StatusPreempted
	f.report(c, r)
	f.offPipe(c)
	f.counters.Preempted++
	f.serial++
	c.q.since, c.q.serial = f.cfg.Clock.Now(), f.serial
	f.setState(c.q, queueStored)
}

// restore lets the command of a queue start over, with what is left of its work.
func (f *Firmware) restore(q *workQueue) {
	c := q.current
	c.at, c.run, c.started, c.storeBy = c.restart, nil, false, never
	f.say("CMD", "uuid=%d slot=%d value=%#x is restored", q.info.UUID, q.slot, c.rc.Meta.Value)
	f.onPipe(c)
}
