package abi

import (
	"fmt"
	"strings"
)

// Instruction is one decoded instruction of a command stream. Which fields an
// opcode has is in its layout; others are zero. Registers that hold 64 bits are
// pairs, named by their even first one.
type Instruction struct {
	Op Opcode
	// Dest is written, Source and Source2 are read, Address is a pair that holds
	// an address, Length a register that holds bytes.
	Dest, Source, Source2, Address, Length uint8
	// Imm is an immediate; that of ADD_IMM is signed.
	Imm uint64
	// Mask names registers of LOAD and STORE, or scoreboards of WAIT.
	Mask uint16
	// Offset is in bytes for memory, in instructions for a branch.
	Offset    int16
	Condition Condition
	// Progress bumps the stream's progress counter.
	Progress bool
	// Increment workgroups along Axis (x, y, z) make a task.
	Increment uint16
	Axis      uint8
	// SRT, SPD, TSD and FAU choose one of four register pairs each.
	SRT, SPD, TSD, FAU uint8
	// Endpoint and Other are the scoreboard entries that SET_SB_ENTRY sets.
	Endpoint, Other uint8
	Resources       Resources
	// L2, LSC and OtherCaches say what a flush does.
	L2, LSC, OtherCaches FlushMode
	// Propagate writes the error state to the sync object's status; Reject
	// ignores that status in a wait.
	Propagate, Reject bool
	Scope             Scope
	// State, Heap, Queue and Kind belong to STORE_STATE, HEAP_OPERATION,
	// PROGRESS_WAIT and SET_EXCEPTION_HANDLER.
	State StoredState
	Heap  HeapStep
	Queue uint8
	Kind  uint8
	// WaitMask and Signal are the asynchronous trailer: the operation is deferred
	// until these scoreboards are zero, and holds this one meanwhile.
	WaitMask uint16
	Signal   uint8
}

// field is one bit field of an instruction.
type field struct {
	name       string
	low, width uint
	signed     bool
	// pair: must be even.
	pair bool
	get  func(*Instruction) uint64
	set  func(*Instruction, uint64)
}

// number makes a field of a member.
func number[T ~uint8 | ~uint16 | ~uint64 | ~int16](name string, high, low uint, at func(*Instruction) *T) field {
	return field{name: name, low: low, width: high - low + 1,
		get: func(i *Instruction) uint64 { return uint64(*at(i)) },
		set: func(i *Instruction, v uint64) { *at(i) = T(v) }}
}

// boolean makes a field of one bit.
func boolean(name string, bit uint, at func(*Instruction) *bool) field {
	return field{name: name, low: bit, width: 1,
		get: func(i *Instruction) uint64 { return uint64(flag(*at(i), 0)) },
		set: func(i *Instruction, v uint64) { *at(i) = v != 0 }}
}

func (f field) asPair() field   { f.pair = true; return f }
func (f field) asSigned() field { f.signed = true; return f }

// Encode is the instruction word. What does not fit into a field is cut off; an
// unknown opcode encodes Imm as its payload.
func (i Instruction) Encode() uint64 {
	word := uint64(i.Op) << 56
	l, ok := layouts[i.Op]
	if !ok {
		return word | i.Imm&(1<<56-1)
	}
	for _, f := range l.fields {
		word |= f.get(&i) & (1<<f.width - 1) << f.low
	}
	return word
}

// InstructionError says what is wrong with an instruction word.
type InstructionError struct {
	Word   uint64
	Reason string
}

// Error implements error.
func (e *InstructionError) Error() string {
	return fmt.Sprintf("instruction %016x: %s", e.Word, e.Reason)
}

// DecodeInstruction reads a word. Errors are *InstructionError: an unknown
// opcode, bits where there is no field, an odd pair.
func DecodeInstruction(word uint64) (Instruction, error) {
	i := Instruction{Op: Opcode(word >> 56)}
	l, ok := layouts[i.Op]
	if !ok {
		return i, &InstructionError{word, "unknown opcode"}
	}
	rest := word &^ (0xFF << 56)
	for _, f := range l.fields {
		mask := uint64(1)<<f.width - 1
		v := word >> f.low & mask
		rest &^= mask << f.low
		if f.pair && v&1 != 0 {
			return i, &InstructionError{word, fmt.Sprintf("%s: odd pair r%d", f.name, v)}
		}
		if f.signed && v>>(f.width-1) != 0 {
			v |= ^mask
		}
		f.set(&i, v)
	}
	if rest != 0 {
		return i, &InstructionError{word, fmt.Sprintf("reserved bits %#x", rest)}
	}
	return i, nil
}

// String is one line for traces: name and fields that are not zero.
func (i Instruction) String() string {
	var b strings.Builder
	b.WriteString(i.Op.String())
	l := layouts[i.Op]
	for _, f := range l.fields {
		v := f.get(&i)
		switch {
		case f.signed:
			fmt.Fprintf(&b, " %s=%d", f.name, int64(v))
		case f.name == "cond":
			fmt.Fprintf(&b, " cond=%s", i.Condition)
		case f.pair:
			fmt.Fprintf(&b, " %s=d%d", f.name, v)
		case strings.HasPrefix(f.name, "%"):
			fmt.Fprintf(&b, " %s=r%d", f.name[1:], v)
		case v != 0:
			fmt.Fprintf(&b, " %s=%#x", f.name, v)
		}
	}
	return b.String()
}

// Describe decodes a word into a line for traces. It never fails.
func Describe(word uint64) string {
	i, err := DecodeInstruction(word)
	if err != nil {
		return err.Error()
	}
	return i.String()
}

// EncodeStream encodes instructions into b, which has 8 bytes for each.
func EncodeStream(b []byte, stream []Instruction) {
	for n, i := range stream {
		put64(b[n*InstructionSize:], i.Encode())
	}
}
