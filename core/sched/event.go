package sched

import (
	"time"

	"github.com/gpuwm/gpuwm/core"
)

// EventKind is what happened.
type EventKind uint8

// The events a Core takes.
const (
	_ EventKind = iota
	// EventRestore adds an entity from its records, at the start or when it is
	// new (its image and its records are committed already).
	EventRestore
	// EventSubmit appends a job to its entity. The answer is the error of Step.
	EventSubmit
	// EventCancel asks for the end of one job.
	EventCancel
	// EventGoal changes what the user wants of an entity.
	EventGoal
	// EventExtend says that a job still makes progress: its timeout grows by By.
	EventExtend
	// EventMessage queues a message of the backend's own kind. The answer is a
	// MessageReplied notice.
	EventMessage
	// EventPreempt asks entities (all, when none is named) off the hardware for
	// somebody who waits, or with Away off the instance, their images saved;
	// answered by one PreemptReady notice when the last is. One that is stopped
	// cannot be asked: when it stays that long, the notice has an Error.
	EventPreempt
	// EventRelease lets them back.
	EventRelease
	// EventStop is a barrier: no command for the entity follows, and a Stopped
	// notice says that the last one was carried out. EventStart ends it.
	EventStop
	// EventStart lets commands leave again.
	EventStart
	// EventLimits changes the room of the rings while entities live.
	EventLimits
	// EventProperties changes an entity's properties in band, and its OnFailure
	// when that is set.
	EventProperties
	// EventFlush says that the result files are due although no job waits for
	// them. They are written when every job has its outcome, also of a banned
	// entity, whose completed jobs are run again for that where need be.
	EventFlush
	// EventTimeout replaces the timeout of a job by By; 0 means none.
	EventTimeout
	// EventForget drops a closed entity, or one that is away, from memory.
	EventForget
	// EventSignal signals the fence of a job of another device.
	EventSignal
	// EventUp says that a session with an instance is open; Held is what the
	// instance holds.
	EventUp
	// EventGone says that the instance has verifiably ended.
	EventGone
	// EventBackend is a report of the backend.
	EventBackend
	// EventSaved answers EffectSave: the image is durable.
	EventSaved
	// EventSaveFailed answers EffectSave: it is not.
	EventSaveFailed
	// EventTick says that time has passed.
	EventTick
)

// Held is what an instance holds of an entity.
type Held struct {
	Entity  core.EntityID
	Epoch   core.Epoch
	Applied core.CommandSeq
}

// Event is one input. Kind says which fields count.
type Event struct {
	Kind EventKind
	Now  core.Instant

	Entity core.EntityID // cancel, goal, properties, forget, saved, save failed
	Job    core.JobID    // cancel, extend
	// By is the extension of extend, more than 0, or the timeout of timeout.
	By time.Duration

	// Record for restore.
	Record *core.EntityRecord

	// For submit. LongRunning are those of Spec.Depends that belong to
	// long-running jobs of other devices; of this device the core knows it. OnRecord says that the job is recorded already and must get
	// an outcome: what else would refuse it ends it. Only a full queue still
	// refuses it for now, and a sequence number that was taken.
	// Unmet, when not empty, says which awaited job did not complete; the job
	// takes its place in the order and ends dependency-failed.
	Spec        *core.JobSpec
	LongRunning []core.Fence
	OnRecord    bool
	Unmet       string

	Goal       core.Goal       // goal
	Cause      core.Cause      // goal (why), save failed
	Error      string          // likewise; signal: why the job did not complete
	Properties core.Properties // properties
	OnFailure  core.OnFailure  // properties

	Fence core.Fence // signal

	// For message: an identifier of the caller's choice, the kind, what it
	// carries, and its order against jobs.
	MessageID core.MessageID
	Message   core.MessageKind
	Payload   []byte
	Barrier   Barrier

	// Waiter names who waits, for preempt and release; Entities whom for.
	Waiter   uint64
	Entities []core.EntityID
	Away     bool

	// For up: what the instance holds, and the room of an entity's ring; for
	// limits the latter.
	Held    []Held
	Credits uint32
	// Usage is what the engine counted, by job and epoch; for gone.
	Usage map[core.UsageKey]uint64

	Backend *core.BackendEvent // backend

	// For saved and save failed: Epoch and Generation of the effect; for saved, the progress of unfinished jobs, and why the
	// result files could not be written, if so.
	Epoch       core.Epoch
	Generation  core.Generation
	ImageJobs   []core.ImageJob
	OutputError string
	// Final repeats the effect: all result files were due, and are written.
	Final bool
}

