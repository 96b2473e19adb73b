package sched

import (
	"time"

	"github.com/gpuwm/gpuwm/core"
)

// Live is what a Core knows of a job beyond its records.
type Live struct {
	// Done is the cursor as last reported.
	Done uint64
	// InEpoch and TimeInEpoch are what was executed in the present epoch, as last reported.
	InEpoch     uint64
	TimeInEpoch time.Duration
}

// Live returns the present progress of a job; ok is false for one that is done
// with or unknown.
func (c *Core) Live(entity core.EntityID, id core.JobID) (live Live, ok bool) {
	e := c.entities[entity]
	if e == nil {
		return Live{}, false
	}
	j := e.find(id)
	if j == nil {
		return Live{}, false
	}
	return Live{Done: j.done, InEpoch: j.state.InEpoch, TimeInEpoch: j.state.TimeInEpoch}, true
}

// The states a user sees besides the outcomes.
const (
	VisibleQueued     = "queued"
	VisibleBlocked    = "blocked"
	VisibleRunning    = "running"
	VisibleSuspending = "suspending"
	VisibleSuspended  = "suspended"
	VisibleResuming   = "resuming"
)

// Visible returns the state of a job that a user sees. front says that every
// earlier job of the entity has its outcome. While an image is taken for a
// checkpoint the job still shows running.
func Visible(e *core.EntityState, j *core.JobState, front bool) string {
	if j.Phase.Final() {
		return string(j.Phase)
	}
	begun := j.Phase == core.JobDispatched || j.Phase == core.JobFlushing ||
		j.Cursor > 0 || j.Started != 0
	switch {
	case j.Phase == core.JobHeld:
		return VisibleBlocked
	case !front || !begun:
		return VisibleQueued
	case e.Goal == core.GoalSuspend && e.Residency == core.Away:
		return VisibleSuspended
	case e.Goal == core.GoalSuspend:
		return VisibleSuspending
	case e.Residency == core.Away || e.Residency == core.Creating:
		return VisibleResuming
	}
	return VisibleRunning
}
