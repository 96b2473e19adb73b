package abi

import "fmt"

// KLVKey names a key-length-value entry.
type KLVKey uint16

// The keys of SELF_CFG. Addresses are 64 bits (length 2), sizes 32 bits in bytes (length 1).
const (
	KLVMemoryIRQStatus KLVKey = 0x0900
	KLVMemoryIRQSource KLVKey = 0x0901
	KLVH2GAddress      KLVKey = 0x0902
	KLVH2GDescriptor   KLVKey = 0x0903
	KLVH2GSize         KLVKey = 0x0904
	KLVG2HAddress      KLVKey = 0x0905
	KLVG2HDescriptor   KLVKey = 0x0906
	KLVG2HSize         KLVKey = 0x0907
)

// The keys of UPDATE_CONTEXT_POLICIES; each has length 1.
const (
	// KLVExecutionQuantum in µs; 0 = never expires.
	KLVExecutionQuantum KLVKey = 0x2001
	// KLVPreemptionTimeout in µs; 0 = never force.
	KLVPreemptionTimeout KLVKey = 0x2002
	// KLVPriority 0 kernel high, 1 high, 2 kernel normal, 3 normal; 0 is strongest.
	KLVPriority KLVKey = 0x2003
	// KLVPreemptToIdle 0 or 1: leave the engine at the end of a quantum although nobody waits.
	KLVPreemptToIdle KLVKey = 0x2004
	// KLVFrequency is a hint; bit 28 says that the work is compute.
	KLVFrequency KLVKey = 0x2005
)

// Other keys.
const (
	// KLVRenderComputeYield of UPDATE_SCHEDULING_POLICIES: duration in ms, ratio in %.
	KLVRenderComputeYield KLVKey = 0x1001
	// KLVGMDID and KLVGroupScheduling are read with QUERY_SINGLE_KLV.
	KLVGMDID           KLVKey = 0x3000
	KLVGroupScheduling KLVKey = 0x3001
	// KLVExtendedCATType and KLVDynamicICS of OPT_IN_FEATURE have length 0.
	KLVExtendedCATType KLVKey = 0x4001
	KLVDynamicICS      KLVKey = 0x4003
)

// PolicyMaxUS is the largest quantum or preemption timeout that the firmware
// takes, 100 s in µs; larger values are clamped.
const PolicyMaxUS = 100_000_000

// KLV is one entry: a header dword and its value.
//
//	31:16  KEY
//	15:0   LEN     dwords of the value
type KLV struct {
	Key   KLVKey
	Value []uint32
}

// Word makes an entry of one dword.
func Word(key KLVKey, value uint32) KLV { return KLV{Key: key, Value: []uint32{value}} }

// AppendKLVs appends the entries' dwords.
func AppendKLVs(dst []uint32, list []KLV) []uint32 {
	for _, k := range list {
		dst = append(dst, uint32(k.Key)<<16|uint32(len(k.Value))&0xFFFF)
		dst = append(dst, k.Value...)
	}
	return dst
}

// ParseKLVs decodes a list that fills dw to its end. The error's code is ErrorMalformedKLV.
func ParseKLVs(dw []uint32) ([]KLV, error) {
	var list []KLV
	for i := 0; i < len(dw); {
		key, length := KLVKey(dw[i]>>16), int(dw[i]&0xFFFF)
		i++
		if length > len(dw)-i {
			return nil, wire(ErrorMalformedKLV, "klv %#x: length %d, but %d dwords left", key, length, len(dw)-i)
		}
		list = append(list, KLV{Key: key, Value: clone(dw[i : i+length])})
		i += length
	}
	return list, nil
}

var keyNames = map[KLVKey]string{
	KLVMemoryIRQStatus: "irq-status", KLVMemoryIRQSource: "irq-source", KLVH2GAddress: "h2g-address", KLVH2GDescriptor: "h2g-descriptor",
	KLVH2GSize: "h2g-size", KLVG2HAddress: "g2h-address", KLVG2HDescriptor: "g2h-descriptor", KLVG2HSize: "g2h-size",
	KLVExecutionQuantum: "quantum-us", KLVPreemptionTimeout: "preemption-us", KLVPriority: "priority", KLVPreemptToIdle: "preempt-to-idle",
	KLVFrequency: "frequency", KLVRenderComputeYield: "render-compute-yield", KLVGMDID: "gmd-id", KLVGroupScheduling: "group-scheduling",
	KLVExtendedCATType: "extended-cat-type", KLVDynamicICS: "dynamic-ics",
}

// String names the key, or gives its number.
func (k KLVKey) String() string {
	if name := keyNames[k]; name != "" {
		return name
	}
	return fmt.Sprintf("%#04x", uint16(k))
}

// String is the entry as a person reads it.
func (k KLV) String() string {
	switch len(k.Value) {
	case 0:
		return k.Key.String()
	case 1:
		return fmt.Sprintf("%s=%d", k.Key, k.Value[0])
	}
	return fmt.Sprintf("%s=%d", k.Key, head(k.Value))
}
