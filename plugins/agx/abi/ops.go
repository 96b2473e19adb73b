package abi

import (
	"encoding/binary"
	"fmt"
)

// Op is a microsequence operation, the low 6 bits of its first word.
type Op uint8

// The operations. Doorbell and Profile are known and not modelled, and neither
// are 0x04 to 0x0d (register accesses and jumps) and 0x22 to 0x27 (vertex,
// fragment, blit).
const (
	OpWaitForIdle  Op = 0x01
	OpWaitForIdle2 Op = 0x02
	OpDoorbell     Op = 0x03
	OpWrite32      Op = 0x0e
	OpWrite64      Op = 0x0f
	OpRead32       Op = 0x10
	OpRead64       Op = 0x11
	OpALU          Op = 0x16
	OpAdd          Op = 0x17
	OpRetireStamp  Op = 0x18
	OpTimestamp    Op = 0x19
	OpProfile      Op = 0x1f
	OpStart        Op = 0x29
	OpFinalize     Op = 0x2a
	OpComplete     Op = 0x2b
	OpAbort        Op = 0x2c
	opMask            = 0x3f
)

// SequenceMax bounds the bytes of a microsequence (ours).
const SequenceMax = 64 << 10

// Attachment is memory that a compute command has to flush; the firmware only counts them here.
type Attachment struct {
	Address uint64
	Lines   uint32
}

// AttachmentsMax bounds the attachments of a command.
const AttachmentsMax = 16

// StartCompute starts the command's work on the pipe.
type StartCompute struct {
	Queue           VA
	VMSlot          uint32
	EventGeneration uint32
	EventSeq        uint64
	JobParameters2  VA
	UUID            uint32
	Attachments     uint32
	NotifierUnk     VA
}

// Timestamp writes the time to where Update, the address of a pointer, points.
type Timestamp struct {
	// Start marks the one before the work.
	Start                    bool
	Current, StartTS, Update VA
	Queue                    VA
	Unk                      VA
	UUID                     uint32
}

// WaitForIdle parks the sequence until the pipe is done.
type WaitForIdle struct{}

// FinalizeCompute writes the firmware stamp.
type FinalizeCompute struct {
	Queue          VA
	VMSlot         uint32
	FwStamp        VA
	Value          uint32
	Restart        int32
	HasAttachments uint32
}

// RetireStamp ends the sequence: the shared stamp is written and the notifier counted.
type RetireStamp struct{}

// Store writes Value to memory: 32 bits, or 64 when Wide.
type Store struct {
	Wide    bool
	Address VA
	Value   uint64
}

// Read looks at a word: 32 bits, or 64 when Wide. Nothing is done with it.
type Read struct {
	Wide    bool
	Address VA
}

// ALUKind is what an ALU operation does.
type ALUKind uint8

// The kinds; the source names them, their numbers are ours.
const (
	ALUAnd ALUKind = iota
	ALUOr
	ALUXor
	ALULsr
	ALULsl
	// ALUAdd is an operation of its own on the wire (OpAdd).
	ALUAdd
)

// ALU changes a 32-bit word in memory.
type ALU struct {
	Kind    ALUKind
	Address VA
	Operand uint32
}

// EndStamp ends the sequence like FinalizeCompute and RetireStamp in one; Abort
// fails the command.
type EndStamp struct {
	Abort   bool
	FwStamp VA
	Value   uint32
}

// Operation is an Object of a microsequence.
type Operation interface {
	Object
	// word is the first word.
	word() uint32
}

// Bits of first words beside the operation (driver fw/microseq.rs; those of ALU are ours).
//
//	Timestamp   31 start
//	WaitForIdle 8 + 15: compute
//	RetireStamp 30
//	ALU         15:8 kind
const (
	timestampStart = 1 << 31
	waitCompute    = 1 << (8 + 15)
	retireFlag     = 1 << 30
	aluShift       = 8
)

func (*StartCompute) word() uint32    { return uint32(OpStart) }
func (*WaitForIdle) word() uint32     { return uint32(OpWaitForIdle) | waitCompute }
func (*FinalizeCompute) word() uint32 { return uint32(OpFinalize) }
func (*RetireStamp) word() uint32     { return uint32(OpRetireStamp) | retireFlag }
func (m *Timestamp) word() uint32 {
	if m.Start {
		return uint32(OpTimestamp) | timestampStart
	}
	return uint32(OpTimestamp)
}
func (m *Store) word() uint32 {
	if m.Wide {
		return uint32(OpWrite64)
	}
	return uint32(OpWrite32)
}
func (m *Read) word() uint32 {
	if m.Wide {
		return uint32(OpRead64)
	}
	return uint32(OpRead32)
}
func (m *ALU) word() uint32 {
	if m.Kind == ALUAdd {
		return uint32(OpAdd)
	}
	return uint32(OpALU) | uint32(m.Kind)<<aluShift
}
func (m *EndStamp) word() uint32 {
	if m.Abort {
		return uint32(OpAbort)
	}
	return uint32(OpComplete)
}

