package abi

import "fmt"

// Pending are the bits in which request and acknowledgement differ.
func Pending(req, ack uint32) uint32 { return req ^ ack }

// Toggle makes req differ from ack in the bits, and nowhere else; bits that
// differ already stay as they are.
func Toggle(req, ack, bits uint32) uint32 { return req&^bits | ^ack&bits }

// Acknowledge makes ack equal to req in the bits.
func Acknowledge(ack, req, bits uint32) uint32 { return ack&^bits | req&bits }

// SetField puts a value into a field of a word.
func SetField(word, mask, value uint32) uint32 { return word&^mask | value&mask }

// Version is the version of the interface: major 31:24, minor 23:16, patch 15:0.
type Version struct {
	Major, Minor uint8
	Patch        uint16
}

// Encode is the word.
func (v Version) Encode() uint32 {
	return uint32(v.Major)<<24 | uint32(v.Minor)<<16 | uint32(v.Patch)
}

// DecodeVersion reads the word.
func DecodeVersion(v uint32) Version { return Version{uint8(v >> 24), uint8(v >> 16), uint16(v)} }

// String is major.minor.patch.
func (v Version) String() string { return fmt.Sprintf("%d.%d.%d", v.Major, v.Minor, v.Patch) }

// CSFeatures is what a stream can do: work registers minus one 7:0,
// scoreboards 15:8, then a bit for compute, fragment and tiler work.
type CSFeatures struct {
	Registers   uint16 // 1 to 256.
	Scoreboards uint8
	Compute     bool
	Fragment    bool
	Tiler       bool
}

// Encode is the word.
func (c CSFeatures) Encode() uint32 {
	return uint32(uint8(c.Registers-1)) | uint32(c.Scoreboards)<<8 | flag(c.Compute, 16) | flag(c.Fragment, 17) | flag(c.Tiler, 18)
}

// DecodeCSFeatures reads the word.
func DecodeCSFeatures(v uint32) CSFeatures {
	return CSFeatures{uint16(v&0xFF) + 1, uint8(v >> 8), v>>16&1 != 0, v>>17&1 != 0, v>>18&1 != 0}
}

func flag(set bool, bit uint) uint32 {
	if set {
		return 1 << bit
	}
	return 0
}

// Endpoints is a value of EP_REQ: what a group may use at most, and its priority.
//
//	7:0    compute     15:8   fragment     19:16  tiler
//	20     exclusive compute               21     exclusive fragment
//	31:28  priority, higher wins
type Endpoints struct {
	Compute, Fragment, Tiler             uint8
	ExclusiveCompute, ExclusiveFragments bool
	Priority                             uint8
}

// Encode is the word.
func (e Endpoints) Encode() uint32 {
	return uint32(e.Compute) | uint32(e.Fragment)<<8 | uint32(e.Tiler&0xF)<<16 |
		flag(e.ExclusiveCompute, 20) | flag(e.ExclusiveFragments, 21) | uint32(e.Priority&0xF)<<28
}

// DecodeEndpoints reads the word.
func DecodeEndpoints(v uint32) Endpoints {
	return Endpoints{uint8(v), uint8(v >> 8), uint8(v >> 16 & 0xF), v>>20&1 != 0, v>>21&1 != 0, uint8(v >> 28)}
}

// GroupConfigAS is the address space in CSG_CONFIG, 3:0.
func GroupConfigAS(v uint32) uint32 { return v & 0xF }

// StreamConfigWord is CS_CONFIG: priority 3:0, user doorbell 15:8.
func StreamConfigWord(priority, doorbell uint8) uint32 {
	return uint32(priority&0xF) | uint32(doorbell)<<8
}

// DecodeStreamConfig reads CS_CONFIG.
func DecodeStreamConfig(v uint32) (priority, doorbell uint8) { return uint8(v & 0xF), uint8(v >> 8) }

// Timer is a value of the power-off and idle timers: 30:0 in units of 1024
// ticks, bit 31 says of what.
type Timer struct {
	Units uint32
	// Cycles: of the GPU, not of the system timestamp.
	Cycles bool
}

// TimerUnit is the number of ticks in one unit of the timers, PROGRESS_TIMER included.
const TimerUnit = 1024

// Encode is the word.
func (t Timer) Encode() uint32 { return t.Units&0x7FFFFFFF | flag(t.Cycles, 31) }

// DecodeTimer reads the word.
func DecodeTimer(v uint32) Timer { return Timer{v & 0x7FFFFFFF, v>>31 != 0} }

// TimerUnits converts microseconds into units, rounded up; rate is in ticks per second.
func TimerUnits(microseconds, rate uint64) uint32 {
	const micro = 1_000_000
	return uint32((microseconds*rate + micro*TimerUnit - 1) / (micro * TimerUnit))
}

// WaitStatus is a value of CS_STATUS_WAIT.
//
//	15:0   scoreboards waited for   19:16  why: 0 none, 8 a WAIT
//	27:24  condition of a sync wait 28     progress wait
//	29     protected mode pending   30     the sync object is 64 bits wide
//	31     sync wait
type WaitStatus struct {
	Scoreboards         uint16
	Source              uint8
	Condition           Condition
	Progress, Protected bool
	Sync64, Sync        bool
}

// WaitSourceWait is the Source of a WAIT instruction.
const WaitSourceWait uint8 = 8

// Encode is the word.
func (w WaitStatus) Encode() uint32 {
	return uint32(w.Scoreboards) | uint32(w.Source&0xF)<<16 | uint32(w.Condition&0xF)<<24 |
		flag(w.Progress, 28) | flag(w.Protected, 29) | flag(w.Sync64, 30) | flag(w.Sync, 31)
}

// DecodeWaitStatus reads the word.
func DecodeWaitStatus(v uint32) WaitStatus {
	return WaitStatus{uint16(v), uint8(v >> 16 & 0xF), Condition(v >> 24 & 0xF), v>>28&1 != 0, v>>29&1 != 0, v>>30&1 != 0, v>>31 != 0}
}

// BlockedReason is a value of CS_STATUS_BLOCKED_REASON.
type BlockedReason uint32

// The reasons.
const (
	// Unblocked: it runs, or has nothing to do.
	Unblocked BlockedReason = iota
	BlockedScoreboard
	BlockedProgress
	BlockedSync
	// BlockedDeferred: there is no room for another deferred operation.
	BlockedDeferred
	BlockedResource
	BlockedFlush
)

// String names the reason.
func (r BlockedReason) String() string {
	names := [...]string{"unblocked", "scoreboard", "progress", "sync", "deferred", "resource", "flush"}
	if int(r) < len(names) {
		return names[r]
	}
	return fmt.Sprintf("blocked %d", uint32(r))
}

// ResourceStatus is CS_STATUS_REQ_RESOURCE: requested 3:0 (bits of
// Resources), granted 19:16.
func ResourceStatus(requested, granted Resources) uint32 {
	return uint32(requested&0xF) | uint32(granted&0xF)<<16
}

// DecodeResourceStatus undoes ResourceStatus.
func DecodeResourceStatus(v uint32) (requested, granted Resources) {
	return Resources(v & 0xF), Resources(v >> 16 & 0xF)
}
