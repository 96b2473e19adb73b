package sched

import (
	"fmt"
	"slices"
	"time"

	"github.com/gpuwm/gpuwm/core"
)

// job is one job in its scheduler.
type job struct {
	spec   *core.JobSpec
	state  core.JobState
	entity *entity
	// waits counts dependencies without an outcome.
	waits int
	// done is the cursor as last reported, in this epoch.
	done          uint64
	dirty, urgent bool
	// barrier: it is in the ring and later jobs wait for its files. executes:
	// its start in this epoch was reported.
	barrier, executes bool
}

func (j *job) final() bool { return j.state.Phase.Final() }

// endEpoch adds what the present epoch executed to the count of those before.
// counted is what the engine says, which may be later than the last report.
func (j *job) endEpoch(counted uint64) {
	j.state.Executed += max(j.state.InEpoch, counted)
	j.state.ExecutedTime += j.state.TimeInEpoch
	j.state.InEpoch, j.state.TimeInEpoch = 0, 0
	j.state.Run, j.state.Cancel = 0, 0
}

// clock is the executed time that counts against the timeout: what was lost with an
// epoch, and has to be done again, does not.
func (j *job) clock() time.Duration {
	if mutated("charge-lost-work") {
		return j.state.ExecutedTime + j.state.TimeInEpoch
	}
	return j.state.ClockTime + j.state.TimeInEpoch
}

// phase changes the phase along the table.
func (c *Core) phase(e *entity, j *job, to core.JobPhase) {
	from := j.state.Phase
	if !legalJob[phaseIndex(from)][phaseIndex(to)] {
		panic(&core.TransitionError{Noun: "job " + j.spec.Name, From: string(from), Event: "to " + string(to)})
	}
	j.state.Phase = to
	e.mark(j)
	c.recordJob(j)
	c.out.Notices = append(c.out.Notices, Notice{
		Kind: JobChanged, Entity: e.spec.ID, Job: j.spec.ID, Phase: to,
		Cause: j.state.Cause, Error: j.state.Error,
	})
}

// finish gives the job its outcome: final, signalled once.
func (c *Core) finish(e *entity, j *job, outcome core.JobPhase, cause core.Cause, why string) {
	j.state.Cause, j.state.Error, j.state.Stopping = cause, why, ""
	j.state.Finished = c.now
	if outcome == core.JobCompleted {
		j.done = j.spec.Workgroups()
	}
	e.unfinished--
	if j.barrier {
		j.barrier = false
		e.barrier--
	}
	c.unwait(j)
	c.phase(e, j, outcome)
	if mutated("double-completion") {
		c.out.Notices = append(c.out.Notices, c.out.Notices[len(c.out.Notices)-1])
	}
	for e.first < len(e.jobs) && e.jobs[e.first].final() {
		e.first++
	}
	failure := ""
	if outcome != core.JobCompleted {
		failure = fmt.Sprintf("job %s is %s", j.spec.Name, outcome)
	}
	c.signal(core.Fence{Timeline: e.spec.ID, Seq: j.spec.Seq}, failure)
	c.touch(e)
}

// failed applies the entity's policy after one of its jobs did not complete by
// its own fault or its dependency's.
func (c *Core) failed(e *entity, j *job, guilty bool) {
	if guilty {
		e.state.Faults++
	}
	c.record(e)
	if e.spec.OnFailure == core.OnFailureContinue && e.state.Faults < c.config.FaultsMax {
		return
	}
	e.state.Banned = e.state.Banned || guilty
	if !e.state.Halted {
		e.state.Halted, e.state.Cause = true, j.state.Cause
		e.state.Error = fmt.Sprintf("job %s: %s", j.spec.Name, j.state.Error)
	}
	for _, later := range e.jobs[e.first:] {
		if later.spec.Seq > j.spec.Seq {
			c.stop(e, later, core.CauseEarlier, e.state.Error)
		}
	}
}

// mark keeps count of the jobs that need the entity off the hardware.
func (e *entity) mark(j *job) {
	urgent := j.state.Phase == core.JobFlushing || j.state.Phase == core.JobDispatched && j.state.Stopping != ""
	if urgent == j.urgent {
		return
	}
	j.urgent = urgent
	if urgent {
		e.urgent++
	} else {
		e.urgent--
	}
}

