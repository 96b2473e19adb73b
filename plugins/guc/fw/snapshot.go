package fw

import (
	"fmt"
	"hash/crc32"
	"slices"

	"github.com/gpuwm/gpuwm/plugins/guc/abi"
)

// A snapshot is the firmware's state of a paused function, as SAVE_RESTORE_VF
// writes it. Real firmware's is not public; this one is ours:
//
//	0      magic "GWSR"
//	1      version, 1
//	2      length in dwords, this header included
//	3      CRC-32 (IEEE) of what follows, little endian
//	4      flags: 0 engines are not reset, 1 type of CAT errors, 2 CTBs open
//	5      number of contexts
//	6      number of messages that had found no room
//	7..18  CTB addresses and sizes by SELF_CFG key, 0x0902 first, lo and hi each
//	19,20  H2G HEAD, G2H TAIL when it was made (the descriptors' go on meanwhile, where owner and guest share the rings)
//	21..   contexts of snapshotContext dwords, by rising guc_id
//	then   messages, header dword first
//
// A context:
//
//	0     guc_id
//	1     1:0 state (0 disabled, 1 enabled, 2 reset), 2 private address space, 3 preempt to idle
//	2     engine class
//	3     submit mask
//	4     GGTT address of the LRC, a multiple of 4096
//	5     priority
//	6     execution quantum in µs
//	7     preemption timeout in µs
//	8     frequency
//	9     quantum used in µs
//	10    place in the queue of its class and level from 1; 0 when it does not wait
const (
	snapshotMagic   = 'G' | 'W'<<8 | 'S'<<16 | 'R'<<24
	snapshotVersion = 1
	snapshotCRC     = 4 // Where the checked part begins.
	snapshotHeader  = 21
	snapshotContext = 11

	flagNoEngineReset = 1 << 0
	flagExtendedCat   = 1 << 1
	flagOpen          = 1 << 2

	savedDisabled = 0
	savedEnabled  = 1
	savedReset    = 2
	savedPrivate  = 1 << 2
	savedToIdle   = 1 << 3
)

// snapshotKeys are the CTB entries in their order.
var snapshotKeys = [...]abi.KLVKey{abi.KLVH2GAddress, abi.KLVH2GDescriptor, abi.KLVH2GSize, abi.KLVG2HAddress, abi.KLVG2HDescriptor, abi.KLVG2HSize}

// snapshot is a decoded one.
type snapshot struct {
	noEngineReset, extendedCat, open bool
	registered                       [len(snapshotKeys)]uint64
	h2gHead, g2hTail                 uint32
	contexts                         []savedContext
	messages                         [][]uint32
}

// savedContext is one context of a snapshot.
type savedContext struct {
	id       abi.GUCID
	state    uint32
	class    abi.EngineClass
	mask     uint32
	lrc      abi.LRCDescriptor
	policies policies
	usedUS   uint32
	order    uint32
}

// dwords is the length of the encoded snapshot.
func (s *snapshot) dwords() int {
	n := snapshotHeader + snapshotContext*len(s.contexts)
	for _, m := range s.messages {
		n += len(m)
	}
	return n
}

// encode returns the dwords.
func (s *snapshot) encode() []uint32 {
	dw := make([]uint32, snapshotHeader, s.dwords())
	dw[0], dw[1], dw[2] = snapshotMagic, snapshotVersion, uint32(cap(dw))
	dw[4] = flag(s.noEngineReset, flagNoEngineReset) | flag(s.extendedCat, flagExtendedCat) | flag(s.open, flagOpen)
	dw[5], dw[6] = uint32(len(s.contexts)), uint32(len(s.messages))
	for i, v := range s.registered {
		dw[7+2*i], dw[8+2*i] = uint32(v), uint32(v>>32)
	}
	dw[19], dw[20] = s.h2gHead, s.g2hTail
	for _, c := range s.contexts {
		state := c.state | flag(c.lrc.PrivateSpace, savedPrivate) | flag(c.policies.toIdle, savedToIdle)
		dw = append(dw, uint32(c.id), state, uint32(c.class), c.mask, uint32(c.lrc.LRC), c.policies.level,
			c.policies.quantumUS, c.policies.preemptionUS, c.policies.frequency, c.usedUS, c.order)
	}
	for _, m := range s.messages {
		dw = append(dw, m...)
	}
	dw[3] = checksum(dw[snapshotCRC:])
	return dw
}

func flag(set bool, bit uint32) uint32 {
	if set {
		return bit
	}
	return 0
}

// checksum is the CRC-32 of the dwords' bytes.
func checksum(dw []uint32) uint32 {
	var sum uint32
	var b [4]byte
	for _, v := range dw {
		b = [4]byte{byte(v), byte(v >> 8), byte(v >> 16), byte(v >> 24)}
		sum = crc32.Update(sum, crc32.IEEETable, b[:])
	}
	return sum
}

