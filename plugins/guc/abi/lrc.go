package abi

// A logical ring context (LRC) is one buffer in the GGTT, here LRCSize bytes:
//
//	0x0000 ring            16 KiB of commands
//	0x4000 PPHWSP           4 KiB per-process hardware status page
//	0x5000 register page    4 KiB, first page of the context image
//
// The LRC descriptor names the GGTT page of the PPHWSP, so an LRC lies below 4 GiB.
const (
	RingSize       = 16 << 10
	RingDwords     = RingSize / 4
	PPHWSPOffset   = RingSize
	RegisterOffset = PPHWSPOffset + 4096
	LRCSize        = RegisterOffset + 4096
	GGTTMax        = 1 << 32
)

// Byte offsets in the PPHWSP's driver area.
const (
	PPHWSPSeqno        = 512
	PPHWSPStartSeqno   = 520
	PPHWSPJobTimestamp = 528
	PPHWSPEngineID     = 1024
)

// Dword indices of values in the register page. Head and tail are byte offsets
// in the ring, the tail a multiple of 8.
const (
	RegContextControl = 0x03
	RegRingHead       = 0x05
	RegRingTail       = 0x07
	RegRingStart      = 0x09
	RegRingControl    = 0x0B
	RegTimestampLo    = 0x23
	RegTimestampHi    = 0x25
	RegASID           = 0x2F
	RegPDP0Hi         = 0x31
	RegPDP0Lo         = 0x33
)

// Masks of the ring registers, and what RegRingControl holds for a ring of RingSize.
const (
	RingHeadMask        = 0x1FFFFC
	RingTailMask        = 0x1FFFF8
	RingTailAlign       = 8
	RingControlValid    = 1
	RingControl         = RingSize - 4096 | RingControlValid
	RegisterTimestamp   = 0x3A8
	FirstSeqno          = ^uint32(126) // −127, so that the wrap comes early.
	lrcDescValid        = 1
	lrcDescAddressing   = 3 << 3
	lrcDescPrivateSpace = 1 << 8
	lrcDescPage         = 0xFFFFF000
)

// LRCDescriptor is the 64-bit name of an LRC.
//
//	0     valid
//	4:3   addressing, 3
//	8     per-process address space
//	10:9  multi-queue priority (0)
//	31:12 GGTT page of the PPHWSP
type LRCDescriptor struct {
	// LRC is the GGTT address of the buffer, a multiple of 4096, below 4 GiB.
	LRC uint64
	// PrivateSpace says that the context has an address space of its own (PDP0).
	PrivateSpace bool
}

// Encode returns the descriptor.
func (d LRCDescriptor) Encode() uint64 {
	v := (d.LRC+PPHWSPOffset)&lrcDescPage | lrcDescAddressing | lrcDescValid
	if d.PrivateSpace {
		v |= lrcDescPrivateSpace
	}
	return v
}

// DecodeLRCDescriptor refuses descriptors that are not valid, have other
// bits set, or whose ring would start below 0.
func DecodeLRCDescriptor(v uint64) (LRCDescriptor, error) {
	known := uint64(lrcDescPage | lrcDescAddressing | lrcDescValid | lrcDescPrivateSpace)
	page := v & lrcDescPage
	if v&^known != 0 || v&lrcDescValid == 0 || v&lrcDescAddressing != lrcDescAddressing || page < PPHWSPOffset {
		return LRCDescriptor{}, wire(ErrorInvalidGGTT, "lrc descriptor %#x", v)
	}
	return LRCDescriptor{LRC: page - PPHWSPOffset, PrivateSpace: v&lrcDescPrivateSpace != 0}, nil
}

// Passed reports whether the seqno now in memory has reached want: a signed
// 32-bit difference, because seqnos wrap.
func Passed(now, want uint32) bool { return int32(now-want) >= 0 }