// settle gives their outcome to jobs that are to end, in the order of the
// entity: one that never ran as soon as those before it have theirs, one that
// was in the ring when off says that its work is off the hardware for good.
func (c *Core) settle(e *entity, off bool) {
	for e.first < len(e.jobs) {
		j := e.jobs[e.first]
		switch {
		case j.state.Stopping != "" && mutated("signal-before-off"):
			c.stopped(e, j)
		case j.state.Stopping != "" && j.state.Run == 0 && (j.state.Phase == core.JobQueued || off):
			c.stopped(e, j)
		case e.state.Banned && e.state.Residency == core.Away:
			c.finish(e, j, core.JobCancelled, core.CauseEarlier, e.state.Error)
		default:
			return
		}
	}
}

// stopped gives the outcome that the reason for stopping asks for.
func (c *Core) stopped(e *entity, j *job) {
	cause, why := j.state.Stopping, j.state.Error
	switch cause {
	case core.CauseUser, core.CauseEarlier:
		c.finish(e, j, core.JobCancelled, cause, why)
	case core.CauseTimeout:
		c.finish(e, j, core.JobTimedOut, cause, why)
		c.failed(e, j, true)
	case core.CauseQueueTimeout:
		c.finish(e, j, core.JobTimedOut, cause, why)
		c.failed(e, j, false)
	case core.CauseDependency:
		c.dependencyFailed(e, j, why)
	default:
		c.finish(e, j, core.JobFailed, cause, why)
		c.failed(e, j, true)
	}
}

func (c *Core) submit(ev *Event) error {
	spec := ev.Spec
	if spec == nil {
		return fmt.Errorf("submit without a job: %w", core.ErrInvalid)
	}
	e := c.entities[spec.Entity]
	if e == nil {
		return fmt.Errorf("entity %d: %w", spec.Entity, core.ErrNotFound)
	}
	err := c.admit(e, ev)
	cause, unfit := c.unfit(e, ev)
	switch {
	case err != nil:
	case unfit != nil && !ev.OnRecord:
		err = unfit
	case e.unfinished >= c.config.QueueMax:
		err = fmt.Errorf("entity %s has %d unfinished jobs: %w", e.spec.Name, e.unfinished, core.ErrFull)
	}
	if err != nil {
		return fmt.Errorf("submit job %s: %w", spec.Name, err)
	}
	j := &job{spec: spec, entity: e, state: core.JobState{
		ID: spec.ID, Entity: spec.Entity, Phase: core.JobHeld, Submitted: c.now,
	}}
	e.jobs = append(e.jobs, j)
	e.last = spec.Seq
	e.unfinished++
	c.touch(e)
	c.phase(e, j, core.JobQueued)
	switch {
	case e.state.Closed:
		c.finish(e, j, core.JobKilled, core.CauseUser, "entity closed")
	case e.state.Halted:
		c.stop(e, j, core.CauseEarlier, e.state.Error)
	case ev.Unmet != "":
		c.stop(e, j, core.CauseDependency, ev.Unmet)
	case unfit != nil:
		c.stop(e, j, cause, unfit.Error())
	default:
		c.await(e, j)
		if spec.QueueTimeout > 0 {
			c.queueDeadline(e, j)
		}
	}
	return nil
}

// admit checks whether the entity takes jobs, and this one next.
func (c *Core) admit(e *entity, ev *Event) error {
	spec := ev.Spec
	gone := e.state.Closed || e.state.Halted || e.state.Goal == core.GoalClose
	switch {
	case gone && !ev.OnRecord:
		return fmt.Errorf("entity %s: %w", e.spec.Name, core.ErrClosed)
	case spec.Seq <= e.last:
		return fmt.Errorf("sequence %d after %d: %w", spec.Seq, e.last, core.ErrInvalid)
	}
	return nil
}

// unfit says what is wrong with the job itself: a submit of it is refused, and one
// that is on record ends for it. There a job larger than the ring is right: the
// ring has shrunk since, and it runs alone.
func (c *Core) unfit(e *entity, ev *Event) (core.Cause, error) {
	spec := ev.Spec
	switch {
	case spec.Credits == 0 || spec.Workgroups() == 0:
		return core.CauseRefused, fmt.Errorf("no credits or no workgroups: %w", core.ErrInvalid)
	case spec.Credits > c.config.Credits && !ev.OnRecord:
		return core.CauseRefused, fmt.Errorf("%d credits, the ring has %d: %w", spec.Credits, c.config.Credits, core.ErrOversize)
	}
	for _, d := range spec.Depends {
		if err := c.admitDependency(e, spec, d, ev.LongRunning); err != nil {
			return core.CauseDependency, err
		}
	}
	return core.CauseNone, nil
}

// cancel asks for the end of one job.
func (c *Core) cancel(e *entity, id core.JobID) error {
	j := e.find(id)
	if j == nil {
		return fmt.Errorf("job %d: %w", id, core.ErrNotFound)
	}
	c.stop(e, j, core.CauseUser, "cancelled on request")
	return nil
}

