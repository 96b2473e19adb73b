package abi

import "fmt"

// VA is a firmware address: class in the upper 32 bits, device address in the lower.
type VA uint64

// Class is a memory class: where an address lies says who caches it.
type Class uint32

// The classes (Asahi driver, gpu.rs address map; the end of each is the next one's start).
const (
	// ClassPrivate is cached by the firmware: QueueInfo, work-queue and TX rings,
	// notifiers, microsequences, firmware stamps, barriers.
	ClassPrivate Class = 0xFFFFFFA0
	// ClassGPUReadOnly is private that the GPU reads too: RunCompute.
	ClassGPUReadOnly Class = 0xFFFFFFA6
	// ClassShared is cached by nobody: channel state blocks, RX rings, RingState,
	// stamps, thresholds, notifier lists, initdata, job timestamps.
	ClassShared Class = 0xFFFFFFA8
	// ClassSharedReadOnly is shared that the firmware only reads.
	ClassSharedReadOnly Class = 0xFFFFFFAA
	// ClassGPUShared is shared that the GPU reads and writes too.
	ClassGPUShared Class = 0xFFFFFFAC
	// ClassRTKit holds the buffers of system endpoints (and user timestamps).
	ClassRTKit Class = 0xFFFFFFAE
)

// String names the class.
func (c Class) String() string {
	switch c {
	case ClassPrivate:
		return "private"
	case ClassGPUReadOnly:
		return "gpu-read-only"
	case ClassShared:
		return "shared"
	case ClassSharedReadOnly:
		return "shared-read-only"
	case ClassGPUShared:
		return "gpu-shared"
	case ClassRTKit:
		return "rtkit"
	}
	return fmt.Sprintf("class %#x", uint32(c))
}

// Cached reports whether the firmware keeps a copy of what lies there.
func (c Class) Cached() bool { return c == ClassPrivate || c == ClassGPUReadOnly }

// DeviceMax is the end of the device memory that firmware addresses reach.
const DeviceMax uint64 = 1 << 32

// Address names device memory below DeviceMax in a class.
func Address(c Class, device uint64) VA { return VA(uint64(c)<<32 | device&(DeviceMax-1)) }

// Class returns the memory class.
func (v VA) Class() Class { return Class(v >> 32) }

// Device returns the device address; false when the address has no known class.
func (v VA) Device() (uint64, bool) {
	switch v.Class() {
	case ClassPrivate, ClassGPUReadOnly, ClassShared, ClassSharedReadOnly, ClassGPUShared, ClassRTKit:
		return uint64(v) & (DeviceMax - 1), true
	}
	return 0, false
}

// vaBits is what mailbox messages carry of an address; the rest is its sign.
const vaBits = 44

func (v VA) short() uint64 { return uint64(v) & (1<<vaBits - 1) }

func longVA(v uint64) VA { return VA(int64(v<<(64-vaBits)) >> (64 - vaBits)) }

// The context table (TTBAT): ContextSlots entries of 16 bytes {ttbr0, ttbr1}.
//
//	0     valid
//	47:1  table address, here the device address of a package hw address space table
//	63:48 ASID, the slot number
//
// Slot 0 is the kernel's. Where it lies stands in the first 8 bytes of hwdata_b
// (ours; the field's place there is not public).
const (
	ContextSlots     = 64
	contextEntry     = 16
	ContextTableSize = ContextSlots * contextEntry
	ttbrValid        = 1
	ttbrTable        = 1<<48 - 2
)

// ContextEntry returns where the entry of a slot lies in the table.
func ContextEntry(slot uint32) uint64 { return uint64(slot) * contextEntry }

// EncodeTTBR names an address space table for a slot; table 0 unbinds the slot.
func EncodeTTBR(slot uint32, table uint64) uint64 {
	if table == 0 {
		return 0
	}
	return uint64(slot)<<48 | table&ttbrTable | ttbrValid
}

// DecodeTTBR returns the address space table of a slot; false when the entry is
// not valid or another slot's.
func DecodeTTBR(slot uint32, v uint64) (table uint64, ok bool) {
	return v & ttbrTable, v&ttbrValid != 0 && v>>48 == uint64(slot)
}
