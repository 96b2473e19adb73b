package manager

import (
	"context"

	"github.com/gpuwm/gpuwm/core"
)

// Store keeps the records. One implementation is store.DB.
type Store interface {
	// Load returns everything on record. Called before any Commit, and after a
	// Commit that failed: until then no later one succeeds.
	Load() (*core.Snapshot, error)
	// Commit queues w and returns at once; done is called once, from the
	// store's goroutine, in the order of the calls, when w is on disk or could
	// not be written. w must not change until then. done must not block.
	Commit(w *core.Write, done func(error))
}

// Images keeps the images of entities, one file each.
type Images interface {
	// Begin starts writing generation gen of the entity's image. A generation of
	// that number left by a crash is replaced. Chunks that an earlier generation
	// holds are not written again.
	Begin(entity core.EntityID, gen core.Generation) (ImageWriter, error)
	// Open opens a committed generation for reading. The caller closes it.
	Open(entity core.EntityID, gen core.Generation) (ImageReader, error)
	// Retain drops every generation but gen, after its record was committed.
	Retain(entity core.EntityID, gen core.Generation) error
	// PutKernel adds a kernel to the entity's image file; it stays with every generation.
	PutKernel(entity core.EntityID, k core.Kernel) error
	// Kernel returns a kernel of the entity.
	Kernel(entity core.EntityID, d core.Digest) (core.Kernel, error)
	// Remove deletes the entity's image file. Removing what is not there is no error.
	Remove(entity core.EntityID) error
	// Sweep deletes the image files of entities that keep rejects; called at start.
	Sweep(keep func(core.EntityID) bool) error
}

// ImageWriter receives one generation. Exactly one of Commit and Abort ends it.
// An alias, so that a store that may not import this package can return it.
type ImageWriter = interface {
	core.ImageSink
	// Commit makes the generation durable, with its header.
	Commit(core.ImageHeader) error
	// Abort forgets it. After Commit it does nothing.
	Abort()
}

// ImageReader is an open generation; an alias for the same reason.
type ImageReader = interface {
	core.ImageSource
	Close() error
}

// Launcher starts and adopts plugin processes.
type Launcher interface {
	// Prepare makes the record of an instance that is about to be started for
	// the backend: a fresh instance name and its directory. The caller commits
	// it before Start, so that no process can exist that is not on record.
	Prepare(backend string, devices []core.DeviceSpec) (core.InstanceRecord, error)
	// Start starts the process of a prepared record and returns the record
	// completed with what is known only now; the caller commits that too.
	// ctx bounds the start, not the life.
	Start(ctx context.Context, prepared core.InstanceRecord) (Instance, core.InstanceRecord, error)
	// Adopt attaches to the process on record after verifying its identity.
	// core.ErrGone means that it is verifiably not running any more.
	Adopt(ctx context.Context, record core.InstanceRecord) (Instance, error)
	// End ends the process on record, and returns when it is verifiably gone.
	// A record of a process that never started, or is gone, is no error. When ctx
	// ends, the process is killed without further asking.
	End(ctx context.Context, record core.InstanceRecord) error
	// Outdated reports whether the executable that Start would take is another
	// than the process on record was started from.
	Outdated(record core.InstanceRecord) bool
	// Usage reads, after the end, how many workgroups the engine of the instance
	// ran, by job and epoch, and may be called while it runs.
	Usage(record core.InstanceRecord) (map[core.UsageKey]uint64, error)
	// Sweep removes what crashes left of instances that were never on record;
	// called at start.
	Sweep(keep func(instance string) bool) error
	// Discard removes what is left of an ended instance on disk.
	Discard(record core.InstanceRecord) error
}

// Instance is a running plugin process. Its methods may be called from any goroutine.
type Instance interface {
	// Describe returns what the backend declares of itself.
	Describe() core.BackendDescription
	// Open opens (or reopens) the session of one device; its number must
	// already be committed. events receives batches in order, from one
	// goroutine, and must not block for long; progress is mixed in.
	Open(ctx context.Context, device core.DeviceSpec, session core.Session, events func([]core.BackendEvent)) (Link, error)
	// PutKernel uploads a kernel. A run that needs it waits for it in the plugin, with a bound.
	PutKernel(ctx context.Context, device string, k core.Kernel) error
	// PutImage uploads the image for the create command of (entity, epoch),
	// before, with or after the command itself.
	PutImage(ctx context.Context, device string, entity core.EntityID, epoch core.Epoch, src core.ImageSource) error
	// GetImage saves a suspended entity into sink.
	GetImage(ctx context.Context, device string, entity core.EntityID, epoch core.Epoch, sink core.ImageSink) (core.ImageHeader, error)
	// Gone is closed when the process, or every way to talk to it, has ended.
	Gone() <-chan struct{}
	// Detach lets go without ending the process.
	Detach()
}

// Link is the open session of one device.
type Link interface {
	// Describe returns what the backend declares of the device.
	Describe() core.DeviceDescription
	// Entities lists what the plugin holds on this device, as of Open.
	Entities() []HeldEntity
	// Send queues commands in order and returns at once; false means that the
	// link is down and nothing was queued.
	Send([]core.Command) bool
	// Ack says that events up to seq are durable.
	Ack(seq core.EventSeq)
	// Down is closed when the stream has ended.
	Down() <-chan struct{}
	// Close ends the stream; the plugin keeps its state.
	Close()
}

// HeldEntity is what a plugin reports of an entity when a session opens.
type HeldEntity struct {
	Entity core.EntityID
	Epoch  core.Epoch
	// Applied is the sequence number of the last command taken.
	Applied core.CommandSeq
}
