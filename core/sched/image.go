package sched

import (
	"fmt"

	"github.com/gpuwm/gpuwm/core"
)

// imageDue returns when the next checkpoint by time is due, 0 when none is.
func (c *Core) imageDue(e *entity) core.Instant {
	interval := e.spec.Properties.Checkpoint
	onDevice := e.state.Residency == core.Resident || e.state.Residency == core.Suspended
	if e.spec.Mode != core.ModeLongRunning || interval <= 0 || !onDevice || !c.up || c.restarting || !e.changed() {
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
	return e.urgent > 0 || e.first >= c.config.ReplayJobsMax ||
		e.flushes() && e.credits == 0 && e.next == len(e.jobs)
}

// flush notes that the result files are due though no job waits for them.
func (c *Core) flush(e *entity) {
	if e.state.Flush || e.state.Closed || e.state.Goal == core.GoalClose {
		return
	}
	e.state.Flush = true
	c.record(e)
	c.notify(e)
}

// flushes reports whether only the result files are left to do.
func (e *entity) flushes() bool { return e.state.Flush && e.unfinished == 0 }

func (c *Core) save(e *entity) {
	e.asked = true
	final := e.flushes()
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
// outcomes that waited for it, and the cut are committed together. An image that
// cannot be true counts as one that could not be written: the last good one stays.
func (c *Core) saved(e *entity, ev *Event) {
	if !e.awaits(ev) {
		return
	}
	if why := e.implausible(ev.ImageJobs); why != "" {
		failed := *ev
		failed.Cause, failed.Error = core.CauseImage, why
		c.saveFailed(e, &failed)
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
			j.state.ImageTime = j.clock()
			j.done = j.state.Cursor
			c.recordJob(j)
		}
	}
	for _, j := range e.jobs {
		c.savedJob(e, j, ev.OutputError)
	}
	c.settle(e, true)
	for _, j := range e.jobs {
		if j.state.Phase == core.JobDispatched && j.state.Stopping != "" && j.state.Run == 0 {
			c.phase(e, j, core.JobQueued) // off for good; its outcome waits for those before it
		}
	}
	c.cut(e)
	c.out.Effects = append(c.out.Effects, Effect{Kind: EffectRetain, Entity: e.spec.ID, Generation: e.state.Generation})
	switch {
	case ev.OutputError != "":
		c.park(e, core.CauseOutput, ev.OutputError)
	case ev.Final:
		e.state.Filed = e.state.Cut
		e.state.Flush = e.state.Flush && e.unfinished > 0 // those of later jobs are still due
	}
	e.imaged = true
	c.move(e, core.Suspended)
}

// implausible says why an image cannot be what the entity left behind, "" when it
// can: a job in the ring that has started must be in it, since some of its writes
// are, and no cursor may be before the recorded one, from which the job was sent.
func (e *entity) implausible(jobs []core.ImageJob) string {
	present := make(map[core.JobID]bool, len(jobs))
	for _, p := range jobs {
		present[p.Job] = true
		if j := e.find(p.Job); j != nil && j.state.Run != 0 && p.Cursor < j.state.Cursor {
			return fmt.Sprintf("image has job %s at %d, the one before at %d", j.spec.Name, p.Cursor, j.state.Cursor)
		}
	}
	for _, j := range e.jobs {
		if j.state.Run != 0 && j.executes && !present[j.spec.ID] {
			return fmt.Sprintf("image lacks job %s, which has started", j.spec.Name)
		}
	}
	return ""
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

// saveFailed: the image could not be written. It is tried again after a pause;
// then the entity is suspended with its last image, which stays valid.
func (c *Core) saveFailed(e *entity, ev *Event) {
	if !e.awaits(ev) {
		return
	}
	e.asked = false
	e.state.Saving = 0
	e.tries++
	c.move(e, core.Suspended)
	if e.tries < c.config.SaveTries {
		e.retryAt = c.now.Add(c.config.Retry << (e.tries - 1))
		return
	}
	e.tries, e.imaged = 0, true
	c.park(e, ev.Cause, ev.Error)
	e.state.Cause, e.state.Error = ev.Cause, ev.Error
}
