package abi

// Priority is the priority block of a QueueInfo. For compute queues the driver
// puts the values of level 0 into two fields, which disables preemption inside
// commands.
type Priority struct {
	A, B uint32
	// Outranks looks like 16 bits for each weaker level.
	Outranks uint64
	C, D, E  uint32
}

// priorities are by firmware level (driver queue/mod.rs).
var priorities = [Levels]Priority{
	{0, 0, 0xFFFF_FFFF_FFFF_0000, 1, 0, 1},
	{1, 1, 0xFFFF_FFFF_0000_0000, 0, 0, 0},
	{2, 2, 0xFFFF_0000_0000_0000, 0, 0, 2},
	{3, 3, 0x0000_0000_0000_0000, 0, 0, 3},
}

// PlainPriority is the block of a level below Levels as the other pipes have it.
func PlainPriority(level uint32) Priority { return priorities[level%Levels] }

// Preemptible reports whether the block allows preemption inside commands.
func (p Priority) Preemptible() bool { return p.A != priorities[0].A || p.E != priorities[0].E }

// ComputePriority is the block of a compute queue at a level below Levels.
func ComputePriority(level uint32) Priority {
	p := priorities[level%Levels]
	p.A, p.E = priorities[0].A, priorities[0].E
	return p
}

// QueueItems is the length of a work queue's ring: addresses of commands, 8 bytes each.
const (
	QueueItems    = 0x500
	QueueItemSize = 8
	// QueueScratchSize is the firmware's own memory of a queue (gpu_buf).
	QueueScratchSize = 0x2c18
)

// QueueInfo is a work queue. The host writes it once, before the first
// RunWorkQueue; from then on it is the firmware's.
type QueueInfo struct {
	RingState, Ring, NotifierList, Scratch VA
	Read1, Read2, Read3                    uint32
	// EventSlot is -1 at first.
	EventSlot  int32
	Priority   Priority
	UUID       uint32
	Busy       uint32
	Unk84      uint32
	ErrorCount uint32
	Pending    uint32
	Context    VA
}

func (m *QueueInfo) layout(a *ABI) (*record, []any) {
	p := &m.Priority
	return &a.queueInfo, []any{&m.RingState, &m.Ring, &m.NotifierList, &m.Scratch, &m.Read1, &m.Read2, &m.Read3, &m.EventSlot,
		&p.A, &p.B, &p.Outranks, &p.C, &p.D, &p.E, &m.UUID, &m.Busy, &m.Unk84, &m.ErrorCount, &m.Pending, &m.Context}
}

// queueInfo returns the layout (driver fw/workqueue.rs). The offsets of what
// lies behind the word that 13.2 inserted are arguments.
func queueInfo(size, unk84, errorCount, pending, context uint32) record {
	return record{"QueueInfo", size, []field{
		{"ring_state", 0x00, 8},
		{"ring", 0x08, 8},
		{"notifier_list", 0x10, 8},
		{"gpu_buf", 0x18, 8},
		{"gpu_rptr1", 0x20, 4},
		{"gpu_rptr2", 0x24, 4},
		{"gpu_rptr3", 0x28, 4},
		{"event_id", 0x2c, 4},
		{"priority_0", 0x30, 4},
		{"priority_1", 0x34, 4},
		{"priority_mask", 0x38, 8},
		{"priority_3", 0x40, 4},
		{"priority_4", 0x44, 4},
		{"priority_5", 0x48, 4},
		{"uuid", 0x50, 4},
		{"busy", 0x60, 4},
		{"unk_84", unk84, 4},
		{"error_count", errorCount, 4},
		{"pending", pending, 4},
		{"gpu_context", context, 8},
	}, []constant{{0x4c, 4, 0xFFFFFFFF}, {0x54, 4, 0xFFFFFFFF}}}
}