func (m *StartCompute) layout(a *ABI) (*record, []any) {
	return &a.opStart, []any{&m.Queue, &m.VMSlot, &m.EventGeneration, &m.EventSeq, &m.JobParameters2, &m.UUID, &m.Attachments, &m.NotifierUnk}
}
func (m *Timestamp) layout(a *ABI) (*record, []any) {
	return &a.opTimestamp, []any{&m.Current, &m.StartTS, &m.Update, &m.Queue, &m.Unk, &m.UUID}
}
func (m *WaitForIdle) layout(a *ABI) (*record, []any) { return &a.opWait, nil }
func (m *FinalizeCompute) layout(a *ABI) (*record, []any) {
	return &a.opFinalize, []any{&m.Queue, &m.VMSlot, &m.FwStamp, &m.Value, &m.Restart, &m.HasAttachments}
}
func (m *RetireStamp) layout(a *ABI) (*record, []any) { return &a.opRetire, nil }
func (m *Store) layout(a *ABI) (*record, []any) {
	if m.Wide {
		return &a.opWrite64, []any{&m.Address, &m.Value}
	}
	return &a.opWrite32, []any{&m.Address, &m.Value}
}
func (m *Read) layout(a *ABI) (*record, []any) { return &a.opRead, []any{&m.Address} }
func (m *ALU) layout(a *ABI) (*record, []any)  { return &a.opALU, []any{&m.Address, &m.Operand} }
func (m *EndStamp) layout(a *ABI) (*record, []any) {
	return &a.opStamp, []any{&m.FwStamp, &m.Value}
}

// Layouts behind the first word (driver fw/microseq.rs). The 16 attachments at
// 0x4c are counted, not modelled one by one. Of Timestamp the sources give the size;
// the order of its fields is inferred. Store, Read, ALU and EndStamp are ours.
var (
	opStart = record{"StartCompute", 0x16c, []field{
		{"work_queue", 0x1c, 8},
		{"vm_slot", 0x24, 4},
		{"event_generation", 0x2c, 4},
		{"event_seq", 0x30, 8},
		{"job_params2", 0x3c, 8},
		{"uuid", 0x48, 4},
		{"num_attachments", 0x14c, 4},
		{"notifier_buf", 0x164, 8},
	}, []constant{{0x28, 4, 1}}}
	opFinalize = record{"FinalizeCompute", 0x7c, []field{
		{"work_queue", 0x0c, 8},
		{"vm_slot", 0x14, 4},
		{"fw_stamp", 0x28, 8},
		{"stamp_value", 0x30, 4},
		{"restart_branch_offset", 0x58, 4},
		{"has_attachments", 0x5c, 4},
	}, nil}
	opWait    = record{"WaitForIdle", 4, nil, nil}
	opRetire  = record{"RetireStamp", 4, nil, nil}
	opWrite32 = record{"Write32", 0x10, []field{{"addr", 0x04, 8}, {"value", 0x0c, 4}}, nil}
	opWrite64 = record{"Write64", 0x14, []field{{"addr", 0x04, 8}, {"value", 0x0c, 8}}, nil}
	opRead    = record{"Read", 0x0c, []field{{"addr", 0x04, 8}}, nil}
	opALU     = record{"ALU", 0x10, []field{{"addr", 0x04, 8}, {"operand", 0x0c, 4}}, nil}
	opStamp   = record{"EndStamp", 0x10, []field{{"fw_stamp", 0x04, 8}, {"stamp_value", 0x0c, 4}}, nil}
)

// opTimestamp returns the layout with so many bytes at unk_ts, which 13.0 added.
func opTimestamp(unk uint32) record {
	return record{"Timestamp", 0x34 + unk, []field{
		{"cur_ts", 0x04, 8},
		{"start_ts", 0x0c, 8},
		{"update_ts", 0x14, 8},
		{"work_queue", 0x1c, 8},
		{"unk_ts", 0x2c, unk},
		{"uuid", 0x2c + unk, 4},
	}, nil}
}

// AppendOp adds an operation to a microsequence.
func (a *ABI) AppendOp(sequence []byte, o Operation) []byte {
	b := a.Bytes(o)
	binary.LittleEndian.PutUint32(b, o.word())
	return append(sequence, b...)
}

// DecodeOp reads the first operation of a microsequence and returns its size.
// Errors are *WireError.
func (a *ABI) DecodeOp(sequence []byte) (o Operation, size uint32, err error) {
	if len(sequence) < 4 {
		return nil, 0, wire("microsequence", "%d bytes left", len(sequence))
	}
	word := binary.LittleEndian.Uint32(sequence)
	switch op := Op(word & opMask); op {
	case OpStart:
		o = &StartCompute{}
	case OpTimestamp:
		o = &Timestamp{Start: word&timestampStart != 0}
	case OpWaitForIdle:
		o = &WaitForIdle{}
	case OpFinalize:
		o = &FinalizeCompute{}
	case OpRetireStamp:
		o = &RetireStamp{}
	case OpWrite32, OpWrite64:
		o = &Store{Wide: op == OpWrite64}
	case OpRead32, OpRead64:
		o = &Read{Wide: op == OpRead64}
	case OpALU:
		o = &ALU{Kind: ALUKind(word >> aluShift)}
		if word>>aluShift >= uint32(ALUAdd) {
			return nil, 0, wire("microsequence", "alu operation %#x", word)
		}
	case OpAdd:
		o = &ALU{Kind: ALUAdd}
	case OpComplete, OpAbort:
		o = &EndStamp{Abort: op == OpAbort}
	default:
		return nil, 0, wire("microsequence", "operation %#x is not modelled", uint8(op))
	}
	if o.word() != word {
		return nil, 0, wire("microsequence", "operation %#08x, want %#08x", word, o.word())
	}
	size = a.Size(o)
	if uint64(len(sequence)) < uint64(size) {
		return nil, 0, wire("microsequence", "%s is cut short", fmt.Sprintf("operation %#x", word&opMask))
	}
	body := make([]byte, size)
	copy(body[4:], sequence[4:size])
	return o, size, a.Decode(body, o)
}
