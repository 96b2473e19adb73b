package sched

import (
	"github.com/gpuwm/gpuwm/core"
)

// imageDue returns when the next checkpoint by time is due, 0 when none is.
func (c *Core) imageDue(e *entity) core.Instant {
	interval := e.spec.Properties.Checkpoint
	if e.spec.Mode != core.ModeLongRunning || interval <= 0 ||
		e.state.Residency != core.Resident || !c.up || c.restarting || !e.changed() {
		return 0
	}
	return max(e.since, e.state.LastImage).Add(interval)
}

// imageNow reports whether the entity must leave the hardware to be saved: a
// checkpoint is due, a job ended whose files are due, or a job is to be taken out.
func (c *Core) imageNow(e *entity) bool {
	if due := c.imageDue(e); due != 0 && due <= c.now {
		return true
	}
	if e.spec.Mode == core.ModeCompute && e.work >= int64(c.config.ReplayMax) {
		return true
	}
	return e.urgent > 0 || e.first >= c.config.ReplayJobsMax
}

// advanceSaving goes on with an entity that is off the hardware: first jobs
// that are to be stopped leave the ring, then the image is written.
func (c *Core) advanceSaving(e *entity) {
	if e.state.Saving != 0 {
		return // being written
	}
	if e.leaves() {
		c.ask(e, core.Leaving, core.Command{Kind: core.CommandDestroy})
		return
	}
	waiting := false
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
	if waiting || e.retryAt != 0 {
		return
	}
	e.answerBy = 0
	e.state.Saving = e.state.Generation + 1
	c.record(e)
	c.save(e)
}

func (c *Core) save(e *entity) {
	e.asked = true
	final := false
	for _, j := range e.jobs {
		final = final || j.state.Phase == core.JobFlushing
	}
	c.out.Effects = append(c.out.Effects, Effect{
		Kind: EffectSave, Entity: e.spec.ID, Epoch: e.state.Epoch,
		Generation: e.state.Saving, Final: final,
	})
}

// awaits reports whether ev answers the save under way, and not one of a life
// that has ended.
func (e *entity) awaits(ev *Event) bool {
	return e.state.Residency == core.Saving && e.state.Saving != 0 &&
		e.state.Saving == ev.Generation && e.state.Epoch == ev.Epoch
}

// saved takes the answer that the image is durable: the record of it, the
// outcomes that waited for it, and the cut are committed together.
func (c *Core) saved(e *entity, ev *Event) {
	if !e.awaits(ev) {
		return
	}
	e.asked = false
	e.state.Generation, e.state.Saving, e.state.LastImage = ev.Generation, 0, c.now
	e.tries, e.losses, e.work = 0, 0, 0
	for _, p := range ev.ImageJobs {
		if j := e.find(p.Job); j != nil && j.state.Run != 0 {
			j.state.Cursor = min(p.Cursor, j.spec.Workgroups())
			j.state.InEpoch = max(j.state.InEpoch, p.Executed)
			j.state.TimeInEpoch = max(j.state.TimeInEpoch, p.ExecutedTime)
			j.done = j.state.Cursor
			c.recordJob(j)
		}
	}
	for _, j := range e.jobs {
		c.savedJob(e, j, ev.OutputError)
	}
	c.cut(e)
	c.out.Effects = append(c.out.Effects, Effect{Kind: EffectRetain, Entity: e.spec.ID, Generation: e.state.Generation})
	if ev.OutputError != "" {
		c.park(e, core.CauseOutput, ev.OutputError)
	}
	c.afterSave(e)
}

func (c *Core) savedJob(e *entity, j *job, outputError string) {
	switch {
	case j.state.Phase == core.JobFlushing:
		j.state.Cursor = j.spec.Workgroups()
		c.recordJob(j)
		if outputError == "" {
			c.finish(e, j, core.JobCompleted, core.CauseNone, "")
		}
	case j.state.Phase == core.JobCompleted && j.state.Run == 0 && j.state.Epoch == e.state.Epoch:
		j.state.Cursor = j.spec.Workgroups()
		c.recordJob(j)
	case j.state.Stopping != "" && j.state.Run == 0 && !j.final():
		c.stopped(e, j)
	}
}

// cut moves the cut to the last job of the prefix that needs no device any more.
func (c *Core) cut(e *entity) {
	for _, j := range e.jobs {
		if !j.final() || j.state.Phase == core.JobCompleted && j.state.Cursor < j.spec.Workgroups() {
			break
		}
		e.state.Cut = j.spec.Seq
	}
	e.dropDone()
	c.record(e)
}

func (c *Core) afterSave(e *entity) {
	if e.state.Goal == core.GoalRun && !e.state.Banned {
		c.ask(e, core.Resuming, core.Command{Kind: core.CommandMessage, Message: core.MessageResume})
		return
	}
	c.ask(e, core.Leaving, core.Command{Kind: core.CommandDestroy})
}

// saveFailed: the image could not be written. It is tried again after a pause;
// then the entity is suspended with its last image, which stays valid.
func (c *Core) saveFailed(e *entity, ev *Event) {
	if !e.awaits(ev) {
		return
	}
	e.asked = false
	e.state.Saving = 0
	e.tries++
	c.record(e)
	if e.tries < c.config.SaveTries {
		e.retryAt = c.now.Add(c.config.Retry << (e.tries - 1))
		return
	}
	e.tries = 0
	c.park(e, ev.Cause, ev.Error)
	e.state.Cause, e.state.Error = ev.Cause, ev.Error
	c.ask(e, core.Leaving, core.Command{Kind: core.CommandDestroy})
}
