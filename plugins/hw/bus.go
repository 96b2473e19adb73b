package hw

import (
	"fmt"
	"sync/atomic"
	"unsafe"
)

// What a bus does by itself with loads and stores. Both sides give their
// Registers the same rules, before anybody uses them; a rule that is there
// already is not added again.

// bus holds the rules of a register file.
type bus struct {
	interrupts [][4]uint32
	commands   [][3]uint32
	row        [3]uint32
}

// Interrupts makes blocks of four registers, {raw, clear, mask, status}, behave as
// such: a store to clear takes the bits out of raw at once, clear itself reads
// as 0; a load of status gives the bits of raw that are in mask.
func (r *Registers) Interrupts(blocks ...[4]uint32) *Registers {
	for _, b := range blocks {
		if !has(r.bus.interrupts, b) {
			r.bus.interrupts = append(r.bus.interrupts, b)
		}
	}
	return r
}

// Commands makes pairs of a command and a status register, {command, status, bits}:
// status reads with the bits from the store of a command, which is not 0, until the device
// has taken it. Begin takes it; the bits then stand until the device clears them.
func (r *Registers) Commands(commands ...[3]uint32) *Registers {
	for _, c := range commands {
		if !has(r.bus.commands, c) {
			r.bus.commands = append(r.bus.commands, c)
		}
	}
	return r
}

// Row places the registers at base + i*stride for i below count side by side in
// the window of base, as words, because a page for each is too much. There is one row. Errors
// wrap ErrInvalid when it does not fit.
func (r *Registers) Row(base, stride, count uint32) error {
	if stride < uint32(PageSize) || uint64(count)*4 > PageSize || uint64(base)+uint64(stride)*uint64(count) > 1<<32 {
		return fmt.Errorf("row of registers at %#x: %w", base, ErrInvalid)
	}
	r.bus.row = [3]uint32{base, stride, count}
	return nil
}

func has[T comparable](all []T, one T) bool {
	for _, x := range all {
		if x == one {
			return true
		}
	}
	return false
}

// fold returns where a register of the row lies.
func (b *bus) fold(offset uint32) uint32 {
	base, stride, count := b.row[0], b.row[1], b.row[2]
	if count == 0 || offset < base || (offset-base)%stride != 0 || (offset-base)/stride >= count {
		return offset
	}
	return base + (offset-base)/stride*4
}

// Set sets bits of a register and leaves the others alone, whoever changes them meanwhile.
func (r *Registers) Set(offset, bits uint32) {
	if p := r.pointer(offset); p != nil {
		atomic.OrUint32(p, fromLittle32(bits))
	}
}

// Clear clears bits of a register and leaves the others alone.
func (r *Registers) Clear(offset, bits uint32) {
	if p := r.pointer(offset); p != nil {
		atomic.AndUint32(p, ^fromLittle32(bits))
	}
}

// Take returns a register and leaves 0 there, in one step: what was stored
// meanwhile is not lost. A register that is not there reads as 0.
func (r *Registers) Take(offset uint32) uint32 {
	if p := r.pointer(offset); p != nil && atomic.LoadUint32(p) != 0 {
		return fromLittle32(atomic.SwapUint32(p, 0))
	}
	return 0
}

// Begin takes a command from a register of Commands, with 0 when there is none. The
// bits in its status register are the device's from then on: there is no moment at which a
// command is known to neither register, whatever the host stores meanwhile.
func (r *Registers) Begin(command uint32) uint32 {
	for _, c := range r.bus.commands {
		if p := r.pointer(command); c[0] == command && p != nil && atomic.LoadUint32(p) != 0 {
			r.Set(c[1], c[2])
			return r.Take(command)
		}
	}
	return 0
}

// pointer returns the word of a register, nil when there is none.
func (r *Registers) pointer(offset uint32) *uint32 {
	addr, ok := r.address(offset)
	if !ok {
		return nil
	}
	p, err := r.arena.word(addr, 4)
	if err != nil {
		return nil
	}
	return (*uint32)(unsafe.Pointer(p))
}

// stored does what the bus does with a store; false means that nothing is left to store.
func (r *Registers) stored(offset, v uint32) bool {
	for _, b := range r.bus.interrupts {
		if b[1] == offset {
			r.Clear(b[0], v)
			return false
		}
	}
	return true
}

// loaded returns what the bus gives for a load, false when the register answers itself.
func (r *Registers) loaded(offset uint32) (uint32, bool) {
	for _, b := range r.bus.interrupts {
		if b[3] == offset {
			return r.Load(b[0]) & r.Load(b[2]), true
		}
	}
	for _, c := range r.bus.commands {
		// The command first: who has taken it set the bits before.
		if p := r.pointer(offset); c[1] == offset && p != nil && r.Load(c[0]) != 0 {
			return fromLittle32(atomic.LoadUint32(p)) | c[2], true
		}
	}
	return 0, false
}