// decodeSnapshot reads a snapshot from the beginning of a buffer; what follows
// it must be zero. Errors are *abi.WireError.
func decodeSnapshot(dw []uint32) (*snapshot, error) {
	bad := func(code abi.ErrorCode, format string, args ...any) (*snapshot, error) {
		return nil, &abi.WireError{What: "snapshot: " + fmt.Sprintf(format, args...), Code: code}
	}
	if len(dw) < snapshotHeader {
		return bad(abi.ErrorInvalidSize, "%d dwords", len(dw))
	}
	switch {
	case dw[0] != snapshotMagic:
		return bad(abi.ErrorInvalidBuffer, "magic %#x", dw[0])
	case dw[1] != snapshotVersion:
		return bad(abi.ErrorUnsupportedVersion, "version %d", dw[1])
	case dw[2] < snapshotHeader || uint64(dw[2]) > uint64(len(dw)):
		return bad(abi.ErrorInvalidSize, "%d dwords of %d", dw[2], len(dw))
	case slices.ContainsFunc(dw[dw[2]:], func(v uint32) bool { return v != 0 }):
		return bad(abi.ErrorInvalidBuffer, "something follows")
	}
	dw = dw[:dw[2]]
	if dw[3] != checksum(dw[snapshotCRC:]) {
		return bad(abi.ErrorInvalidBuffer, "checksum")
	}
	s := &snapshot{noEngineReset: dw[4]&flagNoEngineReset != 0, extendedCat: dw[4]&flagExtendedCat != 0, open: dw[4]&flagOpen != 0,
		h2gHead: dw[19], g2hTail: dw[20]}
	for i := range s.registered {
		s.registered[i] = uint64(dw[7+2*i]) | uint64(dw[8+2*i])<<32
	}
	if s.open && (uint64(s.h2gHead) >= s.registered[2]/4 || uint64(s.g2hTail) >= s.registered[5]/4) {
		return bad(abi.ErrorInvalidBuffer, "HEAD %d, TAIL %d", s.h2gHead, s.g2hTail)
	}
	contexts, messages := dw[5], dw[6]
	rest := dw[snapshotHeader:]
	if dw[4]&^(flagNoEngineReset|flagExtendedCat|flagOpen) != 0 || uint64(contexts)*snapshotContext+uint64(messages)*2 > uint64(len(rest)) {
		return bad(abi.ErrorInvalidBuffer, "flags %#x, %d contexts, %d messages in %d dwords", dw[4], contexts, messages, len(rest))
	}
	next := abi.GUCID(0)
	for ; contexts > 0; contexts-- {
		c, ok := decodeContext(rest)
		if !ok || c.id < next {
			return bad(abi.ErrorInvalidBuffer, "context %d", c.id)
		}
		next = c.id + 1
		s.contexts = append(s.contexts, c)
		rest = rest[snapshotContext:]
	}
	for ; messages > 0; messages-- {
		if len(rest) == 0 {
			return bad(abi.ErrorInvalidBuffer, "%d messages are missing", messages)
		}
		n := int(rest[0]&0xFF) + 1
		if _, err := abi.DecodeCTBHeader(rest[0]); err != nil || n == 1 || n > len(rest) {
			return bad(abi.ErrorInvalidBuffer, "message header %#x", rest[0])
		}
		s.messages = append(s.messages, slices.Clone(rest[:n]))
		rest = rest[n:]
	}
	if len(rest) != 0 {
		return bad(abi.ErrorInvalidBuffer, "%d dwords too many", len(rest))
	}
	return s, nil
}

// decodeContext reads one context; false when a value is out of range.
func decodeContext(dw []uint32) (savedContext, bool) {
	c := savedContext{
		id: abi.GUCID(dw[0]), state: dw[1] & 3, class: abi.EngineClass(dw[2]), mask: dw[3],
		lrc:      abi.LRCDescriptor{LRC: uint64(dw[4]), PrivateSpace: dw[1]&savedPrivate != 0},
		policies: policies{level: dw[5], quantumUS: dw[6], preemptionUS: dw[7], toIdle: dw[1]&savedToIdle != 0, frequency: dw[8]},
		usedUS:   dw[9], order: dw[10],
	}
	return c, c.id < abi.GUCIDMax && dw[1]&^(3|savedPrivate|savedToIdle) == 0 && c.state <= savedReset && c.class < classesMax && c.mask != 0 &&
		c.lrc.LRC%4096 == 0 && c.policies.level < levels && c.policies.quantumUS <= abi.PolicyMaxUS &&
		c.policies.preemptionUS <= abi.PolicyMaxUS && (c.order == 0 || c.state == savedEnabled)
}
