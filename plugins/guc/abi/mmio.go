package abi

import "fmt"

// The register space, as byte offsets, and which of its pages the device has.
// After each store to a register the host raises the doorbell line: an emulator
// sees no store by itself.
const (
	// RegWindow holds mailbox and interrupt source, RegResetWindow the reset,
	// RegLoadWindow load and status of the firmware.
	RegWindow      uint32 = 0x190000
	RegResetWindow uint32 = 0x9000
	RegLoadWindow  uint32 = 0xC000
	// RegPowerWindow is ours: it stands for the function's configuration space
	// and the power of its slot, which are no registers of the GT.
	RegPowerWindow uint32 = 0xFF000
)

// RegWindows are the pages of the register space in the order in which they are
// mapped, by both sides.
var RegWindows = [...]uint32{RegWindow, RegResetWindow, RegLoadWindow, RegPowerWindow}

// The MMIO mailbox of the main GT. The host writes up to MMIODwords into the scratch
// registers, writes 0 to the notify register, and polls scratch 0 until its
// ORIGIN bit says GuC.
const (
	RegScratch uint32 = 0x190240
	RegNotify  uint32 = 0x1901F0
	MMIODwords        = 4
)

// RegInterruptSource says why the interrupt was raised, beside messages, mailbox
// and jobs, which raise it without a bit here. The firmware sets bits, the
// host writes 0 when it has seen them. The place is ours.
//
//	0     SW_INT_0: the function was migrated
const (
	RegInterruptSource uint32 = 0x190060
	InterruptMigrated  uint32 = 1
)

// RegReset (GDRST) resets the GT. The host writes ResetFull; the device clears it
// when everything is off and forgotten.
//
//	0     full reset: engines, firmware, contexts, rings, mailbox
//	31    ours: an engine did not stop in time, the reset has failed; the host gives the device up
const (
	RegReset    uint32 = 0x941C
	ResetFull   uint32 = 1
	ResetFailed uint32 = 1 << 31
)

// RegLoad (DMA_CTRL) loads the firmware after a reset. The host writes
// LoadFirmware; the device clears bit 0 when the load has ended, well or not.
// Where the image lies is not modelled.
//
//	0     start
//	4     to the microcontroller's memory
const (
	RegLoad      uint32 = 0xC314
	LoadStart    uint32 = 1
	LoadFirmware uint32 = LoadStart | 1<<4
)

// RegStatus (GUC_STATUS) says how far the firmware is. The host only reads it.
//
//	15:8  load status: LoadReady when it serves, else how the load failed
//	7:1   boot ROM, 0 here
//	0     the microcontroller is in reset: nothing was loaded
const (
	RegStatus           uint32 = 0xC000
	StatusInReset       uint32 = 1
	LoadReady           uint8  = 0xF0
	LoadInitDataInvalid uint8  = 0x71
	LoadException       uint8  = 0x70
)

// LoadStatus is the load status in a value of RegStatus.
func LoadStatus(v uint32) uint8 { return uint8(v >> 8) }

// EncodeLoadStatus is what RegStatus reads when the load ended like that.
func EncodeLoadStatus(s uint8) uint32 { return uint32(s) << 8 }

// PowerState is a value of RegPower and RegPowerState.
//
//	2:0   0 D0, 3 D3hot, 4 D3cold
type PowerState uint32

// The power states.
const (
	// PowerD0 is on. From D3hot the firmware goes on where it stood, from D3cold
	// it has to be loaded.
	PowerD0 PowerState = 0
	// PowerD3Hot keeps firmware and contexts, and does nothing. It is entered
	// when no context is on an engine.
	PowerD3Hot PowerState = 3
	// PowerD3Cold has no power: firmware, contexts and registers are gone.
	PowerD3Cold PowerState = 4
)

// String names the state.
func (s PowerState) String() string {
	switch s {
	case PowerD0:
		return "D0"
	case PowerD3Hot:
		return "D3hot"
	case PowerD3Cold:
		return "D3cold"
	}
	return fmt.Sprintf("power state %d", uint32(s))
}

// RegPower is what the host wants (PMCSR bits 1:0, and bit 2, ours, for the power of
// the slot), RegPowerState what has been reached. The host writes the one, the
// device the other; below D0 no other register answers.
const (
	RegPower      uint32 = 0xFF0D4
	RegPowerState uint32 = 0xFF0D8
)

// DecodePower returns the state in a register; false when the register is not
// there or holds none.
func DecodePower(v uint32) (PowerState, bool) {
	s := PowerState(v)
	return s, s == PowerD0 || s == PowerD3Hot || s == PowerD3Cold
}

// Present reports whether a register is there: those that are not read as ones.
func Present(v uint32) bool { return v != 0xFFFFFFFF }

// AppendMMIO encodes a packet for the mailbox, filled up with zeroes. Packets
// that are longer than MMIODwords are refused.
func AppendMMIO(p Packet) ([MMIODwords]uint32, error) {
	var box [MMIODwords]uint32
	dw := p.Dwords()
	if len(dw) > MMIODwords {
		return box, wire(ErrorTooLarge, "mmio message of %d dwords", len(dw))
	}
	copy(box[:], dw)
	return box, nil
}

// ParseMMIO decodes what stands in the mailbox. A request is cut to the length
// of its action first, because the box does not say how long its message is;
// a success keeps all three dwords.
func ParseMMIO(box [MMIODwords]uint32) (Packet, error) {
	h, err := DecodeHeader(box[0])
	if err != nil {
		return Packet{Origin: h.Origin, Type: h.Type}, err
	}
	length := MMIODwords
	switch h.Type {
	case TypeFailure, TypeRetry, TypeBusy:
		length = 1
	case TypeRequest, TypeEvent, TypeFastRequest:
		if bounds, typed := lengths[h.Action()]; typed && bounds[0] == bounds[1] {
			length = min(bounds[0]+1, MMIODwords)
		}
	}
	return Parse(box[:length])
}
