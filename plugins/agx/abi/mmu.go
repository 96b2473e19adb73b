package abi

import "fmt"

// FaultReason says what was wrong with an access.
type FaultReason uint8

// The reasons.
const (
	FaultUnmapped  FaultReason = 0
	FaultAccess    FaultReason = 1
	FaultWriteOnly FaultReason = 2
	FaultReadOnly  FaultReason = 3
	FaultNoAccess  FaultReason = 4
)

// String names the reason.
func (r FaultReason) String() string {
	if r <= FaultNoAccess {
		return [...]string{"unmapped", "access flag", "write-only", "read-only", "no access"}[r]
	}
	return fmt.Sprintf("reason %d", uint8(r))
}

// MMUFault is the MMU fault register (driver regs.rs).
//
//	0      valid
//	3:1    reason
//	4      read
//	6:5    unknown
//	8:7    level
//	16:9   unit
//	22:17  VM slot
//	29:23  sideband
//	63:30  address >> 6, the top bit is the sign
type MMUFault struct {
	Reason   FaultReason
	Read     bool
	Unk5     uint8
	Level    uint8
	Unit     uint8
	VMSlot   uint8
	Sideband uint8
	// Address loses its low 6 bits.
	Address uint64
}

const (
	faultAddressShift = 30
	faultLineShift    = 6
)

// Encode returns the register, valid.
func (f MMUFault) Encode() uint64 {
	v := 1 | uint64(f.Reason&7)<<1 | uint64(f.Unk5&3)<<5 | uint64(f.Level&3)<<7 | uint64(f.Unit)<<9 |
		uint64(f.VMSlot&0x3F)<<17 | uint64(f.Sideband&0x7F)<<23 | f.Address>>faultLineShift<<faultAddressShift
	if f.Read {
		v |= 1 << 4
	}
	return v
}

// DecodeMMUFault reads the register; false when it is not valid.
func DecodeMMUFault(v uint64) (MMUFault, bool) {
	return MMUFault{
		Reason: FaultReason(v >> 1 & 7), Read: v>>4&1 != 0, Unk5: uint8(v >> 5 & 3), Level: uint8(v >> 7 & 3),
		Unit: uint8(v >> 9), VMSlot: uint8(v >> 17 & 0x3F), Sideband: uint8(v >> 23 & 0x7F),
		Address: uint64(int64(v) >> faultAddressShift << faultLineShift),
	}, v&1 != 0
}

// String shows the fault on one line.
func (f MMUFault) String() string {
	access := "write"
	if f.Read {
		access = "read"
	}
	return fmt.Sprintf("%s of %#x, %s, vm_slot=%d unit=%d level=%d", access, f.Address, f.Reason, f.VMSlot, f.Unit, f.Level)
}
