// Package engine says what executes kernels under an emulated firmware. An
// engine is used by plugins only; the firmware emulators see this interface,
// the packages below implement it.
package engine

import (
	"time"

	"github.com/gpuwm/gpuwm/core"
)

// Engine executes dispatches in the background. Its methods may be called from
// any goroutine; none of them waits for a kernel.
type Engine interface {
	// Name is what a device's `engine:` says, for instance "wasm".
	Name() string
	// Formats are the kernel formats it takes.
	Formats() []string
	// Check reports whether the kernel can be loaded and has the entry point.
	Check(k core.Kernel, entry string) error
	// Start begins d and returns at once. notify is called exactly once, from
	// any goroutine (possibly before Start returns), when the execution has ended.
	Start(d Dispatch, notify func()) (Execution, error)
	// Forget drops what is cached for an address space; no dispatch of it is running.
	Forget(space uint64)
	// Close releases everything; no dispatch is running but those that cannot be stopped.
	Close() error
}

// Execution is one running or ended dispatch.
type Execution interface {
	// Stop asks it to end at the next workgroup boundary. Idempotent, returns at once.
	Stop()
	// Progress returns how many workgroups have been run to their end so far,
	// and for how long the dispatch has been executing.
	Progress() (workgroups uint64, executed time.Duration)
	// Result is valid once notify was called.
	Result() Result
}

// Result is how an execution ended.
type Result struct {
	// Done counts workgroups that are done, as a prefix of the range from First on.
	Done uint64
	// Executed is the time in execution, all cores together counted once.
	Executed time.Duration
	// Err is nil when the range ended or was stopped, a *core.FaultError when
	// the kernel misbehaved.
	Err error
}

// Dispatch is a range of the workgroups of one job.
type Dispatch struct {
	Kernel core.Kernel
	Entry  string
	Args   []Arg
	Grid   [3]uint32
	Group  [3]uint32
	// First and Count give the range in linear order, x fastest.
	First, Count uint64
	// Space names the address space; engines cache what they prepared for it.
	Space uint64
	// Segments are the buffers of the address space that the arguments may name.
	Segments []Segment
	// Job and Epoch name the usage count that the engine keeps.
	Job   core.JobID
	Epoch core.Epoch
}

// Arg is an argument: a GPU virtual address of a buffer, or a scalar's bits.
type Arg struct {
	Buffer bool
	Bits   uint64
}

// Segment is a piece of an address space. Address and Size are multiples of 64 KiB.
type Segment struct {
	Address uint64
	Size    uint64
	// Bytes is the memory as the host sees it.
	Bytes []byte
	// File and Offset let an engine map the memory where it wants it; File < 0
	// means that it can only be copied.
	File   int
	Offset int64
}
