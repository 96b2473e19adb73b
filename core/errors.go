package core

import (
	"errors"
	"fmt"
)

// The closed set of errors that callers compare with errors.Is.
var (
	// ErrClosed is returned when an entity was closed, killed or banned.
	ErrClosed = errors.New("entity closed")
	// ErrFull is returned when a queue limit is reached; try again after a completion.
	ErrFull = errors.New("queue full")
	// ErrOversize is returned when a job takes more credits than the ring has.
	ErrOversize = errors.New("job larger than the ring")
	// ErrNotFound is returned when no entity, job or device has that name.
	ErrNotFound = errors.New("not found")
	// ErrExists is returned when the name or identifier is taken.
	ErrExists = errors.New("already exists")
	// ErrInvalid is returned when an argument breaks a documented limit.
	ErrInvalid = errors.New("invalid")
	// ErrLongRunningFence is returned when a compute job would wait for a fence
	// of a long-running job.
	ErrLongRunningFence = errors.New("compute job waits on a long-running job's fence")
	// ErrCycle is returned when dependencies would wait for each other.
	ErrCycle = errors.New("dependency cycle")
	// ErrUnsupported is returned when a backend does not offer what was asked.
	ErrUnsupported = errors.New("not supported by the backend")
	// ErrStale is returned when a session or epoch is older than the present one.
	ErrStale = errors.New("stale session or epoch")
	// ErrCorrupt is returned when stored or received bytes contradict their digest or format.
	ErrCorrupt = errors.New("corrupt")
	// ErrGone is returned when the plugin instance has ended.
	ErrGone = errors.New("plugin instance gone")
	// ErrDeadline is returned when an answer did not come within its bound.
	ErrDeadline = errors.New("no answer in time")
	// ErrBusy is returned when somebody else holds what was asked for.
	ErrBusy = errors.New("held by another process")
)

// FaultError says that work misbehaved and who is to blame.
type FaultError struct {
	Cause  Cause
	Entity EntityID
	Job    JobID
	Detail string
}

// Error implements error.
func (e *FaultError) Error() string { return fmt.Sprintf("%s: %s", e.Cause, e.Detail) }

// TransitionError says that an event is not legal in a state.
type TransitionError struct {
	Noun, From, Event string
}

// Error implements error.
func (e *TransitionError) Error() string {
	return fmt.Sprintf("%s: %s is not legal in state %s", e.Noun, e.Event, e.From)
}
