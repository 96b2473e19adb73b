package hw

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"strings"
	"unicode/utf8"
)

// The dispatch descriptor names one job's work in device memory. It is ours and
// the same for all vendors; what points to it (a batch address, a shader
// program pointer, a compute stream pointer) is the vendor's. It takes
// DispatchSize bytes, aligned to DispatchAlign, in two halves of 256 bytes.
//
// Host half, written before the firmware is told and not changed until the job
// has left the ring:
//
//	offset size  field
//	0x00   4     magic, "GWDD"
//	0x04   4     version, 1
//	0x08   8     kernel address
//	0x10   8     kernel length in bytes, 1 to KernelSizeMax
//	0x18   32    SHA-256 of the kernel
//	0x38   16    kernel format, text padded with NUL
//	0x48   64    entry point, text padded with NUL
//	0x88   8     address of the argument slots, a multiple of 8; 0 when there are none
//	0x90   4     number of arguments, 0 to ArgsMax
//	0x94   4     reserved, 0
//	0x98   3×4   grid in workgroups, each at least 1
//	0xa4   3×4   workgroup size in work-items, each at least 1
//	0xb0   8     first workgroup of the range, in linear order, x fastest
//	0xb8   8     workgroups in the range, at least 1
//	0xc0   8     job identifier
//	0xc8   8     epoch
//	0xd0   48    reserved, 0
//
// An argument slot takes 16 bytes: flags (4; bit 0: a buffer), reserved 0 (4),
// bits (8; a GPU virtual address, or a scalar in the low bytes).
//
// The firmware half is described at Report. The addresses of kernel and
// argument slots are of the same kind as the address that names the
// descriptor: GPU virtual or device addresses.
const (
	DispatchSize  = 512
	DispatchAlign = 64
	// ReportOffset is where the firmware half begins.
	ReportOffset = 256
	// ArgSize is the size of one argument slot.
	ArgSize = 16
	// ArgsMax bounds the arguments of a job: one page of slots.
	ArgsMax = 256
	// KernelSizeMax bounds the length of a kernel.
	KernelSizeMax = 256 << 20
	// WorkgroupsMax bounds the product of the grid.
	WorkgroupsMax = 1 << 62

	formatMax = 16
	entryMax  = 64

	dispatchMagic   = 'G' | 'W'<<8 | 'D'<<16 | 'D'<<24
	dispatchVersion = 1
	argFlagBuffer   = 1
)

// DescriptorError says which field of a structure in device memory is wrong.
type DescriptorError struct {
	Structure, Field, Reason string
}

// Error implements error.
func (e *DescriptorError) Error() string {
	return fmt.Sprintf("%s: %s: %s", e.Structure, e.Field, e.Reason)
}

// Unwrap makes errors.Is(err, ErrInvalid) true.
func (e *DescriptorError) Unwrap() error { return ErrInvalid }

// Dispatch is the host half of a dispatch descriptor.
type Dispatch struct {
	KernelAddress, KernelSize uint64
	Digest                    [32]byte
	Format, Entry             string
	ArgsAddress               uint64
	ArgsCount                 uint32
	Grid, Group               [3]uint32
	First, Count              uint64
	Job, Epoch                uint64
}

// Arg is one argument slot.
type Arg struct {
	Buffer bool
	Bits   uint64
}

// Workgroups returns the product of the grid, and false when it is 0 or above
// WorkgroupsMax.
func Workgroups(grid [3]uint32) (uint64, bool) {
	hi, n := bits.Mul64(uint64(grid[0])*uint64(grid[1]), uint64(grid[2]))
	return n, hi == 0 && n > 0 && n <= WorkgroupsMax
}

// Validate checks all limits. Errors are *DescriptorError.
func (d *Dispatch) Validate() error {
	bad := func(field, format string, args ...any) error {
		return &DescriptorError{"dispatch descriptor", field, fmt.Sprintf(format, args...)}
	}
	if d.KernelSize == 0 || d.KernelSize > KernelSizeMax || d.KernelAddress+d.KernelSize < d.KernelAddress {
		return bad("kernel", "%#x+%#x", d.KernelAddress, d.KernelSize)
	}
	if err := checkText(d.Format, formatMax); err != "" {
		return bad("format", "%s", err)
	}
	if err := checkText(d.Entry, entryMax); err != "" {
		return bad("entry", "%s", err)
	}
	if d.ArgsCount > ArgsMax {
		return bad("arguments", "%d, at most %d", d.ArgsCount, ArgsMax)
	}
	if d.ArgsCount > 0 && (d.ArgsAddress%8 != 0 || d.ArgsAddress+uint64(d.ArgsCount)*ArgSize < d.ArgsAddress) {
		return bad("arguments", "address %#x", d.ArgsAddress)
	}
	if d.ArgsCount == 0 && d.ArgsAddress != 0 {
		return bad("arguments", "address %#x of none", d.ArgsAddress)
	}
	total, ok := Workgroups(d.Grid)
	if !ok {
		return bad("grid", "%v", d.Grid)
	}
	if _, ok := Workgroups(d.Group); !ok {
		return bad("group", "%v", d.Group)
	}
	if d.Count == 0 || d.First > total || d.Count > total-d.First {
		return bad("range", "%d+%d of %d workgroups", d.First, d.Count, total)
	}
	return nil
}

// checkText returns what is wrong with a text of 1 to size bytes, "" for nothing.
func checkText(s string, size int) string {
	switch {
	case s == "" || len(s) > size:
		return fmt.Sprintf("%d bytes, 1 to %d", len(s), size)
	case !utf8.ValidString(s) || strings.ContainsRune(s, 0):
		return "not a text"
	}
	return ""
}

