package sched

import (
	"time"

	"github.com/gpuwm/gpuwm/core"
)

// backend takes one report. Repeats, reports of older epochs and reports that
// the state does not allow have no effect. That an instance is to end is nowhere on
// record: until it has, what made it so and all after that stays with the plugin,
// so that a crash between does not lose it.
func (c *Core) backend(ev *core.BackendEvent) {
	c.report(ev)
	if !c.restarting || mutated("acknowledge-failure") {
		c.out.Ack = ev.Seq
	}
}

func (c *Core) report(ev *core.BackendEvent) {
	if ev.Kind == core.EventDeviceHealth {
		c.restart("device failed: " + ev.Error)
		return
	}
	e := c.entities[ev.Entity]
	if e == nil || ev.Epoch != e.state.Epoch && !mutated("believe-old-epoch") || e.state.Residency == core.Away {
		return
	}
	switch ev.Kind {
	case core.EventApplied:
		if e.state.Residency == core.Creating && ev.Command == e.state.Pending {
			c.resident(e)
		}
	case core.EventMessageDone:
		c.messageDone(e, ev)
	case core.EventDestroyed:
		if e.state.Residency == core.Leaving {
			if j := e.find(ev.Job); j != nil && j.state.Run != 0 {
				e.usage(j, ev)
			}
			c.away(e, nil)
		}
	case core.EventRefused:
		c.refused(e, ev)
	case core.EventEntityLost:
		c.lost(e, ev)
	case core.EventStarted, core.EventProgress, core.EventCompleted, core.EventCancelled:
		c.jobReport(e, ev)
	}
}

// messageAnswered takes the answer to a message under way, or its refusal, if ev is
// that. A repeat, or an answer to nothing, does not say that the backend is well.
func (c *Core) messageAnswered(e *entity, ev *core.BackendEvent) bool {
	switch {
	case ev.Command == 0:
		return false
	case ev.Command == e.state.PropertiesPending:
		e.state.PropertiesPending = 0
		c.gotReply(e)
		c.record(e)
		if ev.Kind == core.EventRefused {
			c.illegal(e, "properties refused: "+ev.Error)
		}
	case ev.Command == e.haltSeq:
		c.haltReached(e) // refused or not, it got there
	case !c.replied(e, ev):
		return false
	}
	c.hear(e)
	return true
}

func (c *Core) messageDone(e *entity, ev *core.BackendEvent) {
	switch {
	case c.messageAnswered(e, ev), ev.Command != e.state.Pending, ev.Command == 0:
	case e.state.Residency == core.Suspending:
		e.answered()
		e.silentBy = 0
		c.move(e, core.Suspended)
	case e.state.Residency == core.Resuming:
		c.resident(e)
	}
}

func (c *Core) jobReport(e *entity, ev *core.BackendEvent) {
	j := e.find(ev.Job)
	if j == nil || j.state.Run == 0 {
		return
	}
	if e.state.Residency == core.Leaving {
		e.usage(j, ev) // what ran counts, what became of it is decided
		if ev.Seq != 0 {
			c.recordJob(j) // the report is not repeated once it is acknowledged
		}
		return
	}
	if !mutated("deaf") || e.silentBy == 0 {
		c.hear(e)
	}
	switch ev.Kind {
	case core.EventStarted:
		j.executes = true
		if j.state.StartedEpoch != e.state.Epoch {
			j.state.StartedEpoch = e.state.Epoch
			c.recordJob(j)
		}
		if j.state.Started == 0 {
			j.state.Started = c.now
		}
		return
	case core.EventProgress:
		j.executes = true
		e.usage(j, ev)
		if j.overtime(e.spec.Mode) {
			c.stop(e, j, core.CauseTimeout, timeoutText(j))
		} else if e.spec.Mode == core.ModeCompute && e.work >= int64(c.config.ReplayMax) {
			c.touch(e)
		}
		return
	}
	if ev.Kind == core.EventCancelled && j.state.Cancel == 0 {
		c.illegal(e, "job "+j.spec.Name+" cancelled without being asked")
		return
	}
	e.usage(j, ev)
	j.executes = false
	j.endEpoch(0)
	if !mutated("skip-release") {
		e.credits -= j.spec.Credits
	}
	e.losses = 0
	c.recordJob(j)
	c.touch(e)
	if ev.Kind == core.EventCancelled {
		e.imaged = false // an image without it is due, even if one was just written
	}
	if ev.Kind == core.EventCompleted && !j.final() {
		c.ranToEnd(e, j)
	}
}

