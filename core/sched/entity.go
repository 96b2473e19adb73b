package sched

import (
	"fmt"

	"github.com/gpuwm/gpuwm/core"
)

// entity is the scheduler of one entity. An idle one is this struct and nothing else.
type entity struct {
	spec  *core.EntitySpec
	state core.EntityState
	// jobs are those after state.Cut, in order; the ones before it are done
	// with for good and only counted in last.
	jobs []*job
	// first indexes the first of jobs without an outcome, next the first not
	// yet sent in this epoch.
	first, next int
	// unfinished counts jobs without an outcome, credits what jobs in the ring hold.
	unfinished int
	credits    uint32
	// messages of the backend's own kinds, in order; the first may be under way.
	messages []*message
	// waves are those that want the entity off the hardware.
	waves map[uint64]*wave
	// urgent counts jobs that need the entity off the hardware, barrier jobs in
	// the ring that later ones may not follow.
	urgent, barrier int
	last            core.JobSeq
	// failed are the sequence numbers, up to the cut, of jobs that did not complete.
	failed []core.JobSeq
	// since is when the entity last began to execute without an image.
	since core.Instant
	// answerBy bounds the pending command, retryAt the pause before a new
	// attempt, due is what the timer is set to, slot its place among the timers.
	answerBy, retryAt, due core.Instant
	slot                   int
	// waveBy bounds the wait of others for one that is stopped on the hardware.
	waveBy core.Instant
	// replyBy bounds the oldest message under way that changes no residency.
	replyBy core.Instant
	// queueBy is the earliest queue-wait deadline; silentBy bounds the silence
	// of the job that executes, heard is when it was last heard of.
	queueBy, silentBy, heard core.Instant
	// work is the executed time since the recorded image, in nanoseconds.
	work int64
	// tries counts failed attempts to save, losses restores without progress.
	tries, losses int
	// asked: the image being written was asked for by this Core.
	asked bool
	// propertiesAgain: they changed once more while a message was under way.
	propertiesAgain bool
	// imaged: since the entity left the hardware its image was written, or given up.
	imaged bool
	// halt is how far an EventStop has come, haltSeq its barrier.
	halt           halt
	haltSeq        core.CommandSeq
	touched, dirty bool
}

// move changes the residency along the transition table.
func (c *Core) move(e *entity, to core.Residency) {
	if !legal[residencyIndex(e.state.Residency)][residencyIndex(to)] {
		panic(&core.TransitionError{Noun: "entity " + e.spec.Name, From: string(e.state.Residency), Event: "to " + string(to)})
	}
	e.state.Residency = to
	c.record(e)
	c.notify(e)
}

// ask sends the residency command whose answer the entity then waits for.
func (c *Core) ask(e *entity, to core.Residency, cmd core.Command) {
	e.state.Pending = c.command(e, cmd)
	e.answerBy = c.answerFrom(to)
	c.move(e, to)
}

// answerFrom returns until when an answer asked for now may take.
func (c *Core) answerFrom(to core.Residency) core.Instant {
	if to == core.Suspending {
		return c.now.Add(c.config.Preempt)
	}
	return c.now.Add(c.config.Answer)
}

func (c *Core) askSuspend(e *entity) {
	c.ask(e, core.Suspending, core.Command{Kind: core.CommandMessage, Message: core.MessageSuspend})
}

// askDestroy has the entity leave. While it is stopped no command may follow the
// barrier, so that its destroy waits for the start.
func (c *Core) askDestroy(e *entity) {
	if e.haltSeq == 0 {
		e.replyBy = 0 // its end answers what is under way
	}
	if e.halt != haltNone {
		e.answered()
		c.move(e, core.Leaving)
		return
	}
	c.ask(e, core.Leaving, core.Command{Kind: core.CommandDestroy})
}

// answered ends the wait for the pending command.
func (e *entity) answered() { e.state.Pending, e.answerBy = 0, 0 }

