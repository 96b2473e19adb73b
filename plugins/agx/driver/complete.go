package driver

import (
	"github.com/gpuwm/gpuwm/plugins/agx/abi"
	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/sdk"
)

// scan looks at the stamps of all queues with commands in their ring.
func (d *Driver) scan() {
	for _, q := range d.working() {
		if d.loop.Failure() != nil {
			return
		}
		d.scanQueue(q)
		q.settle()
	}
}

// scanQueue retires every command that the stamp has passed, and reports what started and
// what ended. A stamp that makes no sense is logged and believed in nothing.
func (d *Driver) scanQueue(q *queue) {
	if len(q.commands) == 0 {
		return
	}
	now := d.stamp(q.slot)
	if abi.StampsBetween(q.completed, now) < 0 || abi.StampsBetween(q.value, now) > 0 {
		if !q.warned {
			d.log.Warn("stamp makes no sense", "entity", q.entity, "slot", q.slot, "stamp", now, "completed", q.completed, "submitted", q.value)
		}
		q.warned = true
		return
	}
	q.warned = false
	q.completed = now
	done := completions{q: q}
	for len(q.commands) > 0 && abi.Passed(now, q.commands[0].value) && d.loop.Failure() == nil {
		if !q.retire(q.commands[0], &done) {
			break
		}
	}
	done.report()
	if len(q.commands) > 0 {
		q.begun(q.commands[0])
	} else {
		q.empty()
	}
	if done.changed {
		q.note()
	}
}

// begun reports the start of the job whose command is at the head, once the firmware wrote that it executes.
func (q *queue) begun(c *command) {
	if c.job.started || !q.state.alive() {
		return
	}
	if r, err := q.readReport(c); err == nil && r.Status != hw.StatusIdle {
		q.start(c.job)
		q.note()
	}
}

// retire takes the first command out of the ring, whose stamp has passed; false when it can't be believed.
func (q *queue) retire(c *command, done *completions) bool {
	report, err := q.readReport(c)
	whole := err == nil && report.Status == hw.StatusDone && report.Done == c.count
	// What was given up runs out, however it ends.
	over := q.lost || q.state.ending()
	switch {
	case c.fault != nil && (err != nil || report.Status != hw.StatusRunning):
		// Its end was announced; the work of one that the firmware could not read never began.
	case err != nil || !offGPU(report.Status):
		return q.doubt(c)
	case whole || over:
	case report.Status == hw.StatusFault:
		// The event was lost, but the descriptor knows.
		c.fault = testimony(report)
		q.advance(mark)
	default:
		return q.doubt(c)
	}
	d, j := q.d, c.job
	j.commands--
	j.retired += report.Done
	j.executed += report.Executed
	j.took += report.ExecutedTime
	if whole && c.fault == nil {
		q.rates.measure(j.key, c.count, report.ExecutedTime, c.tail, d.config.Slice)
		d.recovery.row = 0
	}
	d.life.sign, d.life.moved = d.config.Clock.Now(), d.config.Clock.Now()
	d.load -= c.cost
	q.commands = q.commands[1:]
	q.unsent = min(q.unsent, len(q.commands))
	q.watch = watch{at: d.config.Clock.Now()}
	done.changed = true
	// The firmware may touch the command that it retired last once more.
	q.dropLast()
	q.last = c
	if f := c.fault; f != nil {
		if !q.marked() {
			q.disarm()
		}
		done.report()
		if q.state == failing && q.advance(lose) {
			q.lose(c, f)
		}
		return true
	}
	if !over {
		done.add(j)
	}
	return true
}

// offGPU reports whether a descriptor says that nothing executes it any more, nor will.
func offGPU(s hw.Status) bool {
	return s == hw.StatusDone || s == hw.StatusFault || s == hw.StatusPreempted
}

func (q *queue) disarm() {
	if q.deadline != nil {
		q.deadline.Stop()
		q.deadline = nil
	}
}

// doubt: the stamp says that a command is done, and its descriptor does not. The firmware's word is not
// taken for it; what watches commands that do not come on (liveness.go) decides.
func (q *queue) doubt(c *command) bool {
	if !c.doubted {
		q.d.log.Warn("stamp without work", "entity", q.entity, "job", c.job.id, "slot", q.slot, "stamp", q.completed)
	}
	c.doubted = true
	return false
}

// force retires the first command although its stamp was not written: the descriptor is done, and
// the firmware's own done pointer is beyond it. It reports whether it did.
func (q *queue) force() bool {
	d := q.d
	told := len(q.commands) - q.unsent
	left := (q.work.kicked + abi.QueueItems - d.load32(q.work.word(abi.RingStateDone))%abi.QueueItems) % abi.QueueItems
	if int(left) >= told {
		return false
	}
	c := q.commands[0]
	d.log.Warn("stamp was lost", "entity", q.entity, "job", c.job.id, "slot", q.slot, "want", c.value)
	done := completions{q: q}
	q.retire(c, &done)
	done.report()
	if len(q.commands) == 0 {
		q.empty()
	}
	q.note()
	q.settle()
	return true
}

// empty: nothing of the queue is in the ring any more.
func (q *queue) empty() {
	d := q.d
	if _, was := d.active[q]; !was {
		return
	}
	delete(d.active, q)
	pending := d.global(abi.GlobalPendingSubmissions)
	d.store32(pending, d.load32(pending)-1)
	q.unhold()
	q.advance(drained)
}

// completions collects the jobs that one look at a stamp completed, so that they are reported at once.
type completions struct {
	q       *queue
	jobs    []*job
	changed bool
}

// add takes a job into account one of whose commands was retired.
func (c *completions) add(j *job) {
	if j.left > 0 || j.commands > 0 {
		c.report()
		c.q.start(j)
		return
	}
	c.jobs = append(c.jobs, j)
}

// report reports all jobs at once if the SDK can take that: a stamp says "everything up to here".
func (c *completions) report() {
	if len(c.jobs) == 0 {
		return
	}
	q := c.q
	ended := map[*job]bool{}
	for _, j := range c.jobs {
		ended[j] = true
	}
	through := len(c.jobs) > 1
	// "Everything before" must be just these jobs.
	for i, j := range q.jobs[:min(len(c.jobs), len(q.jobs))] {
		through = through && c.jobs[i] == j
	}
	kept := q.jobs[:0:0]
	for _, j := range q.jobs {
		if !ended[j] {
			kept = append(kept, j)
		}
	}
	q.jobs = kept
	last := c.jobs[len(c.jobs)-1]
	if up, ok := q.report.(sdk.UpToReporter); ok && through {
		for _, j := range c.jobs {
			q.start(j) // When each began nobody knows, but that it did.
		}
		up.CompletedThrough(last.id, q.usage(last))
	} else {
		for _, j := range c.jobs {
			q.start(j)
			q.report.Completed(j.id, q.usage(j))
		}
	}
	c.jobs = nil
}