// refused: the backend would not carry out a command.
func (c *Core) refused(e *entity, ev *core.BackendEvent) {
	if j := e.find(ev.Job); j != nil && j.state.Run == ev.Command && ev.Command != 0 {
		if j.final() {
			c.replayRefused(e, j, ev)
			return
		}
		c.hear(e)
		j.endEpoch(0)
		e.credits -= j.spec.Credits
		j.executes = false
		c.touch(e)
		c.phase(e, j, core.JobQueued) // it never entered the ring
		c.stop(e, j, orRefused(ev.Cause), ev.Error)
		return
	}
	switch {
	case c.messageAnswered(e, ev), ev.Command != e.state.Pending, ev.Command == 0:
	case e.state.Residency == core.Creating:
		e.answered()
		c.setback(e, orRefused(ev.Cause), "create refused: "+ev.Error)
		c.haltLost(e)
		c.askDestroy(e)
	default:
		c.restart(string(e.state.Residency) + " of entity " + e.spec.Name + " refused: " + ev.Error)
	}
}

// replayRefused: what a completed job did is missing on the device, so that
// nothing may run after it there. The entity leaves, and is rebuilt anew; that is
// on record at once, while a restart that was asked for would not survive a crash.
func (c *Core) replayRefused(e *entity, j *job, ev *core.BackendEvent) {
	c.illegal(e, "replay refused: "+ev.Error)
	if e.state.Residency == core.Leaving {
		return
	}
	e.answered()
	e.retryAt = 0
	c.setback(e, orRefused(ev.Cause), "replay of job "+j.spec.Name+" refused: "+ev.Error)
	e.state.Saving = 0
	c.askDestroy(e)
}

func orRefused(cause core.Cause) core.Cause {
	if cause == core.CauseNone {
		return core.CauseRefused
	}
	return cause
}

// setback counts a loss without progress and pauses before the next attempt.
func (c *Core) setback(e *entity, cause core.Cause, why string) {
	e.losses++
	switch {
	case e.losses >= c.config.LossesMax:
		c.park(e, cause, why)
	case e.losses > 1:
		e.retryAt = c.now.Add(c.config.Retry << min(e.losses-2, 6))
	}
}

// lost: the entity's state on the device is gone. A guilty job gets its outcome
// once the entity is confirmed off the hardware; a victim is restored.
func (c *Core) lost(e *entity, ev *core.BackendEvent) {
	if j := e.find(ev.Job); j != nil && j.state.Run != 0 {
		e.usage(j, ev)
		c.recordJob(j)
	}
	if e.state.Residency == core.Leaving {
		return // it leaves already; what ran counts
	}
	e.answered()
	e.retryAt = 0
	if ev.Guilty || mutated("blame-victim") {
		c.blame(e, ev)
	} else {
		c.setback(e, core.CauseDevice, ev.Error)
	}
	e.state.Saving = 0
	c.haltLost(e)
	c.askDestroy(e)
}

func (c *Core) blame(e *entity, ev *core.BackendEvent) {
	j := e.find(ev.Job)
	if j == nil || j.state.Run == 0 {
		j = nil // nothing of it is on the device; the first that is there is to blame
		for _, k := range e.jobs {
			if k.state.Run != 0 {
				j = k
				break
			}
		}
	}
	if j == nil || j.final() {
		// A replay is to blame, or nothing at all runs.
		e.state.Faults++
		if e.spec.OnFailure == core.OnFailureContinue && e.state.Faults < c.config.FaultsMax {
			c.setback(e, orRefused(ev.Cause), ev.Error)
			return
		}
		e.state.Banned, e.state.Halted = true, true
		if e.state.Flush {
			e.state.Flush, e.state.Filed = false, e.last // its results cannot be computed again
		}
		e.state.Cause, e.state.Error = orRefused(ev.Cause), ev.Error
		return
	}
	j.state.Stopping, j.state.Error = orRefused(ev.Cause), ev.Error
	e.mark(j)
	c.recordJob(j)
}

// Answer returns the bound on the wait for a backend's answer.
func (c *Core) Answer() time.Duration { return c.config.Answer }