var (
	queueInfo123     = queueInfo(0xb0, 0x84, 0x88, 0x98, 0xa0)
	queueInfo135     = queueInfo(0xb8, 0x88, 0x8c, 0x9c, 0xa4) // The word at 0x84.
	queueInfo135m1n1 = queueInfo(0xb8, 0x84, 0x88, 0x98, 0xa4) // The word at 0xa0.
)

// RingState is shared memory: word indices.
const (
	RingStateDone  = 0        // gpu_doneptr: items finished
	RingStateRead  = 0x30 / 4 // gpu_rptr: items fetched
	RingStateWrite = 0x40 / 4 // cpu_wptr
	RingStateItems = 0x50 / 4 // rb_size
	RingStateSize  = 0x60
)

// GpuContext is one user's context, shared. The host makes it with NewGpuContext
// and must destroy it (DestroyContext) before its memory is used again.
type GpuContext struct {
	Index0, Index1 uint8
	Unk4           uint8
}

// NewGpuContext is a context that the firmware has not seen.
func NewGpuContext() *GpuContext { return &GpuContext{Index0: 0xFF, Index1: 0xFF} }

// GpuContextUnk23 is the byte of a GpuContext that DestroyContext repeats.
const GpuContextUnk23 = 2

func (m *GpuContext) layout(a *ABI) (*record, []any) {
	return &a.gpuContext, []any{&m.Index0, &m.Index1, &m.Unk4}
}

var gpuContext = record{"GpuContext", 0x40, []field{
	{"unk_0", 0x00, 1},
	{"unk_1", 0x01, 1},
	{"unk_4", 0x04, 1},
}, []constant{{0x05, 1, 1}, {0x1e, 1, 0xFF}, {0x23, 1, GpuContextUnk23}}}

// Notifier decides when the firmware tells the host about retired commands of
// one user queue. It is the firmware's once a command named it.
type Notifier struct {
	// Threshold is a 64-bit counter in shared memory that the host raises.
	Threshold  VA
	Generation uint32
	Count      uint32
	VMSlot     uint32
	HasCompute uint32
	Stamps     [4]VA
	InList     uint32
	Prev, Next VA
}

func (m *Notifier) layout(a *ABI) (*record, []any) {
	return &a.notifier, []any{&m.Threshold, &m.Generation, &m.Count, &m.VMSlot, &m.HasCompute,
		&m.Stamps[0], &m.Stamps[1], &m.Stamps[2], &m.Stamps[3], &m.InList, &m.Prev, &m.Next}
}

// notifier returns the layout (driver fw/event.rs) with tail bytes of 0xff at the end.
// The vertex and fragment halves at 0x28 and 0x4c are reserved.
func notifier(tail uint32) record {
	r := record{"Notifier", 0xa8 + tail, []field{
		{"threshold", 0x00, 8},
		{"generation", 0x08, 4},
		{"cur_count", 0x0c, 4},
		{"vm_slot", 0x24, 4},
		{"has_comp", 0x70, 4},
		{"comp_stamp_0", 0x74, 8},
		{"comp_stamp_1", 0x7c, 8},
		{"comp_stamp_2", 0x84, 8},
		{"comp_stamp_3", 0x8c, 8},
		{"in_list", 0x94, 4},
		{"list_prev", 0x98, 8},
		{"list_next", 0xa0, 8},
	}, []constant{{0x10, 4, 0x50}}}
	if tail > 0 {
		r.constants = append(r.constants, constant{0xa8, 8, 0xFFFF_FFFF_FFFF_FFFF})
	}
	return r
}

// ThresholdSize is the size of a threshold.
const ThresholdSize = 8

// NotifierList is the head of a list of notifiers, shared; empty when Next is its own address.
type NotifierList struct {
	Prev, Next VA
	Unk10      uint64
}

func (m *NotifierList) layout(a *ABI) (*record, []any) {
	return &a.notifierList, []any{&m.Prev, &m.Next, &m.Unk10}
}

var notifierList = record{"NotifierList", 0x18, []field{
	{"list_prev", 0x00, 8},
	{"list_next", 0x08, 8},
	{"unk_10", 0x10, 8},
}, nil}
