package core

import "time"

// Mode says how the jobs of an entity end.
type Mode string

// The modes.
const (
	// ModeCompute bounds every job by a timeout.
	ModeCompute Mode = "compute"
	// ModeLongRunning bounds only preemption and suspend, never the work.
	ModeLongRunning Mode = "long-running"
)

// Priority orders entities on a device; strict where firmware does that, a
// weight where the host shares slots.
type Priority string

// The priorities.
const (
	PriorityLow    Priority = "low"
	PriorityNormal Priority = "normal"
	PriorityHigh   Priority = "high"
)

// OnFailure says what becomes of the later jobs when one fails.
type OnFailure string

// The policies.
const (
	OnFailureStop     OnFailure = "stop"
	OnFailureContinue OnFailure = "continue"
)

// BufferSpec is one named piece of an entity's memory.
type BufferSpec struct {
	Name string `json:"name"`
	Size uint64 `json:"size"`
}

// Properties are what may change while an entity lives, by an in-band message.
type Properties struct {
	Priority Priority `json:"priority"`
	// Checkpoint is the interval between images in long-running mode; 0 means none.
	Checkpoint time.Duration `json:"checkpoint,omitempty"`
}

// EntitySpec is what was asked for. Device, Properties and Saves may be changed
// by an apply, the rest never.
type EntitySpec struct {
	ID         EntityID     `json:"id"`
	Name       string       `json:"name"`
	Device     string       `json:"device"`
	Mode       Mode         `json:"mode"`
	OnFailure  OnFailure    `json:"on_failure"`
	Properties Properties   `json:"properties"`
	Buffers    []BufferSpec `json:"buffers"`
	// Saves are the result files; an apply may change them.
	Saves []SaveSpec `json:"saves,omitempty"`
	// Run is the digest of the names of all entities that belong to one run.
	Run Digest `json:"run"`
	// Identity is the digest of jobs, kernels and inputs that names a run.
	Identity Digest `json:"identity"`
}

// Residency says where an entity is relative to the plugin instance.
type Residency string

// The residencies and what may follow.
const (
	// Away is on no instance; then creating.
	Away Residency = "away"
	// Creating was sent to an instance together with its image; then resident or away.
	Creating Residency = "creating"
	// Resident is on the device and may execute; then suspending, leaving or away.
	Resident Residency = "resident"
	// Suspending was asked off the hardware; then suspended, leaving or away.
	Suspending Residency = "suspending"
	// Suspended is off the hardware, and the instance still holds it; then
	// saving, resuming, leaving or away.
	Suspended Residency = "suspended"
	// Saving is off the hardware and its image is being written; then suspended, leaving or away.
	Saving Residency = "saving"
	// Resuming was asked back onto the hardware; then resident or away.
	Resuming Residency = "resuming"
	// Leaving is being destroyed on the instance; then away.
	Leaving Residency = "leaving"
)

// Goal is what the user wants of an entity.
type Goal string

// The goals.
const (
	// GoalRun lets the jobs run.
	GoalRun Goal = "run"
	// GoalSuspend takes the entity off the device, its image on disk.
	GoalSuspend Goal = "suspend"
	// GoalClose ends the entity: jobs that have no outcome yet are cancelled or killed.
	GoalClose Goal = "close"
)

// EntityState is the part of an entity that its scheduler changes.
type EntityState struct {
	ID        EntityID  `json:"id"`
	Goal      Goal      `json:"goal"`
	Residency Residency `json:"residency"`
	// Epoch of the present or last life on an instance, 0 before the first.
	Epoch Epoch `json:"epoch,omitempty"`
	// Commands is the sequence number of the last command recorded.
	Commands CommandSeq `json:"commands,omitempty"`
	// Pending is the sequence number of the residency command (create, suspend,
	// resume, destroy) whose answer is awaited, 0 when none is.
	Pending CommandSeq `json:"pending,omitempty"`
	// PropertiesPending is the set-properties message not yet answered, 0 when none is.
	PropertiesPending CommandSeq `json:"properties_pending,omitempty"`
	// Generation is the recorded image.
	Generation Generation `json:"generation,omitempty"`
	// Saving is the image generation being written while residency is saving.
	Saving Generation `json:"saving,omitempty"`
	// Cut is the last job whose whole work is in the recorded image. Later
	// jobs that have completed are replayed after a restore.
	Cut JobSeq `json:"cut,omitempty"`
	// Flush says that the result files are due although no job waits for them:
	// the last one did not complete, or files were asked for later.
	Flush bool `json:"flush,omitempty"`
	// Filed is the last job up to which the result files are written, or cannot be.
	Filed JobSeq `json:"filed,omitempty"`
	// LastImage is when the recorded image was committed.
	LastImage Instant `json:"last_image,omitempty"`
	// Faults counts how often the entity was guilty.
	Faults uint32 `json:"faults,omitempty"`
	// Banned says that the entity was guilty and no job of it runs any more.
	Banned bool `json:"banned,omitempty"`
	// Halted says that a job did not complete and the policy is to stop: jobs
	// submitted from now on are cancelled. A banned entity is halted too.
	Halted bool `json:"halted,omitempty"`
	Closed bool `json:"closed,omitempty"`
	// Cause and Error say why it was banned, halted, or suspended by itself.
	Cause Cause  `json:"cause,omitempty"`
	Error string `json:"error,omitempty"`
}