// advance does what can be done for the entity now. While no session is open
// nothing is sent: what is under way is settled first, when one opens.
func (c *Core) advance(e *entity) {
	c.settle(e, e.state.Residency == core.Away)
	if e.state.Residency == core.Away {
		c.advanceAway(e)
		return
	}
	if !c.up || c.restarting || c.halted(e) {
		return
	}
	if e.propertiesAgain && e.state.PropertiesPending == 0 && e.state.Residency != core.Leaving {
		c.sendProperties(e)
	}
	c.sendMessage(e)
	switch e.state.Residency {
	case core.Creating:
		if e.state.Goal != core.GoalRun || e.evacuates() {
			c.askDestroy(e) // its image is all there is of it
		}
	case core.Resident:
		c.advanceResident(e)
	case core.Suspended:
		c.advanceSuspended(e)
	case core.Leaving:
		if e.state.Pending == 0 { // it was stopped when it began to leave
			e.state.Pending = c.command(e, core.Command{Kind: core.CommandDestroy})
			e.answerBy = c.now.Add(c.config.Answer)
			c.record(e)
		}
	}
}

func (c *Core) advanceAway(e *entity) {
	if e.state.Goal == core.GoalClose && !e.state.Closed {
		for _, j := range e.jobs {
			if !j.final() {
				c.finish(e, j, core.JobKilled, core.CauseUser, "entity closed")
			}
		}
		e.state.Closed = true
		c.record(e)
		c.notify(e)
	}
	if e.state.Closed || e.state.Banned {
		c.failMessages(e, "entity closed")
	}
	if c.halted(e) || !c.up || c.restarting || e.state.Goal != core.GoalRun || e.leaves() ||
		e.retryAt != 0 || len(e.waves) > 0 || !e.runnable() && len(e.messages) == 0 && !e.flushes() {
		return
	}
	e.state.Epoch++
	e.next, e.credits, e.barrier = 0, 0, 0
	c.ask(e, core.Creating, c.createCommand(e))
}

func (c *Core) createCommand(e *entity) core.Command {
	return core.Command{
		Kind: core.CommandCreate, EntitySpec: e.spec, Generation: e.state.Generation,
		Properties: e.spec.Properties,
	}
}

// runnable reports whether the first unfinished job could be sent.
func (e *entity) runnable() bool {
	return e.first < len(e.jobs) && e.jobs[e.first].waits == 0
}

func (c *Core) advanceResident(e *entity) {
	suspends := e.state.Goal == core.GoalSuspend || e.evacuates()
	if !e.leaves() && !suspends {
		c.dispatch(e)
	}
	switch {
	case e.leaves(), suspends && !e.changed():
		c.askDestroy(e)
	case e.wantsOff(c) && c.now >= e.since.Add(c.config.MinRun):
		c.askSuspend(e)
	}
}

// wantsOff reports whether there is a reason to leave the hardware.
func (e *entity) wantsOff(c *Core) bool {
	return e.state.Goal == core.GoalSuspend || len(e.waves) > 0 || c.imageNow(e)
}

// advanceSuspended goes on with an entity that is off the hardware: first jobs
// that are to be stopped leave the ring, then the image is written if one is
// due, then it leaves, waits for those who wanted it off, or executes again.
func (c *Core) advanceSuspended(e *entity) {
	switch {
	case e.leaves():
		c.askDestroy(e)
	case c.takeOut(e) || e.retryAt != 0:
	case !e.imaged && (c.imageNow(e) || e.changed() && (e.state.Goal == core.GoalSuspend || e.evacuates())):
		e.state.Saving = e.state.Generation + 1
		c.move(e, core.Saving)
		c.save(e)
	case e.state.Goal != core.GoalRun || e.evacuates():
		c.askDestroy(e)
	case len(e.waves) > 0 && !mutated("resume-in-wave"):
	default:
		c.ask(e, core.Resuming, core.Command{Kind: core.CommandMessage, Message: core.MessageResume})
	}
}

// takeOut has the jobs that are to end leave the ring, and reports whether one
// is still in it.
func (c *Core) takeOut(e *entity) bool {
	waiting := false
	if e.urgent > 0 {
		for _, j := range e.jobs[e.first:] {
			if j.state.Stopping == "" || j.state.Run == 0 {
				continue
			}
			waiting = true
			if j.state.Cancel == 0 {
				j.state.Cancel = c.command(e, core.Command{Kind: core.CommandCancel, Job: j.spec.ID})
				e.answerBy = c.now.Add(c.config.Answer)
				c.recordJob(j)
			}
		}
	}
	if !waiting {
		e.answerBy = 0
	}
	return waiting
}

// leaves reports whether the entity is to be destroyed without an image. A banned
// one stays while its result files are due.
func (e *entity) leaves() bool {
	return e.state.Goal == core.GoalClose || e.state.Banned && !e.flushes()
}

