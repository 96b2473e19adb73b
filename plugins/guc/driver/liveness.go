package driver

import (
	"errors"
	"fmt"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/guc/abi"
	"github.com/gpuwm/gpuwm/plugins/host"
	"github.com/gpuwm/gpuwm/plugins/hw"
)

const (
	// strikesMax is how often a job that does not begin is told of again; the next time the GT is reset.
	strikesMax = 3
	// unansweredMax is how many questions a silent firmware may leave unanswered.
	unansweredMax = 2
)

// vitals are what the driver knows of the firmware's life.
type vitals struct {
	// sign is when something was last seen of it: a message, or progress in memory.
	sign time.Duration
	// moved is when an engine was last seen to execute.
	moved time.Duration
	// asked says that a question is on its way, unanswered counts those that were lost in a row.
	asked      bool
	unanswered int
}

// sign notes that the firmware lives.
func (d *Driver) sign() { d.life.sign = d.config.Clock.Now() }

// watch is what is remembered of a queue's first job between two looks.
type watch struct {
	seqno    uint32
	executed uint64
	// base is the context's timestamp when the last workgroup ended, ticks the last one seen.
	base, ticks uint64
	// at is when the firmware was last told of the job, or the last workgroup ended; strikes
	// counts how often it did not begin although nobody was in its way.
	at      time.Duration
	strikes int
}

// observe looks at a queue's first job: does it begin, does it come on. A context
// that executes and ends no workgroup for Timeouts.Hang is blamed: with nobody waiting for
// its engine the firmware never notices. So is one whose fault is written down although the notice was lost.
func (q *queue) observe() {
	if q.published == 0 || !q.state.alive() {
		return
	}
	j, now := q.jobs[0], q.d.config.Clock.Now()
	report, err := q.readReport(j)
	if err != nil {
		return
	}
	ticks, w := q.timestamp(), &q.watch
	switch {
	case w.seqno != j.seqno || w.executed != report.Executed:
		*w = watch{seqno: j.seqno, executed: report.Executed, base: ticks, ticks: ticks, at: now}
		q.d.sign()
	case ticks != w.ticks:
		w.ticks, w.at, w.strikes = ticks, now, 0
		q.d.sign()
		q.d.life.moved = now
	}
	stuck := time.Duration(ticks-w.base) * time.Microsecond
	switch {
	case q.state != enabled:
	case report.Status == hw.StatusFault && now-w.at >= q.d.config.Timeouts.Start:
		q.blame(j, host.FaultCause(report.Cause), report.Detail)
	case j.started && report.Status == hw.StatusRunning && stuck >= q.d.config.Timeouts.Hang:
		q.blame(j, core.CauseHang, fmt.Sprintf("no workgroup ended in %s of execution", q.d.config.Timeouts.Hang))
	case now-w.at >= q.d.config.Timeouts.Start:
		q.remind(now)
	}
}

// blame gives the queue up for what its first job did; the loss is reported when it is off the engine.
func (q *queue) blame(j *job, cause core.Cause, detail string) {
	q.d.log.Warn("job hang detected", "entity", q.entity, "job", j.id, "slot", q.id, "cause", cause)
	q.evidence = &evidence{cause, detail}
	q.advance(ban)
}

// remind tells the firmware again of a job that does not begin or does not come on: SCHED_CONTEXT
// may have been lost, and a repeat is harmless. While others execute the job merely
// waits; with idle engines the third time is the last one.
func (q *queue) remind(now time.Duration) {
	w := &q.watch
	if q.d.life.moved < w.at {
		w.strikes++
	}
	w.at = now
	if w.strikes > strikesMax {
		q.d.reset(fmt.Errorf("guc_id %d: job %d does not execute, told %d times", q.id, q.jobs[0].id, strikesMax))
		return
	}
	if q.advance(sendKick) {
		q.d.send(abi.SchedContext{ID: q.id}, creditNone, 0)
	}
}

// stayed reports whether the first job is on an engine although its context was
// asked to leave, and the firmware lives: it has said something since, so that its silence is no excuse.
func (q *queue) stayed() bool {
	report, err := q.readReport(q.jobs[0])
	return err == nil && report.Status == hw.StatusRunning && q.d.life.sign > q.asked &&
		q.d.life.unanswered == 0 && q.watch.executed == report.Executed
}

// checkAlive asks a firmware that shows nothing, while something is awaited of it, for a
// sign of life. When it does not answer twice, it is dead.
func (d *Driver) checkAlive() {
	if d.stopped() || d.life.asked || len(d.active) == 0 && d.awaited == 0 ||
		d.config.Clock.Now()-d.life.sign < d.config.Timeouts.Heartbeat {
		return
	}
	d.life.asked = true
	d.request(globalPolicies, func(_ abi.Success, err error) {
		d.life.asked = false
		switch {
		case errors.Is(err, errStopped):
		case err == nil:
			d.life.unanswered = 0
		default:
			d.life.unanswered++
			if d.life.unanswered >= unansweredMax {
				d.reset(fmt.Errorf("firmware is silent: %w", err))
			}
		}
	})
}
