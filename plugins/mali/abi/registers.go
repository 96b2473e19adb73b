package abi

// The register space, as byte offsets, and which of its pages the device has.
// After each store to a register the host raises the doorbell line: an emulator
// sees no store by itself.
const (
	// RegWindowGPU holds GPU control, power and MCU; then the blocks of job and MMU.
	RegWindowGPU uint32 = 0x0
	RegWindowJob uint32 = 0x1000
	RegWindowMMU uint32 = 0x2000
	// RegWindowFlush is a page that user space may map to read the flush id.
	RegWindowFlush uint32 = 0x10000
	// RegWindowDoorbell is doorbell 0; see DoorbellRow.
	RegWindowDoorbell uint32 = 0x80000
)

// RegWindows are the pages of the register space in the order in which they are
// mapped, by both sides.
var RegWindows = [...]uint32{RegWindowGPU, RegWindowJob, RegWindowMMU, RegWindowFlush, RegWindowDoorbell}

// GPU control (panthor register header).
const (
	RegGPUID         uint32 = 0x0
	RegL2Features    uint32 = 0x4
	RegTilerFeatures uint32 = 0xC
	RegMemFeatures   uint32 = 0x10
	RegMMUFeatures   uint32 = 0x14
	RegASPresent     uint32 = 0x18
	RegCSFID         uint32 = 0x1C
	RegGPUIntRaw     uint32 = 0x20
	RegGPUIntClear   uint32 = 0x24
	RegGPUIntMask    uint32 = 0x28
	RegGPUIntStat    uint32 = 0x2C
	RegGPUCommand    uint32 = 0x30
	RegGPUStatus     uint32 = 0x34
	RegFaultStatus   uint32 = 0x3C
	// The 64-bit registers: low half here, high half 4 bytes on.
	RegFaultAddress  uint32 = 0x40
	RegCycleCount    uint32 = 0x90
	RegTimestamp     uint32 = 0x98
	RegShaderPresent uint32 = 0x100
	RegTilerPresent  uint32 = 0x110
	RegL2Present     uint32 = 0x120
	RegShaderReady   uint32 = 0x140
	RegTilerReady    uint32 = 0x150
	RegL2Ready       uint32 = 0x160
	RegShaderPowerOn uint32 = 0x180
	RegTilerPowerOn  uint32 = 0x190
	RegL2PowerOn     uint32 = 0x1A0
	RegShaderPwrOff  uint32 = 0x1C0
	RegTilerPwrOff   uint32 = 0x1D0
	RegL2PwrOff      uint32 = 0x1E0
	RegShaderTrans   uint32 = 0x200
	RegTilerTrans    uint32 = 0x210
	RegL2Trans       uint32 = 0x220
)

// GPU_INT_*: why the GPU interrupt stands.
//
//	0     GPU fault                9   power changed, one domain
//	1     protected mode fault     10  power changed, all domains
//	8     reset done               17  cache clean done
//	18    doorbell mirror          19  MCU status changed
const (
	GPUIntFault           uint32 = 1 << 0
	GPUIntProtectedFault  uint32 = 1 << 1
	GPUIntResetDone       uint32 = 1 << 8
	GPUIntPowerChanged    uint32 = 1 << 9
	GPUIntPowerChangedAll uint32 = 1 << 10
	GPUIntCleanDone       uint32 = 1 << 17
	GPUIntDoorbell        uint32 = 1 << 18
	GPUIntMCUStatus       uint32 = 1 << 19
)

// GPU_CMD: a command for the GPU as a whole.
//
//	7:0   type
//	31:8  payload
const (
	// CommandSoftReset drops everything volatile; ends with GPUIntResetDone.
	CommandSoftReset uint32 = 1 | 1<<8
	CommandHardReset uint32 = 1 | 2<<8
	// commandFlush is the type of a cache flush; ends with GPUIntCleanDone.
	commandFlush uint32 = 4
)

// FlushMode is what a flush does with one cache.
type FlushMode uint8

// The modes. L2 and load/store cache take none, clean, and both; others none and invalidate.
const (
	FlushNone            FlushMode = 0
	FlushClean           FlushMode = 1
	FlushInvalidate      FlushMode = 2
	FlushCleanInvalidate FlushMode = 3
)

// CommandFlush is the GPU_CMD that flushes: payload l2 3:0, lsc 7:4, other 11:8.
func CommandFlush(l2, lsc, other FlushMode) uint32 {
	return commandFlush | uint32(l2&0xF)<<8 | uint32(lsc&0xF)<<12 | uint32(other&0xF)<<16
}

// DecodeCommandFlush undoes CommandFlush; false when it is another command.
func DecodeCommandFlush(v uint32) (l2, lsc, other FlushMode, ok bool) {
	l2, lsc, other = FlushMode(v>>8&0xF), FlushMode(v>>12&0xF), FlushMode(v>>16&0xF)
	return l2, lsc, other, CommandFlush(l2, lsc, other) == v
}

// MCU_CONTROL and MCU_STATUS: the microcontroller that runs the firmware.
const (
	RegMCUControl uint32 = 0x700
	RegMCUStatus  uint32 = 0x704

	MCUControlDisable uint32 = 0
	MCUControlEnable  uint32 = 1
	// MCUControlAuto starts it, and again after each reset.
	MCUControlAuto uint32 = 2

	// MCUDisabled: does nothing; then enabled.
	MCUDisabled uint32 = 0
	// MCUEnabled: serves; then halted, fatal or disabled.
	MCUEnabled uint32 = 1
	// MCUHalted: came to rest on request; then disabled.
	MCUHalted uint32 = 2
	// MCUFatal: crashed; the interface is frozen until a reset.
	MCUFatal uint32 = 3
)

