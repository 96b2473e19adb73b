package abi

import "fmt"

// Opcode is bits 63:56 of an instruction.
type Opcode uint8

// The v10 opcodes (Mesa's v10.xml). Those of tiling, vertices and fragments are
// known by name, with their payload unread.
const (
	OpNop                 Opcode = 0
	OpMove48              Opcode = 1
	OpMove32              Opcode = 2
	OpWait                Opcode = 3
	OpRunCompute          Opcode = 4
	OpRunTiling           Opcode = 5
	OpRunIDVS             Opcode = 6
	OpRunFragment         Opcode = 7
	OpRunFullscreen       Opcode = 8
	OpFinishTiling        Opcode = 9
	OpFinishFragment      Opcode = 11
	OpAddImm32            Opcode = 16
	OpAddImm64            Opcode = 17
	OpUMin32              Opcode = 18
	OpLoadMultiple        Opcode = 20
	OpStoreMultiple       Opcode = 21
	OpBranch              Opcode = 22
	OpSetSBEntry          Opcode = 23
	OpProgressWait        Opcode = 24
	OpSetExceptionHandler Opcode = 25
	OpCall                Opcode = 32
	OpJump                Opcode = 33
	OpReqResource         Opcode = 34
	OpFlushCache2         Opcode = 36
	OpSyncAdd32           Opcode = 37
	OpSyncSet32           Opcode = 38
	OpSyncWait32          Opcode = 39
	OpStoreState          Opcode = 40
	OpProtRegion          Opcode = 41
	OpProgressStore       Opcode = 42
	OpProgressLoad        Opcode = 43
	OpRunComputeIndirect  Opcode = 44
	OpErrorBarrier        Opcode = 47
	OpHeapSet             Opcode = 48
	OpHeapOperation       Opcode = 49
	OpTracePoint          Opcode = 50
	OpSyncAdd64           Opcode = 51
	OpSyncSet64           Opcode = 52
	OpSyncWait64          Opcode = 53
)

// String is the instruction's name; OP_n when there is none.
func (o Opcode) String() string {
	if l, ok := layouts[o]; ok {
		return l.name
	}
	return fmt.Sprintf("OP_%#02x", uint8(o))
}

// Known reports whether v10 has the opcode.
func (o Opcode) Known() bool {
	_, ok := layouts[o]
	return ok
}

// Opcodes are the known opcodes, rising.
func Opcodes() []Opcode {
	var all []Opcode
	for o := 0; o < 256; o++ {
		if Opcode(o).Known() {
			all = append(all, Opcode(o))
		}
	}
	return all
}

// Condition compares a register with 0, or a sync object with a value.
type Condition uint8

// The conditions. A sync wait of v10 takes the first two only.
const (
	LessOrEqual Condition = iota
	Greater
	Equal
	NotEqual
	Less
	GreaterOrEqual
	Always
)

// String is the usual suffix.
func (c Condition) String() string {
	names := [...]string{"le", "gt", "eq", "ne", "lt", "ge", "always"}
	if int(c) < len(names) {
		return names[c]
	}
	return fmt.Sprintf("cond%d", uint8(c))
}

// Holds reports whether v stands so to 0. An unknown condition never holds.
func (c Condition) Holds(v int32) bool {
	switch c {
	case LessOrEqual:
		return v <= 0
	case Greater:
		return v > 0
	case Equal:
		return v == 0
	case NotEqual:
		return v != 0
	case Less:
		return v < 0
	case GreaterOrEqual:
		return v >= 0
	}
	return c == Always
}

// Resources are what REQ_RESOURCE asks for: 0 compute, 1 fragment, 2 tiler, 3 IDVS.
type Resources uint8

// The resources.
const (
	ResourceCompute  Resources = 1 << 0
	ResourceFragment Resources = 1 << 1
	ResourceTiler    Resources = 1 << 2
	ResourceIDVS     Resources = 1 << 3
)

// Scope says who hears of a sync object that was written.
type Scope uint8

// The scopes.
const (
	// ScopeSystem tells the host too.
	ScopeSystem Scope = 0
	// ScopeGroup wakes waiters of the same group only.
	ScopeGroup Scope = 2
)

// StoredState is what STORE_STATE stores, 8 bytes.
type StoredState uint8

// The states.
const (
	StateTimestamp     StoredState = 0
	StateCycles        StoredState = 1
	StateDisjointCount StoredState = 2
	StateError         StoredState = 3
)

// HeapStep is what HEAP_OPERATION counts.
type HeapStep uint8

// The steps.
const (
	HeapVertexStart HeapStep = 0
	HeapVertexEnd   HeapStep = 1
	HeapFragmentEnd HeapStep = 3
)