// changed reports whether the device may hold work that the image does not.
func (e *entity) changed() bool {
	return e.next > 0
}

// resident begins a time of execution.
func (c *Core) resident(e *entity) {
	e.answered()
	e.since, e.imaged = c.now, false
	c.move(e, core.Resident)
	c.hear(e)
}

// away ends the epoch: nothing of the entity is on an instance any more.
func (c *Core) away(e *entity, usage map[core.UsageKey]uint64) {
	for _, j := range e.jobs {
		j.barrier, j.executes = false, false
		if j.state.Run == 0 && j.state.InEpoch == 0 && j.state.Phase != core.JobFlushing {
			continue
		}
		counted := uint64(0)
		if j.state.Run != 0 { // otherwise its report was the last word
			if mutated("forget-usage") {
				usage = nil
			}
			counted = usage[core.UsageKey{Job: j.spec.ID, Epoch: e.state.Epoch}]
		}
		j.endEpoch(counted)
		j.state.ClockTime = j.state.ImageTime
		j.done = j.state.Cursor
		if j.state.Phase == core.JobDispatched && j.state.Stopping == "" || j.state.Phase == core.JobFlushing {
			c.phase(e, j, core.JobQueued)
		}
		c.recordJob(j)
	}
	e.next, e.credits, e.barrier, e.work = 0, 0, 0, 0
	e.answered()
	e.silentBy, e.imaged = 0, false
	e.haltSeq = 0 // the barrier's answer is gone with the instance; away, none is needed
	c.messagesAway(e)
	e.asked = false
	e.state.Saving, e.state.PropertiesPending, e.propertiesAgain, e.replyBy = 0, 0, false, 0
	c.move(e, core.Away)
}

// goal changes what the user wants.
func (c *Core) goal(e *entity, ev *Event) error {
	switch ev.Goal {
	case core.GoalRun, core.GoalSuspend, core.GoalClose:
	default:
		return fmt.Errorf("goal %q: %w", ev.Goal, core.ErrInvalid)
	}
	if e.state.Goal == ev.Goal {
		return nil
	}
	if e.state.Goal == core.GoalClose {
		return fmt.Errorf("entity %s: %w", e.spec.Name, core.ErrClosed)
	}
	e.state.Goal = ev.Goal
	if !e.state.Halted {
		e.state.Cause, e.state.Error = ev.Cause, ev.Error
	}
	if ev.Goal == core.GoalRun {
		e.tries, e.losses, e.retryAt = 0, 0, 0
	}
	c.record(e)
	c.notify(e)
	return nil
}

// park suspends the entity by the core's own decision.
func (c *Core) park(e *entity, cause core.Cause, why string) {
	if e.state.Goal != core.GoalRun {
		return
	}
	e.state.Goal, e.state.Cause, e.state.Error = core.GoalSuspend, cause, why
	c.record(e)
	c.notify(e)
}

// properties stores changed properties and tells the backend in band; changes
// while a message is under way become one.
func (c *Core) properties(e *entity, ev *Event) {
	spec := *e.spec
	spec.Properties = ev.Properties
	if ev.OnFailure != "" {
		spec.OnFailure = ev.OnFailure
	}
	e.spec = &spec
	c.touch(e)
	switch e.state.Residency {
	case core.Away, core.Leaving:
		return // the next create carries them
	}
	e.propertiesAgain = true
}

func (c *Core) sendProperties(e *entity) {
	e.propertiesAgain = false
	e.state.PropertiesPending = c.command(e, core.Command{
		Kind: core.CommandMessage, Message: core.MessageSetProperties, Properties: e.spec.Properties,
	})
	c.expectReply(e)
	c.record(e)
}

// forget drops an entity that nothing can happen to any more.
func (c *Core) forget(e *entity) error {
	if e.state.Residency != core.Away {
		return fmt.Errorf("entity %s is %s: %w", e.spec.Name, e.state.Residency, core.ErrBusy)
	}
	e.touched = true // for good: nothing looks at it any more
	for _, j := range e.jobs {
		c.unwait(j)
	}
	c.failMessages(e, "entity forgotten")
	for _, w := range e.waves {
		delete(w.entities, e)
	}
	c.timers.set(e, 0)
	delete(c.entities, e.spec.ID)
	for i := range c.order {
		if c.order[i] == e {
			c.order = append(c.order[:i], c.order[i+1:]...)
			break
		}
	}
	return nil
}
