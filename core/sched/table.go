package sched

//go:generate go test -run TestStatesPage -rewrite .

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
	{core.Creating, core.Leaving, "create refused, entity lost, goal is not run"},
	{core.Resident, core.Suspending, "checkpoint, suspend, cancel, timeout, result due, preempted"},
	{core.Resident, core.Leaving, "close, entity lost, suspend without anything to save"},
	{core.Suspending, core.Suspended, "suspend done"},
	{core.Suspending, core.Leaving, "entity lost"},
	{core.Suspended, core.Saving, "an image is due"},
	{core.Suspended, core.Resuming, "goal is run, and nobody waits for the hardware"},
	{core.Suspended, core.Leaving, "goal is not run; entity lost"},
	{core.Saving, core.Suspended, "image committed, or not to be had"},
	{core.Saving, core.Leaving, "entity lost"},
	{core.Resuming, core.Resident, "resume done"},
	{core.Resuming, core.Leaving, "entity lost"},
	{core.Leaving, core.Away, "destroyed"},
	{core.Creating, core.Away, "instance gone"},
	{core.Resident, core.Away, "instance gone"},
	{core.Suspending, core.Away, "instance gone"},
	{core.Suspended, core.Away, "instance gone"},
	{core.Saving, core.Away, "instance gone"},
	{core.Resuming, core.Away, "instance gone"},
}

// JobTransition is one legal change of a job's phase.
type JobTransition struct {
	From, To core.JobPhase
	On       string
}

// JobTransitions are all legal changes of a job's phase.
var JobTransitions = []JobTransition{
	{core.JobHeld, core.JobQueued, "submitted to its scheduler"},
	{core.JobQueued, core.JobDispatched, "run sent"},
	{core.JobQueued, core.JobFlushing, "all workgroups are in the image already"},
	{core.JobQueued, core.JobCompleted, "all workgroups are in the image already, no file is due"},
	{core.JobQueued, core.JobCancelled, "cancel, earlier job failed; every earlier job has its outcome"},
	{core.JobQueued, core.JobFailed, "refused; every earlier job has its outcome"},
	{core.JobQueued, core.JobTimedOut, "waited too long; every earlier job has its outcome"},
	{core.JobQueued, core.JobKilled, "close"},
	{core.JobQueued, core.JobDependencyFailed, "an awaited job did not complete; every earlier job has its outcome"},
	{core.JobDispatched, core.JobQueued, "entity left the device, or is closed"},
	{core.JobDispatched, core.JobFlushing, "ran to its end, a file is due"},
	{core.JobDispatched, core.JobCompleted, "ran to its end"},
	{core.JobDispatched, core.JobFailed, "guilty, or refused"},
	{core.JobDispatched, core.JobTimedOut, "timeout, off the hardware, image committed"},
	{core.JobDispatched, core.JobCancelled, "cancel or earlier job failed, off the hardware"},
	{core.JobDispatched, core.JobKilled, "closed while it was being taken out behind others"},
	{core.JobFlushing, core.JobCompleted, "image and files on disk"},
	{core.JobFlushing, core.JobQueued, "instance gone before the image was committed, or closed"},
}

// legal and legalJob are the tables as matrices: the check is on the path of
// every job, and comparing a few constants is cheaper than hashing them.
var (
	legal = func() (m [residencies + 1][residencies + 1]bool) {
		for _, t := range Transitions {
			m[residencyIndex(t.From)][residencyIndex(t.To)] = true
		}
		return m
	}()
	legalJob = func() (m [phases + 1][phases + 1]bool) {
		for _, t := range JobTransitions {
			m[phaseIndex(t.From)][phaseIndex(t.To)] = true
		}
		return m
	}()
)

// residencies and phases count the states; the row and column after the last
// stand for anything else, from which and to which nothing leads.
const (
	residencies = 8
	phases      = 10
)

func residencyIndex(r core.Residency) int {
	switch r {
	case core.Away:
		return 0
	case core.Creating:
		return 1
	case core.Resident:
		return 2
	case core.Suspending:
		return 3
	case core.Saving:
		return 4
	case core.Resuming:
		return 5
	case core.Leaving:
		return 6
	case core.Suspended:
		return 7
	}
	return residencies
}

func phaseIndex(p core.JobPhase) int {
	switch p {
	case core.JobHeld:
		return 0
	case core.JobQueued:
		return 1
	case core.JobDispatched:
		return 2
	case core.JobFlushing:
		return 3
	case core.JobCompleted:
		return 4
	case core.JobFailed:
		return 5
	case core.JobTimedOut:
		return 6
	case core.JobCancelled:
		return 7
	case core.JobKilled:
		return 8
	case core.JobDependencyFailed:
		return 9
	}
	return phases
}
