package sched

import (
	"fmt"
	"time"

	"github.com/gpuwm/gpuwm/core"
)

// overtime reports whether the job executed longer than its timeout, which is
// counted in executed time and moved by nothing but an extension.
func (j *job) overtime(mode core.Mode) bool {
	if mutated("timeout-early") {
		return mode == core.ModeCompute && j.spec.Timeout > 0 && !j.final() && j.state.TimeInEpoch > j.spec.Timeout/4
	}
	return mode == core.ModeCompute && j.spec.Timeout > 0 && !j.final() &&
		j.clock() > j.spec.Timeout+j.state.Extended
}

func timeoutText(j *job) string {
	spent := j.clock().Round(time.Millisecond)
	if j.state.Extended > 0 {
		return fmt.Sprintf("executed for %s, its timeout is %s, extended by %s", spent, j.spec.Timeout, j.state.Extended)
	}
	return fmt.Sprintf("executed for %s, its timeout is %s", spent, j.spec.Timeout)
}

// extend takes the verdict that a job still makes progress.
func (c *Core) extend(e *entity, ev *Event) error {
	j := e.find(ev.Job)
	switch {
	case j == nil || j.final():
		return fmt.Errorf("job %d: %w", ev.Job, core.ErrNotFound)
	case j.state.Stopping != "":
		return &core.TransitionError{Noun: "job " + j.spec.Name, From: "stopping: " + string(j.state.Stopping), Event: "extend"}
	case ev.By <= 0:
		return fmt.Errorf("extend job %s by %s: %w", j.spec.Name, ev.By, core.ErrInvalid)
	case j.state.Extensions >= c.config.ExtensionsMax:
		return fmt.Errorf("job %s was extended %d times: %w", j.spec.Name, j.state.Extensions, core.ErrFull)
	}
	j.state.Extensions++
	j.state.Extended += ev.By
	c.recordJob(j)
	return nil
}

// retime replaces the timeout of a job; what was executed already counts.
func (c *Core) retime(e *entity, ev *Event) error {
	j := e.find(ev.Job)
	if j == nil || j.final() {
		return fmt.Errorf("job %d: %w", ev.Job, core.ErrNotFound)
	}
	if ev.By < 0 {
		return fmt.Errorf("timeout %s of job %s: %w", ev.By, j.spec.Name, core.ErrInvalid)
	}
	spec := *j.spec
	spec.Timeout = ev.By
	j.spec = &spec
	return nil
}

// queueDeadline notes until when a job may wait to be sent.
func (c *Core) queueDeadline(e *entity, j *job) {
	if at := j.state.Submitted.Add(j.spec.QueueTimeout); e.queueBy == 0 || at < e.queueBy {
		e.queueBy = at
	}
}

// queueOverdue ends the jobs that have waited too long.
func (c *Core) queueOverdue(e *entity) {
	if e.queueBy == 0 || e.queueBy > c.now {
		return
	}
	e.queueBy = 0
	for _, j := range e.jobs[e.first:] {
		if j.spec.QueueTimeout <= 0 || j.state.Phase != core.JobQueued || j.state.Epoch != 0 || j.state.Stopping != "" {
			continue
		}
		if j.state.Submitted.Add(j.spec.QueueTimeout) <= c.now || mutated("queue-timeout-early") {
			c.stop(e, j, core.CauseQueueTimeout, fmt.Sprintf("waited for %s to be sent to the device", j.spec.QueueTimeout))
			continue
		}
		c.queueDeadline(e, j)
	}
}

// hear notes that the backend reported about the entity.
func (c *Core) hear(e *entity) {
	e.heard = c.now
	if e.silentBy == 0 && e.state.Residency == core.Resident {
		e.silentBy = c.now.Add(c.config.Silence)
		c.touch(e) // so that the timer is set
	}
}

// silent restarts the instance when a job executes and nothing was heard of it.
// A sample without progress counts as a report: a workgroup may take as long as it
// likes, and the backend knows when it hangs.
func (c *Core) silent(e *entity) {
	if e.silentBy == 0 || e.silentBy > c.now {
		return
	}
	e.silentBy = 0
	if e.state.Residency != core.Resident || !e.executes() {
		return
	}
	if by := e.heard.Add(c.config.Silence); by > c.now {
		e.silentBy = by
		return
	}
	c.restart("no report of entity " + e.spec.Name + " for " + c.config.Silence.String() + " while it executes")
}

func (e *entity) executes() bool {
	for _, j := range e.jobs[:min(e.next, len(e.jobs))] {
		if j.executes {
			return true
		}
	}
	return false
}

// overdue reports whether the backend owes an answer about the entity.
func (e *entity) overdue(now core.Instant) bool {
	return e.answerBy != 0 && e.answerBy <= now || e.replyBy != 0 && e.replyBy <= now
}

// lateAlone returns, of the entities that are due, the one that did not leave the
// hardware in time, if that is evidence against it. While an instance is ended, or
// when others wait in vain too, it is none: the device may be dead, or one of them
// keeps the others.
func (c *Core) lateAlone() (late *entity) {
	if c.restarting {
		return nil
	}
	for _, e := range c.touched {
		if !e.overdue(c.now) {
			continue
		}
		if late != nil {
			return nil
		}
		late = e
	}
	if late == nil || late.state.Residency != core.Suspending || late.answerBy == 0 || late.answerBy > c.now {
		return nil
	}
	return late
}

// latePreemption blames the job that executes: a workgroup of it did not come
// to its end within the bound.
func (c *Core) latePreemption(e *entity) {
	for _, j := range e.jobs[e.first:] {
		if j.executes && j.state.Run != 0 {
			j.state.Stopping = core.CauseHang
			j.state.Error = "did not leave the hardware within " + c.config.Preempt.String()
			e.mark(j)
			c.recordJob(j)
			return
		}
	}
}
