package abi

import "fmt"

// PipeType is a kind of work.
type PipeType uint32

// The pipes. Only compute is modelled.
const (
	PipeVertex   PipeType = 0
	PipeFragment PipeType = 1
	PipeCompute  PipeType = 2
	pipeTypes             = 3
)

// String names the pipe.
func (p PipeType) String() string {
	if p < pipeTypes {
		return [...]string{"vertex", "fragment", "compute"}[p]
	}
	return fmt.Sprintf("pipe %d", uint32(p))
}

// Levels is the number of firmware priorities; 0 is the strongest.
const Levels = 4

// Slots is the number of event slots.
const Slots = 128

// RunWorkQueue tells that a work queue has new items. It goes into the pipe of
// the queue's kind and level.
type RunWorkQueue struct {
	// Pipe is a PipeType.
	Pipe uint32
	// Queue is the QueueInfo.
	Queue VA
	// Write is the new write index of the queue's ring: items up to, not including it.
	Write uint32
	// Slot is the event slot that the queue has now.
	Slot uint32
	// New is 1 in the first message ever for this QueueInfo.
	New bool
}

func (m *RunWorkQueue) layout(a *ABI) (*record, []any) {
	return &a.runWorkQueue, []any{&m.Pipe, &m.Queue, &m.Write, &m.Slot, &m.New}
}

// runWorkQueue is the same in both versions (driver fw/channels.rs).
var runWorkQueue = record{"RunWorkQueue", 0x30, []field{
	{"pipe_type", 0x00, 4},
	{"work_queue", 0x04, 8},
	{"wptr", 0x0c, 4},
	{"event_slot", 0x10, 4},
	{"is_new", 0x14, 1},
}, nil}
