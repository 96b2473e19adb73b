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

// ControlTransition is one legal change of what has few states and no record of
// its own: the device, a stop, a wave, a message.
type ControlTransition struct {
	From, To, On string
}

// The states of the device: no instance is known to run, a session is open, a
// restart was asked for. Nothing is sent but while a session is open.
const (
	deviceDown       = "down"
	deviceUp         = "up"
	deviceRestarting = "restarting"
)

// DeviceTransitions are all legal changes of the device.
var DeviceTransitions = []ControlTransition{
	{deviceDown, deviceUp, "session opened"},
	{deviceUp, deviceUp, "a new session with the same instance"},
	{deviceUp, deviceRestarting, "device failed, answer late, entity silent"},
	{deviceUp, deviceDown, "instance gone"},
	{deviceRestarting, deviceUp, "a new session before the instance ended"},
	{deviceRestarting, deviceDown, "instance gone"},
	{deviceDown, deviceDown, "instance gone that never had a session"},
}

// StopTransitions are all legal changes of an entity's stop barrier.
var StopTransitions = []ControlTransition{
	{haltNone.String(), haltAsked.String(), "stop"},
	{haltAsked.String(), haltDone.String(), "the last command was carried out, or the entity is away"},
	{haltAsked.String(), haltNone.String(), "start"},
	{haltDone.String(), haltNone.String(), "start"},
}

// The states of a wave; released, it is forgotten.
const (
	waveAsked    = "asked"
	waveTold     = "told"
	waveReleased = "released"
)

// WaveTransitions are all legal changes of a wave.
var WaveTransitions = []ControlTransition{
	{waveAsked, waveTold, "every entity is off the hardware, or one is stopped and stays"},
	{waveAsked, waveReleased, "release, as who waited gave up"},
	{waveTold, waveReleased, "release"},
}

// The states of a message of the backend's own kind; answered, it is forgotten.
const (
	messageWaiting  = "waiting"
	messageSent     = "sent"
	messageAnswered = "answered"
)

// MessageTransitions are all legal changes of a message.
var MessageTransitions = []ControlTransition{
	{messageWaiting, messageSent, "its turn, the entity is resident, and the barrier allows it"},
	{messageWaiting, messageAnswered, "entity closed, banned or forgotten"},
	{messageSent, messageAnswered, "reply, refusal, entity left its instance"},
}

// controlled panics when the table does not have the change: that is a bug of ours.
func controlled(noun string, table []ControlTransition, from, to string) {
	for i := range table {
		if table[i].From == from && table[i].To == to {
			return
		}
	}
	panic(&core.TransitionError{Noun: noun, From: from, Event: "to " + to})
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
