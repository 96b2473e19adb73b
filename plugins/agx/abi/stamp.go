package abi

// A stamp is a 32-bit completion counter. Commands count in its upper 24 bits;
// each command that signals takes the next value. Stamps wrap.
const (
	StampStep  = 0x100
	stampShift = 8
	// StampSize is the stride of both arrays of stamps, by event slot.
	StampSize = 4
	// OutstandingMax is how many values of a slot may be under way.
	OutstandingMax = 127
)

// StampsBetween returns how many commands lie from one value to another,
// negative when to is behind.
func StampsBetween(from, to uint32) int32 { return int32(to-from) >> stampShift }

// Passed reports whether the stamp now in memory has reached want.
func Passed(now, want uint32) bool { return StampsBetween(want, now) >= 0 }

// PendingStamps is the number of entries of pending_stamps in Globals, each
// PendingStampSize bytes {info, wait_value}, written when the GPU halts.
const (
	PendingStamps    = 0x100
	PendingStampSize = 8
)

// PendingStamp is one stamp that was in progress when the GPU halted.
//
//	info 0      valid
//	info 2:1    flags (13.5: 3:1)
//	info 9:3    slot (13.5: 10:4)
type PendingStamp struct {
	// Flags are what stands between valid bit and slot.
	Flags uint32
	Slot  uint32
	Value uint32
}

const slotMask = Slots - 1

// PendingStampsOffset is where the entries begin in Globals.
func (a *ABI) PendingStampsOffset() uint32 { return a.globals.pending }

// EncodePendingStamp returns info and value.
func (a *ABI) EncodePendingStamp(p PendingStamp) (info, value uint32) {
	return 1 | p.Flags<<1&(1<<a.pendingShift-1) | (p.Slot&slotMask)<<a.pendingShift, p.Value
}

// DecodePendingStamp reads an entry; false when it is not valid.
func (a *ABI) DecodePendingStamp(info, value uint32) (PendingStamp, bool) {
	return PendingStamp{
		Flags: info & (1<<a.pendingShift - 1) >> 1,
		Slot:  info >> a.pendingShift & slotMask,
		Value: value,
	}, info&1 != 0
}

// TickHz is the rate of the firmware's clock; user timestamps count nanoseconds.
const TickHz = 24_000_000

// Ticks turns nanoseconds into ticks.
func Ticks(nanoseconds uint64) uint64 {
	const each = 1_000_000_000
	return nanoseconds/each*TickHz + nanoseconds%each*TickHz/each
}