// stop has a job end before its end. In the ring it is taken out first, with
// the entity off the hardware, and gets its outcome together with the image
// without it; otherwise when every earlier job has its outcome (settle). Once it
// ran to its end it is too late.
func (c *Core) stop(e *entity, j *job, cause core.Cause, why string) {
	if j.state.Stopping != "" || j.state.Phase != core.JobQueued && j.state.Phase != core.JobDispatched {
		return
	}
	j.state.Stopping, j.state.Error = cause, why
	e.mark(j)
	c.recordJob(j)
	c.touch(e)
}

// find returns a job after the cut, nil when there is none. Jobs end in order,
// so it is nearly always the first one looked at.
func (e *entity) find(id core.JobID) *job {
	for _, j := range e.jobs[e.first:] {
		if j.spec.ID == id {
			return j
		}
	}
	for _, j := range e.jobs[:e.first] {
		if j.spec.ID == id {
			return j
		}
	}
	return nil
}

// dispatch sends jobs in submission order while the ring has room. Completed
// jobs after the cut are sent again to rebuild the buffers; a job with a file
// due is a barrier, so that the file holds its results and nothing later.
func (c *Core) dispatch(e *entity) {
	for e.next < len(e.jobs) {
		j := e.jobs[e.next]
		switch {
		case j.state.Run != 0 || j.final() && !j.replays(e):
			e.next++
			continue
		case !j.final() && (j.waits > 0 || j.state.Stopping != "" || e.barrier > 0 || e.messageBefore(j)):
			return
		case e.credits > 0 && e.credits+j.spec.Credits > c.config.Credits && !mutated("overfill-ring"):
			if mutated("overtake-big-job") {
				e.next++
				continue
			}
			return
		}
		e.next++
		if !j.final() && j.spec.Flush {
			j.barrier = true
			e.barrier++
		}
		if j.state.Cursor >= j.spec.Workgroups() {
			j.state.Epoch = e.state.Epoch // its turn came in this epoch: a restart finds that on record
			c.ranToEnd(e, j)
			continue
		}
		c.run(e, j)
	}
}

// replays reports whether a job with an outcome must run again in this epoch,
// silently, because the recorded image does not hold all of its work.
func (j *job) replays(e *entity) bool {
	return !mutated("skip-replay") && j.state.Phase == core.JobCompleted && j.state.Epoch != e.state.Epoch &&
		j.state.Cursor < j.spec.Workgroups()
}

func (c *Core) run(e *entity, j *job) {
	e.credits += j.spec.Credits
	j.state.Epoch = e.state.Epoch
	if !j.final() {
		j.done = j.state.Cursor
		c.phase(e, j, core.JobDispatched)
	}
	j.state.Run = c.command(e, j.runCommand())
	c.recordJob(j)
}

// runCommand starts at the cursor: what the recorded image holds is done.
func (j *job) runCommand() core.Command {
	if mutated("replay-from-start") {
		return core.Command{Kind: core.CommandRun, Job: j.spec.ID, JobSpec: j.spec}
	}
	return core.Command{
		Kind: core.CommandRun, Job: j.spec.ID, JobSpec: j.spec, First: j.state.Cursor,
		ExecutedTime: j.state.ExecutedTime,
	}
}

// ranToEnd: all workgroups of the job are done.
func (c *Core) ranToEnd(e *entity, j *job) {
	j.state.Stopping = ""
	if j.spec.Flush && !mutated("complete-before-file") {
		j.done = j.spec.Workgroups()
		c.phase(e, j, core.JobFlushing)
		return
	}
	c.finish(e, j, core.JobCompleted, core.CauseNone, "")
}

// usage takes over what a report says of a job in this epoch.
func (e *entity) usage(j *job, ev *core.BackendEvent) {
	if spent := ev.ExecutedTime - j.state.TimeInEpoch; spent > 0 {
		e.work += int64(spent)
		j.state.TimeInEpoch = ev.ExecutedTime
	}
	j.state.InEpoch = max(j.state.InEpoch, ev.Executed)
	j.done = max(j.done, min(ev.Done, j.spec.Workgroups()))
}

// dropDone forgets the jobs up to the cut.
func (e *entity) dropDone() {
	n := 0
	for n < len(e.jobs) && e.jobs[n].spec.Seq <= e.state.Cut {
		if j := e.jobs[n]; j.state.Phase != core.JobCompleted {
			e.failed = append(e.failed, j.spec.Seq)
		}
		n++
	}
	e.jobs = slices.Delete(e.jobs, 0, n)
	e.first, e.next = max(0, e.first-n), max(0, e.next-n)
}
