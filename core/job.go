package core

import (
	"fmt"
	"time"
)

// Formats of a kernel.
const (
	FormatWasm   = "wasm"
	FormatOpenCL = "opencl"
)

// ArgKind says what an argument of a kernel is.
type ArgKind string

// The argument kinds of a deployment file.
const (
	ArgBuffer ArgKind = "buffer"
	ArgU32    ArgKind = "u32"
	ArgI32    ArgKind = "i32"
	ArgF32    ArgKind = "f32"
	ArgU64    ArgKind = "u64"
	ArgI64    ArgKind = "i64"
	ArgF64    ArgKind = "f64"
)

// Size returns the bytes a scalar takes, 8 for a buffer's address.
func (k ArgKind) Size() int {
	switch k {
	case ArgU32, ArgI32, ArgF32:
		return 4
	}
	return 8
}

// Arg is one argument of a job: a buffer of its entity, or a scalar whose bits
// stand in the low bytes of Bits.
type Arg struct {
	Kind   ArgKind `json:"kind"`
	Buffer string  `json:"buffer,omitempty"`
	Bits   uint64  `json:"bits,omitempty"`
}

// JobSpec is what was asked for. It never changes once it is recorded.
type JobSpec struct {
	ID     JobID    `json:"id"`
	Entity EntityID `json:"entity"`
	Seq    JobSeq   `json:"seq"`
	Name   string   `json:"name"`
	// Kernels names the program by format; every format computes the same.
	Kernels map[string]Digest `json:"kernels"`
	Entry   string            `json:"entry"`
	// Grid counts workgroups, Group the work-items of one workgroup; each
	// component is at least 1.
	Grid  [3]uint32 `json:"grid"`
	Group [3]uint32 `json:"group"`
	Args  []Arg     `json:"args"`
	// After names jobs of other entities whose durable outcome this one awaits.
	After []JobID `json:"after,omitempty"`
	// Depends names finished fences of jobs that this one waits for in its scheduler.
	Depends []Dependency `json:"depends,omitempty"`
	// Timeout bounds the executed time; 0 means none (always so in long-running mode).
	Timeout time.Duration `json:"timeout,omitempty"`
	// QueueTimeout bounds the wait from the submit until the job is sent to the
	// backend; 0 means none.
	QueueTimeout time.Duration `json:"queue_timeout,omitempty"`
	// Credits is the room the job takes in the hardware ring; at least 1.
	Credits uint32 `json:"credits"`
	// Flush says that the job is complete only when an image that contains its
	// results, and the files that are due with it, are on disk.
	Flush bool `json:"flush,omitempty"`
}

// Workgroups returns how many workgroups the job has in all.
func (s *JobSpec) Workgroups() uint64 {
	return uint64(s.Grid[0]) * uint64(s.Grid[1]) * uint64(s.Grid[2])
}

// JobPhase is the state of a job as the scheduler keeps it. What a user sees
// also depends on the entity (see VisibleState).
type JobPhase string

// The phases of a job and what may follow.
const (
	// JobHeld waits in the manager for other jobs; then queued, or dependency-failed.
	JobHeld JobPhase = "held"
	// JobQueued was accepted by its scheduler; then dispatched, or an outcome.
	JobQueued JobPhase = "queued"
	// JobDispatched was sent to the backend; then an outcome, or queued again
	// when its entity leaves the device.
	JobDispatched JobPhase = "dispatched"
	// JobFlushing ran to its end on the device and awaits the image that holds
	// its results; then completed, or queued again when the instance is lost.
	JobFlushing JobPhase = "flushing"
	// The outcomes; final.
	JobCompleted        JobPhase = "completed"
	JobFailed           JobPhase = "failed"
	JobTimedOut         JobPhase = "timed-out"
	JobCancelled        JobPhase = "cancelled"
	JobKilled           JobPhase = "killed"
	JobDependencyFailed JobPhase = "dependency-failed"
)

// Final reports whether the phase is an outcome.
func (p JobPhase) Final() bool {
	switch p {
	case JobCompleted, JobFailed, JobTimedOut, JobCancelled, JobKilled, JobDependencyFailed:
		return true
	}
	return false
}

// JobState is the part of a job that changes.
type JobState struct {
	ID     JobID    `json:"id"`
	Entity EntityID `json:"entity"`
	Phase  JobPhase `json:"phase"`
	Cause  Cause    `json:"cause,omitempty"`
	Error  string   `json:"error,omitempty"`
	// Run and Cancel are the sequence numbers of the commands sent for the job
	// in the entity's present epoch; 0 when none was sent.
	Run    CommandSeq `json:"run,omitempty"`
	Cancel CommandSeq `json:"cancel,omitempty"`
	// Epoch is the entity's epoch in which the job was last sent.
	Epoch Epoch `json:"epoch,omitempty"`
	// Cursor is how many workgroups, in linear order, the recorded image holds as done.
	Cursor uint64 `json:"cursor,omitempty"`
	// Executed is how many workgroups engines ran for the job in epochs that
	// have ended; ExecutedTime is the time in execution, likewise.
	Executed     uint64        `json:"executed,omitempty"`
	ExecutedTime time.Duration `json:"executed_time,omitempty"`
	// InEpoch and TimeInEpoch are the same for the present epoch, as last
	// recorded; they move to the two above when the epoch ends.
	InEpoch     uint64        `json:"in_epoch,omitempty"`
	TimeInEpoch time.Duration `json:"time_in_epoch,omitempty"`
	// ClockTime is what counts against the timeout at the begin of the present epoch,
	// ImageTime at the recorded image: work that is lost with an epoch is not charged.
	ClockTime time.Duration `json:"clock_time,omitempty"`
	ImageTime time.Duration `json:"image_time,omitempty"`
	// Extended was added to the timeout, by Extensions verdicts that the job
	// still makes progress.
	Extended   time.Duration `json:"extended,omitempty"`
	Extensions uint32        `json:"extensions,omitempty"`
	// Stopping is why the job is to end before its end, while it still is in
	// the ring or waits for the outcome of earlier jobs.
	Stopping  Cause   `json:"stopping,omitempty"`
	Submitted Instant `json:"submitted,omitempty"`
	Started   Instant `json:"started,omitempty"`
	// StartedEpoch is the last epoch in which its start was reported.
	StartedEpoch Epoch   `json:"started_epoch,omitempty"`
	Finished     Instant `json:"finished,omitempty"`
}

// Kernel is the program of a job in one format.
type Kernel struct {
	Digest Digest
	Format string
	Code   []byte
}

// String names the argument kind for messages.
func (a Arg) String() string {
	if a.Kind == ArgBuffer {
		return "buffer " + a.Buffer
	}
	return fmt.Sprintf("%s %#x", a.Kind, a.Bits)
}