// Encode writes the host half into b, which holds at least ReportOffset bytes.
// Errors are *DescriptorError; b is unchanged then.
func (d *Dispatch) Encode(b []byte) error {
	if err := d.Validate(); err != nil {
		return err
	}
	if len(b) < ReportOffset {
		return &DescriptorError{"dispatch descriptor", "size", fmt.Sprintf("%d bytes", len(b))}
	}
	b = b[:ReportOffset]
	clear(b)
	le := binary.LittleEndian
	le.PutUint32(b[0x00:], dispatchMagic)
	le.PutUint32(b[0x04:], dispatchVersion)
	le.PutUint64(b[0x08:], d.KernelAddress)
	le.PutUint64(b[0x10:], d.KernelSize)
	copy(b[0x18:0x38], d.Digest[:])
	copy(b[0x38:0x48], d.Format)
	copy(b[0x48:0x88], d.Entry)
	le.PutUint64(b[0x88:], d.ArgsAddress)
	le.PutUint32(b[0x90:], d.ArgsCount)
	for i := range 3 {
		le.PutUint32(b[0x98+4*i:], d.Grid[i])
		le.PutUint32(b[0xa4+4*i:], d.Group[i])
	}
	le.PutUint64(b[0xb0:], d.First)
	le.PutUint64(b[0xb8:], d.Count)
	le.PutUint64(b[0xc0:], d.Job)
	le.PutUint64(b[0xc8:], d.Epoch)
	return nil
}

// DecodeDispatch reads and validates a host half. Errors are *DescriptorError.
func DecodeDispatch(b []byte) (Dispatch, error) {
	bad := func(field, reason string) (Dispatch, error) {
		return Dispatch{}, &DescriptorError{"dispatch descriptor", field, reason}
	}
	if len(b) < ReportOffset {
		return bad("size", fmt.Sprintf("%d bytes", len(b)))
	}
	// The host owns the memory and may change it while it is read: one copy.
	var half [ReportOffset]byte
	copy(half[:], b)
	le := binary.LittleEndian
	if m, v := le.Uint32(half[0x00:]), le.Uint32(half[0x04:]); m != dispatchMagic || v != dispatchVersion {
		return bad("magic", fmt.Sprintf("%#x version %d", m, v))
	}
	if le.Uint32(half[0x94:]) != 0 || !allZero(half[0xd0:]) {
		return bad("reserved", "not zero")
	}
	d := Dispatch{
		KernelAddress: le.Uint64(half[0x08:]), KernelSize: le.Uint64(half[0x10:]),
		Digest:      [32]byte(half[0x18:0x38]),
		ArgsAddress: le.Uint64(half[0x88:]), ArgsCount: le.Uint32(half[0x90:]),
		First: le.Uint64(half[0xb0:]), Count: le.Uint64(half[0xb8:]),
		Job: le.Uint64(half[0xc0:]), Epoch: le.Uint64(half[0xc8:]),
	}
	for i := range 3 {
		d.Grid[i] = le.Uint32(half[0x98+4*i:])
		d.Group[i] = le.Uint32(half[0xa4+4*i:])
	}
	var ok bool
	if d.Format, ok = paddedText(half[0x38:0x48]); !ok {
		return bad("format", "bytes after the end")
	}
	if d.Entry, ok = paddedText(half[0x48:0x88]); !ok {
		return bad("entry", "bytes after the end")
	}
	if err := d.Validate(); err != nil {
		return Dispatch{}, err
	}
	return d, nil
}

// paddedText returns the text before the first NUL, and false when anything
// but NUL follows it.
func paddedText(b []byte) (string, bool) {
	for i, c := range b {
		if c == 0 {
			return string(b[:i]), allZero(b[i:])
		}
	}
	return string(b), true
}

// allZero reports whether all bytes are zero.
func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// EncodeArgs writes argument slots into b. Errors are *DescriptorError when
// there are more than ArgsMax or b is too small.
func EncodeArgs(b []byte, args []Arg) error {
	if len(args) > ArgsMax || len(b) < len(args)*ArgSize {
		return &DescriptorError{"arguments", "count", fmt.Sprintf("%d in %d bytes", len(args), len(b))}
	}
	for i, a := range args {
		slot := b[i*ArgSize : (i+1)*ArgSize]
		var flags uint32
		if a.Buffer {
			flags = argFlagBuffer
		}
		binary.LittleEndian.PutUint32(slot, flags)
		binary.LittleEndian.PutUint32(slot[4:], 0)
		binary.LittleEndian.PutUint64(slot[8:], a.Bits)
	}
	return nil
}

// DecodeArgs reads as many slots as b holds. Errors are *DescriptorError.
func DecodeArgs(b []byte) ([]Arg, error) {
	if len(b)%ArgSize != 0 || len(b) > ArgsMax*ArgSize {
		return nil, &DescriptorError{"arguments", "size", fmt.Sprintf("%d bytes", len(b))}
	}
	args := make([]Arg, 0, len(b)/ArgSize)
	for ; len(b) > 0; b = b[ArgSize:] {
		flags := binary.LittleEndian.Uint32(b)
		if flags&^uint32(argFlagBuffer) != 0 || binary.LittleEndian.Uint32(b[4:]) != 0 {
			return nil, &DescriptorError{"arguments", "flags", fmt.Sprintf("%#x", flags)}
		}
		args = append(args, Arg{Buffer: flags&argFlagBuffer != 0, Bits: binary.LittleEndian.Uint64(b[8:])})
	}
	return args, nil
}