// JOB_INT_*: bit n below 31 is CSG slot n, bit 31 the global interface.
const (
	RegJobIntRaw   uint32 = 0x1000
	RegJobIntClear uint32 = 0x1004
	RegJobIntMask  uint32 = 0x1008
	RegJobIntStat  uint32 = 0x100C
	JobIntGlobal   uint32 = 1 << 31
)

// JobIntGroup is the bit of CSG slot n.
func JobIntGroup(slot uint32) uint32 { return 1 << (slot & 31) }

// MMU_INT_*: bit n is a fault in address space n, bit 16+n a command of it that ended.
const (
	RegMMUIntRaw   uint32 = 0x2000
	RegMMUIntClear uint32 = 0x2004
	RegMMUIntMask  uint32 = 0x2008
	RegMMUIntStat  uint32 = 0x200C
)

// MMUIntFault and MMUIntDone are the bits of address space n.
func MMUIntFault(as uint32) uint32 { return 1 << (as & 15) }

// MMUIntDone is the bit that says that a command of an address space has ended.
func MMUIntDone(as uint32) uint32 { return 1 << (16 + as&15) }

// The registers of one address space, from ASBase on; the first two and
// RegASFaultAddress are 64 bits wide. TRANSTAB holds, instead of page tables, the
// device address of an address space table (package hw); 0 disables. A table takes
// effect with ASCommandUpdate, its changes with FLUSH_PT, FLUSH_MEM or UNLOCK.
const (
	RegASTransTab     uint32 = 0x00
	RegASMemAttr      uint32 = 0x08
	RegASLockAddress  uint32 = 0x10
	RegASCommand      uint32 = 0x18
	RegASFaultStatus  uint32 = 0x1C
	RegASFaultAddress uint32 = 0x20
	RegASStatus       uint32 = 0x28
	RegASTransConfig  uint32 = 0x30

	// ASMax is the number of address spaces that the registers have room for; 0 is the MCU's.
	ASMax = 16
	// ASStatusBusy stands from the store of a command until it has ended.
	ASStatusBusy uint32 = 1
)

// ASBase is where the registers of address space n begin.
func ASBase(as uint32) uint32 { return 0x2400 + as*0x40 }

// Values of AS_COMMAND.
const (
	ASCommandNop      uint32 = 0
	ASCommandUpdate   uint32 = 1
	ASCommandLock     uint32 = 2
	ASCommandUnlock   uint32 = 3
	ASCommandFlushPT  uint32 = 4
	ASCommandFlushMem uint32 = 5
)

// RegLatestFlush is the number of the last flush.
const RegLatestFlush uint32 = 0x10000

// Doorbells. 0 is the kernel's; a user doorbell makes the streams that are
// configured to it read INSERT again. Any value may be written; 1 is usual.
const (
	DoorbellStride uint32 = 0x10000
	// DoorbellsMax is what we map: one for each of 31 slots, and the kernel's.
	DoorbellsMax uint32 = 32
)

// RegDoorbell is the register of doorbell i.
func RegDoorbell(i uint32) uint32 { return RegWindowDoorbell + i*DoorbellStride }

// What the bus does with stores and loads by itself, as package hw takes it.
var (
	// RegInterrupts are the interrupt blocks: raw, clear, mask, status. A store to
	// clear takes bits out of raw; status reads as raw and mask.
	RegInterrupts = [...][4]uint32{
		{RegGPUIntRaw, RegGPUIntClear, RegGPUIntMask, RegGPUIntStat},
		{RegJobIntRaw, RegJobIntClear, RegJobIntMask, RegJobIntStat},
		{RegMMUIntRaw, RegMMUIntClear, RegMMUIntMask, RegMMUIntStat},
	}
	// RegCommands are the registers of which a store makes another one read as busy:
	// command, status, busy bits.
	RegCommands = func() (c [ASMax][3]uint32) {
		for as := range uint32(ASMax) {
			c[as] = [3]uint32{ASBase(as) + RegASCommand, ASBase(as) + RegASStatus, ASStatusBusy}
		}
		return c
	}()
	// DoorbellRow says that doorbells of a page each share the first one's
	// window, word by word: base, stride, count.
	DoorbellRow = [3]uint32{RegWindowDoorbell, DoorbellStride, DoorbellsMax}
)

// AccessType says what an access was, in AS_FAULTSTATUS.
type AccessType uint8

// The types.
const (
	AccessAtomic  AccessType = 0
	AccessExecute AccessType = 1
	AccessRead    AccessType = 2
	AccessWrite   AccessType = 3
)

// ASFault is a value of AS_FAULTSTATUS.
//
//	7:0    exception
//	9:8    access
//	31:16  source id
type ASFault struct {
	Exception Exception
	Access    AccessType
	Source    uint16
}

// Encode is the register value.
func (f ASFault) Encode() uint32 {
	return uint32(f.Exception) | uint32(f.Access&3)<<8 | uint32(f.Source)<<16
}

// DecodeASFault reads a register value.
func DecodeASFault(v uint32) ASFault {
	return ASFault{Exception(v), AccessType(v >> 8 & 3), uint16(v >> 16)}
}
