package abi

import "fmt"

// The registers that RUN_COMPUTE reads. SRT, FAU, SPD and TSD are four pairs
// each; the instruction chooses one of each kind.
const (
	RegisterSRT       uint8 = 0
	RegisterFAU       uint8 = 8
	RegisterSPD       uint8 = 16
	RegisterTSD       uint8 = 24
	RegisterAttribute uint8 = 32
	RegisterGroupSize uint8 = 33
	RegisterOffset    uint8 = 34 // x, y, z in r34 to r36, in workgroups.
	RegisterSize      uint8 = 37 // x, y, z in r37 to r39, in workgroups.
	// ComputeRegisters is how many registers a dispatch reads at most.
	ComputeRegisters = 40
)

// Selected is the register pair of a kind that a two-bit selector chooses.
func Selected(kind, selector uint8) uint8 { return kind + selector&3*2 }

// WorkgroupSize is register r33.
//
//	9:0    x-1      19:10  y-1      29:20  z-1
//	31     small workgroups may be merged
type WorkgroupSize struct {
	X, Y, Z uint32 // 1 to WorkgroupSizeMax.
	Merge   bool
}

// WorkgroupSizeMax bounds each dimension.
const WorkgroupSizeMax = 1024

// Fits reports whether the sizes can be encoded.
func (w WorkgroupSize) Fits() bool {
	in := func(v uint32) bool { return v >= 1 && v <= WorkgroupSizeMax }
	return in(w.X) && in(w.Y) && in(w.Z)
}

// Encode is the register; sizes that do not fit are cut.
func (w WorkgroupSize) Encode() uint32 {
	return (w.X-1)&0x3FF | (w.Y-1)&0x3FF<<10 | (w.Z-1)&0x3FF<<20 | flag(w.Merge, 31)
}

// DecodeWorkgroupSize reads the register; false when its unused bit is set.
func DecodeWorkgroupSize(v uint32) (WorkgroupSize, bool) {
	return WorkgroupSize{v&0x3FF + 1, v>>10&0x3FF + 1, v>>20&0x3FF + 1, v>>31 != 0}, v&(1<<30) == 0
}

// ShaderProgram is the descriptor that SPD names. Here its binary is a dispatch
// descriptor (package hw), which is ours.
//
//	word 0  type 3:0 (8), stage 7:4 (1 compute), register allocation 31:30
//	word 1  preload mask 15:0, of r48 to r63
//	word 2  and 3: address of the binary
type ShaderProgram struct {
	Stage      uint8
	Allocation uint8
	Preload    uint16
	Binary     uint64
}

// Sizes of the descriptors, and their values.
const (
	ShaderProgramSize = 32
	LocalStorageSize  = 32
	LocalStorageAlign = 64
	ResourceSize      = 16

	StageCompute uint8 = 1
	// Allocation64 gives 64 registers to a thread, Allocation32 half of it.
	Allocation64 uint8 = 0
	Allocation32 uint8 = 2

	typeShaderProgram = 8
)

// DescriptorError says what is wrong with a descriptor.
type DescriptorError struct{ Descriptor, Reason string }

// Error implements error.
func (e *DescriptorError) Error() string { return e.Descriptor + ": " + e.Reason }

// Encode writes the descriptor into b, which has ShaderProgramSize bytes.
func (s ShaderProgram) Encode(b []byte) {
	clear(b[:ShaderProgramSize])
	put32(b, typeShaderProgram|uint32(s.Stage&0xF)<<4|uint32(s.Allocation&3)<<30)
	put32(b[4:], uint32(s.Preload))
	put64(b[8:], s.Binary)
}

// DecodeShaderProgram reads a descriptor. Errors are *DescriptorError.
func DecodeShaderProgram(b []byte) (ShaderProgram, error) {
	bad := func(format string, args ...any) (ShaderProgram, error) {
		return ShaderProgram{}, &DescriptorError{"shader program", fmt.Sprintf(format, args...)}
	}
	if len(b) < ShaderProgramSize {
		return bad("%d bytes", len(b))
	}
	w0, w1 := get32(b), get32(b[4:])
	if w0&0xF != typeShaderProgram {
		return bad("type %d", w0&0xF)
	}
	if w0&0x3FFFFF00 != 0 || w1>>16 != 0 || get64(b[16:]) != 0 || get64(b[24:]) != 0 {
		return bad("reserved bits")
	}
	return ShaderProgram{uint8(w0 >> 4 & 0xF), uint8(w0 >> 30), uint16(w1), get64(b[8:])}, nil
}

// LocalStorage is the descriptor that TSD names: memory of threads and
// workgroups. The kernels here bring their own, so that it is read by nobody.
//
//	word 0  size of thread storage 4:0     word 1  workgroup storage: instances 4:0, size 15:8
//	word 2  and 3: thread storage          word 4  and 5: workgroup storage
type LocalStorage struct {
	ThreadSize                        uint8
	WorkgroupInstances, WorkgroupSize uint8
	ThreadAddress, WorkgroupAddress   uint64
}

// Encode writes the descriptor into b, which has LocalStorageSize bytes.
func (l LocalStorage) Encode(b []byte) {
	clear(b[:LocalStorageSize])
	put32(b, uint32(l.ThreadSize&0x1F))
	put32(b[4:], uint32(l.WorkgroupInstances&0x1F)|uint32(l.WorkgroupSize)<<8)
	put64(b[8:], l.ThreadAddress)
	put64(b[16:], l.WorkgroupAddress)
}

// DecodeLocalStorage reads a descriptor. Errors are *DescriptorError.
func DecodeLocalStorage(b []byte) (LocalStorage, error) {
	bad := func(reason string) (LocalStorage, error) {
		return LocalStorage{}, &DescriptorError{"local storage", reason}
	}
	if len(b) < LocalStorageSize {
		return bad(fmt.Sprintf("%d bytes", len(b)))
	}
	w0, w1 := get32(b), get32(b[4:])
	if w0>>5 != 0 || w1&0xFFFF00E0 != 0 || get64(b[24:]) != 0 {
		return bad("reserved bits")
	}
	return LocalStorage{uint8(w0), uint8(w1 & 0x1F), uint8(w1 >> 8), get64(b[8:]), get64(b[16:])}, nil
}

// Resource is an entry of a resource table: address 55:0, bit 56 has
// descriptors, then the size in bytes.
type Resource struct {
	Address     uint64
	Descriptors bool
	Size        uint64
}

// Encode writes the entry into b, which has ResourceSize bytes.
func (r Resource) Encode(b []byte) {
	put64(b, r.Address&(1<<56-1)|uint64(flag(r.Descriptors, 0))<<56)
	put64(b[8:], r.Size)
}

// DecodeResource reads an entry. Errors are *DescriptorError.
func DecodeResource(b []byte) (Resource, error) {
	if len(b) < ResourceSize || get64(b)>>57 != 0 {
		return Resource{}, &DescriptorError{"resource", "reserved bits or size"}
	}
	return Resource{get64(b) & (1<<56 - 1), get64(b)>>56 != 0, get64(b[8:])}, nil
}
