package sdk

import (
	"context"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/hashicorp/go-hclog"
)

// Backend drives the GPUs of one vendor. Open may be called from any goroutine.
type Backend interface {
	// Describe returns what the backend declares of itself.
	Describe() core.BackendDescription
	// Open brings up one device. It is called once per device name and instance.
	// Errors wrap core.ErrInvalid when the specification is to blame. failed is
	// called at most once, from any goroutine, when the device as a whole is
	// lost and only a new instance helps.
	Open(ctx context.Context, spec core.DeviceSpec, log hclog.Logger, failed func(error)) (Device, error)
}

// Device is one open GPU. Its methods may be called from any goroutine.
type Device interface {
	Describe() core.DeviceDescription
	// LoadKernel makes a kernel known, before the first job that names its
	// digest. An error refuses the jobs that name it.
	LoadKernel(ctx context.Context, k core.Kernel) error
	// Create brings an entity onto the device with the buffers and the private
	// part of image, which can be read once. It executes nothing yet.
	Create(ctx context.Context, spec *core.EntitySpec, image core.ImageSource, report Reporter) (Entity, error)
	// Close stops everything; entities need not be destroyed first.
	Close(ctx context.Context) error
}

// LeaveBounder is implemented by a Device that can say how long taking an entity
// off the hardware may take at worst: its own hang and preemption deadlines,
// and what it does to the hardware then. The SDK asks once, after Open, and gives
// Suspend and Destroy that long; 60 s without it, at least a second and at most 115 s.
type LeaveBounder interface {
	LeaveBound() time.Duration
}

// Entity is one entity on a device. The SDK calls its methods, and those of the
// capabilities below, serially and in the order of the commands, so that an
// implementation needs no lock for the entity's own state. Every ctx carries a
// deadline.
//
// This much runs jobs (core.LevelJobs). An entity that can do more implements more:
// PropertySetter and MessageHandler (core.LevelMessages), Suspender and Saver
// (core.LevelImages), Sampler at any level. A command for which it has no method is
// refused with core.ErrUnsupported.
type Entity interface {
	// Run appends a job to the ring and returns without waiting for it. An error
	// refuses the job.
	Run(ctx context.Context, job Job) error
	// Cancel takes a job out of the ring, or off the hardware at the next
	// preemption point. The answer is a report: Completed when it was too late,
	// otherwise Cancelled. Cancelling what is not there reports nothing.
	Cancel(ctx context.Context, job core.JobID) error
	// Destroy removes the entity. When it returns, no report follows.
	Destroy(ctx context.Context) error
}

// PropertySetter is implemented by an Entity whose properties can change while it lives.
type PropertySetter interface {
	// SetProperties applies changed properties, also while jobs execute.
	SetProperties(ctx context.Context, p core.Properties) error
}

// MessageHandler is implemented by an Entity whose backend has message types of
// its own (kinds from core.MessageBackend on).
type MessageHandler interface {
	// Message carries out one message; reply goes back with the event, at most 1 MiB.
	Message(ctx context.Context, kind core.MessageKind, payload []byte) (reply []byte, err error)
}

// Suspender is implemented by an Entity that can leave the hardware and come back.
type Suspender interface {
	// Suspend returns when the entity is confirmed off the hardware. Jobs stay in
	// the ring. A repeat changes nothing.
	Suspend(ctx context.Context) error
	// Resume lets the entity execute again. A repeat changes nothing.
	Resume(ctx context.Context) error
}

// Saver is implemented by an Entity whose state can be taken off the device; its
// device declares SavesImages then. It is a Suspender too.
type Saver interface {
	// Save returns the entity's state; it is called only while suspended, and
	// the source is read before any other method is called.
	Save(ctx context.Context) (core.ImageSource, error)
}

// Sampler is implemented by an Entity that knows how far its jobs have come.
// Without it progress is seen at the end of a job only, and a job's timeout is
// noticed then.
type Sampler interface {
	// Progress returns the present usage of the jobs that have started and not
	// ended; it must not wait.
	Progress() []JobUsage
}

// Tracer is implemented by a Device that keeps the last messages between driver
// and firmware. Its method may be called from any goroutine.
type Tracer interface {
	// Trace returns the lines after a number that are still kept, in order, and a
	// channel that is closed when there are more.
	Trace(after uint64) (lines []core.TraceLine, more <-chan struct{})
}

// Job is one job for Run.
type Job struct {
	Spec *core.JobSpec
	// First is the first workgroup to execute, in linear order; those before it are done.
	First uint64
	// Epoch is the entity's epoch; with the job's ID it names the usage count.
	Epoch core.Epoch
}

// Usage is how far a job has come.
type Usage struct {
	// Done is the cursor: workgroups done in linear order, those before First included.
	Done uint64
	// Executed counts the workgroups that the engine ran in this epoch.
	Executed uint64
	// ExecutedTime is the time in execution in this epoch.
	ExecutedTime time.Duration
}

// JobUsage is a job with its usage.
type JobUsage struct {
	Job core.JobID
	Usage
}

// Reporter takes the reports about one entity in one epoch. Its methods return
// at once and may be called from any goroutine, also inside the entity's methods.
type Reporter interface {
	// Started: the first workgroup of the job began in this epoch.
	Started(job core.JobID)
	// Completed: all workgroups are done. Jobs of an entity complete in order.
	// Where the hardware says so of many jobs at once, see UpToReporter.
	Completed(job core.JobID, u Usage)
	// Cancelled: the job left the device before its end.
	Cancelled(job core.JobID, u Usage)
	// Lost: the entity's state on the device is gone. guilty says that the
	// entity itself is to blame; job then names the job, and u how far it came.
	Lost(guilty bool, job core.JobID, u Usage, cause core.Cause, detail string)
}

// UpToReporter is implemented by the Reporter that the SDK gives to Create, for
// hardware that says "everything up to this value" (a stamp, a seqno).
type UpToReporter interface {
	Reporter
	// CompletedThrough reports as completed, in order, every job that was handed
	// to Run before job and has not ended, and job itself with usage u. Those
	// before it count as executed from their first workgroup to the last one, in
	// a time that nobody knows. A job that was not handed to Run, or has ended,
	// reports nothing, so that a repeat does no harm.
	CompletedThrough(job core.JobID, u Usage)
}
