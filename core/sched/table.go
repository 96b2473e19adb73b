package sched

import "github.com/gpuwm/gpuwm/core"

// Transition is one legal change of an entity's residency.
type Transition struct {
	From, To core.Residency
	// On is what causes it.
	On string
}

// Transitions are all legal changes of residency; everything else is a bug of ours.
var Transitions = []Transition{
	{core.Away, core.Creating, "work and a device"},
	{core.Creating, core.Resident, "create applied"},
	{core.Creating, core.Leaving, "create refused, entity lost, close"},
	{core.Resident, core.Suspending, "checkpoint, suspend, cancel, timeout, result due"},
	{core.Resident, core.Leaving, "close, entity lost, nothing left to do"},
	{core.Suspending, core.Saving, "suspend done"},
	{core.Suspending, core.Leaving, "entity lost"},
	{core.Saving, core.Resuming, "image committed, goal is run"},
	{core.Saving, core.Leaving, "image committed or not to be had, goal is not run; entity lost"},
	{core.Resuming, core.Resident, "resume done"},
	{core.Resuming, core.Leaving, "resume refused, entity lost"},
	{core.Leaving, core.Away, "destroyed"},
	{core.Creating, core.Away, "instance gone"},
	{core.Resident, core.Away, "instance gone"},
	{core.Suspending, core.Away, "instance gone"},
	{core.Saving, core.Away, "instance gone"},
	{core.Resuming, core.Away, "instance gone"},
}

var legal = func() map[[2]core.Residency]bool {
	m := make(map[[2]core.Residency]bool, len(Transitions))
	for _, t := range Transitions {
		m[[2]core.Residency{t.From, t.To}] = true
	}
	return m
}()

// JobTransition is one legal change of a job's phase.
type JobTransition struct {
	From, To core.JobPhase
	On       string
}

// JobTransitions are all legal changes of a job's phase.
var JobTransitions = []JobTransition{
	{core.JobHeld, core.JobQueued, "submitted to its scheduler"},
	{core.JobHeld, core.JobDependencyFailed, "an awaited job did not complete"},
	{core.JobHeld, core.JobCancelled, "cancel, earlier job failed"},
	{core.JobHeld, core.JobKilled, "close"},
	{core.JobQueued, core.JobDispatched, "run sent"},
	{core.JobQueued, core.JobFlushing, "all workgroups are in the image already"},
	{core.JobQueued, core.JobCancelled, "cancel, earlier job failed"},
	{core.JobQueued, core.JobFailed, "guilty in an earlier epoch"},
	{core.JobQueued, core.JobTimedOut, "timeout, then instance gone"},
	{core.JobQueued, core.JobKilled, "close"},
	{core.JobQueued, core.JobDependencyFailed, "an awaited fence failed"},
	{core.JobDispatched, core.JobQueued, "entity left the device"},
	{core.JobDispatched, core.JobFlushing, "ran to its end, a file is due"},
	{core.JobDispatched, core.JobCompleted, "ran to its end"},
	{core.JobDispatched, core.JobFailed, "guilty, or refused"},
	{core.JobDispatched, core.JobTimedOut, "timeout, off the hardware, image committed"},
	{core.JobDispatched, core.JobCancelled, "cancel, off the hardware, image committed"},
	{core.JobDispatched, core.JobKilled, "close"},
	{core.JobFlushing, core.JobCompleted, "image and files on disk"},
	{core.JobFlushing, core.JobQueued, "instance gone before the image was committed"},
	{core.JobFlushing, core.JobKilled, "close"},
}

var legalJob = func() map[[2]core.JobPhase]bool {
	m := make(map[[2]core.JobPhase]bool, len(JobTransitions))
	for _, t := range JobTransitions {
		m[[2]core.JobPhase{t.From, t.To}] = true
	}
	return m
}()