// Barrier orders a message against the jobs of its entity.
type Barrier uint8

// The orders.
const (
	// BarrierNone: as soon as the messages before it are answered.
	BarrierNone Barrier = iota
	// BarrierBefore: before any job submitted later is sent.
	BarrierBefore
	// BarrierAfter: when every job submitted earlier has its outcome.
	BarrierAfter
)

// EffectKind is what the core asks of its manager.
type EffectKind uint8

// The effects.
const (
	_ EffectKind = iota
	// EffectSave writes the image Generation of a suspended entity, and the
	// result files that are due; answered by EventSaved or EventSaveFailed.
	EffectSave
	// EffectRetain drops every image generation of the entity but Generation.
	EffectRetain
	// EffectRestart ends the instance verifiably and starts another.
	EffectRestart
)

// Effect is one request to the manager.
type Effect struct {
	Kind       EffectKind
	Entity     core.EntityID
	Epoch      core.Epoch
	Generation core.Generation
	// Final says that files due at the end are due too, not only those of checkpoints.
	Final bool
	// Reason says why an instance is restarted.
	Reason string
}

// NoticeKind is what listeners hear.
type NoticeKind uint8

// The notices.
const (
	_ NoticeKind = iota
	// JobChanged: a job changed its phase.
	JobChanged
	// EntityChanged: an entity changed its residency, goal or image.
	EntityChanged
	// MessageReplied: a message of the backend's own kind was answered; Error
	// says why not.
	MessageReplied
	// PreemptReady: every entity that Waiter waits for is off the hardware, or
	// off the instance; Error says which one is not, and why.
	PreemptReady
	// Stopped: the entity's last command was carried out and none follows.
	Stopped
	// OrderViolated: an event was not legal in the state it met; it was dropped.
	OrderViolated
)

// Notice is one event for listeners, after it is durable.
type Notice struct {
	Kind   NoticeKind
	Entity core.EntityID
	Job    core.JobID
	Phase  core.JobPhase
	State  core.Residency
	Goal   core.Goal
	Image  core.Generation
	Cause  core.Cause
	Error  string
	// Message and Reply are of MessageReplied, Waiter of PreemptReady.
	Message core.MessageID
	Reply   []byte
	Waiter  uint64
}

// Batch is the answer to one event. The caller reuses it; Step empties it first.
type Batch struct {
	// Seq numbers batches from 1.
	Seq uint64
	// States to commit in one transaction.
	Entities []core.EntityState
	Jobs     []core.JobState
	// What may leave once all batches up to Seq are committed, in this order.
	Commands []core.Command
	Effects  []Effect
	Notices  []Notice
	// NewSession says that commands and acknowledgements of earlier batches,
	// which were meant for the session before, must not leave any more: this
	// batch repeats what is still wanted.
	NewSession bool
	// Ack, when not zero, is the backend event that may be acknowledged then.
	Ack core.EventSeq
}

// Durable reports whether the batch has states to commit.
func (b *Batch) Durable() bool {
	return len(b.Entities)+len(b.Jobs) > 0 && !mutated("act-before-commit")
}

func (b *Batch) reset(seq uint64) {
	clear(b.Commands)
	b.Seq, b.Ack, b.NewSession = seq, 0, false
	b.Entities, b.Jobs = b.Entities[:0], b.Jobs[:0]
	b.Commands, b.Effects, b.Notices = b.Commands[:0], b.Effects[:0], b.Notices[:0]
}
