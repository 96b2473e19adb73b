package abi

import (
	"encoding/binary"
	"fmt"
)

// CommandTag is the first word of a command in a work queue.
type CommandTag uint32

// The commands. Only RunCompute and Barrier are modelled.
const (
	TagRunVertex   CommandTag = 0
	TagRunFragment CommandTag = 1
	TagRunBlit     CommandTag = 2
	TagRunCompute  CommandTag = 3
	TagBarrier     CommandTag = 4
	TagInitBuffer  CommandTag = 6
)

// String names the command.
func (t CommandTag) String() string {
	switch t {
	case TagRunVertex:
		return "RunVertex"
	case TagRunFragment:
		return "RunFragment"
	case TagRunBlit:
		return "RunBlit"
	case TagRunCompute:
		return "RunCompute"
	case TagBarrier:
		return "Barrier"
	case TagInitBuffer:
		return "InitBuffer"
	}
	return fmt.Sprintf("command %#x", uint32(t))
}

// Barrier holds its queue until a stamp has passed a value.
type Barrier struct {
	// WaitStamp is the other queue's firmware stamp; WaitSlot the event slot
	// whose firing makes the firmware look again.
	WaitStamp           VA
	WaitValue, WaitSlot uint32
	// StampSelf is the value of the command after it.
	StampSelf uint32
	UUID      uint32
}

// BarrierUUID is the UUID of explicit barriers.
const BarrierUUID = 0xFFFFBBBB

func (m *Barrier) layout(a *ABI) (*record, []any) {
	return &a.barrier, []any{&m.WaitStamp, &m.WaitValue, &m.WaitSlot, &m.StampSelf, &m.UUID}
}

// barrier is the same in both versions (driver fw/workqueue.rs); 0x1c, the
// external barrier, is 0.
var barrier = record{"Barrier", 0x20, []field{
	{"wait_stamp", 0x04, 8},
	{"wait_value", 0x0c, 4},
	{"wait_slot", 0x10, 4},
	{"stamp_self", 0x14, 4},
	{"uuid", 0x18, 4},
}, []constant{{0, 4, uint64(TagBarrier)}}}

// JobMeta says how a command's completion is told.
type JobMeta struct {
	Unk0         uint16
	Unk2         uint8
	NoPreemption uint8
	// Stamp and FwStamp are the two completion counters of the event slot.
	Stamp, FwStamp    VA
	Value, Slot       uint32
	EventControlIndex uint32
	FlushStamps       uint32
	UUID, EventSeq    uint32
}

// RunCompute is a compute command.
type RunCompute struct {
	// Counter is a sequence of the queue, for attribution only.
	Counter  uint64
	VMSlot   uint32
	Notifier VA
	// Stream names the work: a GPU address in the address space of VMSlot. There
	// lies a dispatch descriptor (ours) in place of a compute stream. End is its end.
	Stream, End         uint64
	Sequence            VA
	SequenceSize        uint32
	EncoderID           uint32
	Meta                JobMeta
	CommandTime         uint64
	Start, Stop         VA
	UserStart, UserStop VA
	ClientSequence      uint8
}

func (m *RunCompute) layout(a *ABI) (*record, []any) {
	j := &m.Meta
	return &a.runCompute, []any{&m.Counter, &m.VMSlot, &m.Notifier, &m.Stream, &m.Sequence, &m.SequenceSize, &m.End, &m.EncoderID,
		&j.Unk0, &j.Unk2, &j.NoPreemption, &j.Stamp, &j.FwStamp, &j.Value, &j.Slot, &j.EventControlIndex, &j.FlushStamps, &j.UUID, &j.EventSeq,
		&m.CommandTime, &m.Start, &m.Stop, &m.UserStart, &m.UserStop, &m.ClientSequence}
}

// runCompute returns the layout (driver fw/compute.rs) with so many bytes of
// counter behind the tag. Preemption buffers, helper program, sampler and the
// context store words are opaque and 0; the total size is ours.
func runCompute(counter uint32) record {
	at := func(name string, off, size uint32) field { return field{name, off - 8 + counter, size} }
	return record{"RunCompute", 0x2f8 + counter, []field{
		{"counter", 0x04, counter},
		at("vm_slot", 0x10, 4),
		at("notifier", 0x14, 8),
		at("cdm_ctrl_stream_base", 0x78, 8),
		at("microsequence", 0x1f0, 8),
		at("microsequence_size", 0x1f8, 4),
		at("cdm_ctrl_stream_end", 0x22c, 8),
		at("encoder_id", 0x25c, 4),
		at("meta_unk_0", 0x284, 2),
		at("meta_unk_2", 0x286, 1),
		at("no_preemption", 0x287, 1),
		at("stamp", 0x288, 8),
		at("fw_stamp", 0x290, 8),
		at("stamp_value", 0x298, 4),
		at("stamp_slot", 0x29c, 4),
		at("evctl_index", 0x2a0, 4),
		at("flush_stamps", 0x2a4, 4),
		at("uuid", 0x2a8, 4),
		at("event_seq", 0x2ac, 4),
		at("command_time", 0x2b0, 8),
		at("start_ts", 0x2b8, 8),
		at("end_ts", 0x2c0, 8),
		at("user_start_ts", 0x2c8, 8),
		at("user_end_ts", 0x2d0, 8),
		at("client_sequence", 0x2d8, 1),
	}, []constant{{0, 4, uint64(TagRunCompute)}, {0x260 - 8 + counter, 4, 0xFFFFFFFF}}}
}

// RunComputeTimestamps returns where the pointers to the job's timestamps and to
// the user's lie in a RunCompute: start, and 8 bytes behind it end.
func (a *ABI) RunComputeTimestamps() (job, user uint32) {
	job, _, _ = a.Offset(&RunCompute{}, "start_ts")
	user, _, _ = a.Offset(&RunCompute{}, "user_start_ts")
	return job, user
}

// CommandHead is how many bytes of a command are enough for Tag.
const CommandHead = 4

// Tag returns the tag of a command of at least CommandHead bytes.
func Tag(command []byte) CommandTag { return CommandTag(binary.LittleEndian.Uint32(command)) }
