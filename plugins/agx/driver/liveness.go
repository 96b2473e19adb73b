package driver

import (
	"fmt"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/agx/abi"
	"github.com/gpuwm/gpuwm/plugins/host"
	"github.com/gpuwm/gpuwm/plugins/hw"
)

// strikesMax is how often a command that does not begin is kicked again; the next time the device is given up.
const strikesMax = 3

// vitals are what the driver knows of the firmware's life.
type vitals struct {
	// sign is when something was last seen of it: a message, or progress in memory.
	sign time.Duration
	// moved is when the GPU was last seen to execute.
	moved time.Duration
	// asked says that a question is on its way.
	asked bool
}

// watch is what is remembered of a queue's first command between two looks.
type watch struct {
	status   hw.Status
	executed uint64
	// at is when it last came on, or was kicked again.
	at      time.Duration
	strikes int
	// illegible is since when its descriptor makes no sense; 0 while it does.
	illegible time.Duration
}

// observe looks at all first commands: do they begin, do they come on. The firmware's
// watchdog is the one that ends what hangs; this one is for a firmware that does not.
func (d *Driver) observe() {
	for _, q := range d.working() {
		if d.loop.Failure() != nil {
			return
		}
		q.observe()
	}
	d.checkAlive()
}

func (q *queue) observe() {
	d := q.d
	if len(q.commands) == 0 || d.recovery.active() {
		return
	}
	c, now, w := q.commands[0], d.config.Clock.Now(), &q.watch
	if c.fault != nil {
		return // Its stamp has a deadline.
	}
	r, err := q.readReport(c)
	if err != nil {
		q.illegible(now, err)
		return
	}
	w.illegible = 0
	if r.Status != w.status || r.Executed != w.executed {
		*w = watch{status: r.Status, executed: r.Executed, at: now}
		d.life.sign = now
		d.life.moved = now
	}
	// A firmware that is not asleep runs what it has: a running command counts as movement.
	if r.Status == hw.StatusRunning {
		d.life.moved = now
	}
	t := d.config.Timeouts
	switch {
	case r.Status == hw.StatusRunning && now-w.at >= t.Hang:
		c.fault = &fault{guilty: true, cause: core.CauseHang, detail: fmt.Sprintf("no workgroup ended in %s", t.Hang)}
		d.log.Warn("job hang detected", "entity", q.entity, "job", c.job.id, "slot", q.slot)
		d.fail(fmt.Errorf("queue %d: the firmware's watchdog does not end a command that hangs", q.uuid))
	case (r.Status == hw.StatusFault || r.Status == hw.StatusPreempted) && now-w.at >= t.Start:
		if r.Status == hw.StatusFault {
			c.fault = testimony(r)
		}
		d.fail(fmt.Errorf("queue %d: the firmware neither halts nor retires a command that faulted", q.uuid))
	case r.Status == hw.StatusIdle && q.unsent < len(q.commands) && now-w.at >= t.Start:
		q.remind(now)
	case r.Status == hw.StatusDone && now-w.at >= t.Start && !q.force():
		q.remind(now)
	}
}

// illegible bounds how long the descriptor of the first command may make no sense.
func (q *queue) illegible(now time.Duration, err error) {
	w, d := &q.watch, q.d
	if w.illegible == 0 {
		w.illegible = now
	}
	if bound := d.config.Timeouts.Start; now-w.illegible >= bound {
		d.fail(fmt.Errorf("queue %d: the descriptor of job %d makes no sense for %s: %w", q.uuid, q.commands[0].job.id, bound, err))
	}
}

// remind kicks a queue again that does not begin, or is not retired. While others execute it merely waits;
// with an idle GPU the third time is the last one: it is blocked, and nobody knows by what.
func (q *queue) remind(now time.Duration) {
	w, d := &q.watch, q.d
	if d.life.moved <= w.at {
		w.strikes++
	}
	w.at = now
	if w.strikes > strikesMax {
		d.fail(fmt.Errorf("queue %d is blocked: job %d does not execute, kicked %d times", q.uuid, q.commands[0].job.id, strikesMax))
		return
	}
	if q.unsent < len(q.commands) {
		d.ring(abi.DoorbellKick)
		d.tell(q)
	}
}

// checkAlive asks a firmware that shows nothing while work is under way for a sign of
// life: a flush has to be consumed in its time, or the device is given up.
func (d *Driver) checkAlive() {
	if d.life.asked || len(d.active) == 0 || d.config.Clock.Now()-d.life.sign < d.config.Timeouts.Heartbeat {
		return
	}
	d.life.asked = true
	d.control(abi.Flush(), func() { d.life.asked = false })
}

// testimony is what a descriptor says of a fault: who wrote there that the work misbehaved accuses
// it; a failure of the engine accuses nobody.
func testimony(r hw.Report) *fault {
	cause := host.FaultCause(r.Cause)
	return &fault{guilty: cause != core.CauseDevice, cause: cause, detail: r.Detail}
}
