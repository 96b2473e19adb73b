package abi

import "fmt"

// Exception is a code in bits 7:0 of CS_FAULT, CS_FATAL and AS_FAULTSTATUS
// (panthor's and Mesa's lists of Mali exceptions).
type Exception uint8

// Codes that report no fault.
const (
	ExceptionOK         Exception = 0x00
	ExceptionTerminated Exception = 0x04
	ExceptionEureka     Exception = 0x06
	ExceptionActive     Exception = 0x08
)

// Codes of CS_FATAL: the stream halts until its group is terminated.
const (
	ExceptionConfig Exception = 0x40
	// ExceptionUnrecoverable makes the host reset the GPU.
	ExceptionUnrecoverable      Exception = 0x41
	ExceptionEndpoint           Exception = 0x44
	ExceptionBus                Exception = 0x48
	ExceptionInvalidInstruction Exception = 0x49
	ExceptionCallStack          Exception = 0x4A
	ExceptionFirmware           Exception = 0x68
)

// Codes of CS_FAULT: the stream goes on when the host has acknowledged.
const (
	ExceptionKaboom             Exception = 0x05
	ExceptionResourceTerminated Exception = 0x0F
	ExceptionInherit            Exception = 0x4B
	ExceptionInvalidPC          Exception = 0x50
	ExceptionInvalidEncoding    Exception = 0x51
	ExceptionBarrier            Exception = 0x55
	ExceptionDataInvalid        Exception = 0x58
	ExceptionTileRange          Exception = 0x59
	ExceptionAddressRange       Exception = 0x5A
	ExceptionImprecise          Exception = 0x5B
	ExceptionOutOfMemory        Exception = 0x60
	ExceptionEvictionTimeout    Exception = 0x69
)

// Codes of the GPU's bus and the MMU; those of a level are the first of their range.
const (
	ExceptionGPUBus Exception = 0x80
	// ExceptionShareability to 0x8A.
	ExceptionShareability Exception = 0x88
	// ExceptionTranslation to 0xC4: nothing is mapped; 0xC3 is the level of pages.
	ExceptionTranslation     Exception = 0xC0
	ExceptionTranslationPage Exception = 0xC3
	// ExceptionPermission to 0xCB: mapped, but not for this access.
	ExceptionPermission     Exception = 0xC8
	ExceptionPermissionPage Exception = 0xCB
	ExceptionAccessFlag     Exception = 0xD9
	ExceptionAddressSize    Exception = 0xE4
	ExceptionMemAttr        Exception = 0xE8
)

var exceptionNames = map[Exception]string{
	ExceptionOK: "OK", ExceptionTerminated: "TERMINATED", ExceptionKaboom: "KABOOM", ExceptionEureka: "EUREKA",
	ExceptionActive: "ACTIVE", ExceptionResourceTerminated: "CS_RESOURCE_TERMINATED",
	ExceptionConfig: "CS_CONFIG_FAULT", ExceptionUnrecoverable: "CS_UNRECOVERABLE", ExceptionEndpoint: "CS_ENDPOINT_FAULT",
	ExceptionBus: "CS_BUS_FAULT", ExceptionInvalidInstruction: "CS_INVALID_INSTRUCTION", ExceptionCallStack: "CS_CALL_STACK_OVERFLOW",
	ExceptionInherit: "CS_INHERIT_FAULT", ExceptionInvalidPC: "INSTR_INVALID_PC", ExceptionInvalidEncoding: "INSTR_INVALID_ENC",
	ExceptionBarrier: "INSTR_BARRIER_FAULT", ExceptionDataInvalid: "DATA_INVALID_FAULT", ExceptionTileRange: "TILE_RANGE_FAULT",
	ExceptionAddressRange: "ADDR_RANGE_FAULT", ExceptionImprecise: "IMPRECISE_FAULT", ExceptionOutOfMemory: "OOM",
	ExceptionFirmware: "FIRMWARE_INTERNAL_ERROR", ExceptionEvictionTimeout: "CS_RESOURCE_EVICTION_TIMEOUT", ExceptionGPUBus: "GPU_BUS_FAULT",
}

// ranges are the codes that carry a level in their low bits.
var ranges = [...]struct {
	first, last Exception
	name        string
}{
	{0x88, 0x8A, "GPU_SHAREABILITY_FAULT"}, {0xC0, 0xC4, "TRANSLATION_FAULT"}, {0xC8, 0xCB, "PERMISSION_FAULT"},
	{0xD9, 0xDB, "ACCESS_FLAG"}, {0xE0, 0xE7, "ADDRESS_SIZE_FAULT"}, {0xE8, 0xEB, "MEMORY_ATTRIBUTE_FAULT"},
}

// String names the code, with its level where it has one.
func (e Exception) String() string {
	if name, ok := exceptionNames[e]; ok {
		return name
	}
	for _, r := range ranges {
		if e >= r.first && e <= r.last {
			return fmt.Sprintf("%s_%d", r.name, e-r.first)
		}
	}
	return fmt.Sprintf("EXCEPTION_%#02x", uint8(e))
}

// MMU reports whether the code is of the address translation.
func (e Exception) MMU() bool { return e >= ExceptionTranslation }

// Fault is a value of CS_FAULT or CS_FATAL.
//
//	7:0   exception
//	31:8  data
type Fault struct {
	Exception Exception
	Data      uint32
}

// Encode is the word.
func (f Fault) Encode() uint32 { return uint32(f.Exception) | f.Data<<8 }

// DecodeFault reads a word.
func DecodeFault(v uint32) Fault { return Fault{Exception(v), v >> 8} }
