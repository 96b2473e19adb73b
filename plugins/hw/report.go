package hw

import (
	"encoding/binary"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// Status is where a dispatch stands, written by the firmware only.
type Status uint32

// The statuses.
const (
	// StatusIdle was not begun; then running or fault.
	StatusIdle Status = iota
	// StatusRunning is on an engine; then preempted, done or fault.
	StatusRunning
	// StatusPreempted left the engine at a workgroup boundary and can go on; then running.
	StatusPreempted
	// StatusDone ran to its end; final.
	StatusDone
	// StatusFault misbehaved, Cause and Detail say how; final.
	StatusFault
)

// String names the status.
func (s Status) String() string {
	names := [...]string{"idle", "running", "preempted", "done", "fault"}
	if int(s) < len(names) {
		return names[s]
	}
	return fmt.Sprintf("status %d", uint32(s))
}

// Cause says how a dispatch misbehaved.
type Cause uint32

// The causes.
const (
	// CauseNone: it did not.
	CauseNone Cause = iota
	// CauseTrap: the kernel did something its engine forbids.
	CauseTrap
	// CauseMemory: the kernel needed more memory than its limits allow, or an
	// address is not in the address space.
	CauseMemory
	// CauseHang: no preemption point was reached within the deadline.
	CauseHang
	// CauseKernel: the kernel could not be loaded or has no such entry.
	CauseKernel
	// CauseDescriptor: the descriptor, its arguments or the ring are malformed.
	CauseDescriptor
	// CauseEngine: the engine refused or failed without blaming the kernel.
	CauseEngine
)

// String names the cause.
func (c Cause) String() string {
	names := [...]string{"none", "trap", "memory", "hang", "kernel", "descriptor", "engine"}
	if int(c) < len(names) {
		return names[c]
	}
	return fmt.Sprintf("cause %d", uint32(c))
}

// DetailMax is the longest fault text in bytes; longer ones are cut.
const DetailMax = 128

// Report is the firmware half of a dispatch descriptor, at ReportOffset:
//
//	offset size  field
//	0x00   4     status
//	0x04   4     cause
//	0x08   8     workgroups done of the range [first, first+count), as a prefix
//	0x10   8     workgroups that the engine executed
//	0x18   8     time in execution, in nanoseconds
//	0x20   128   fault text, padded with NUL
//	0xa0   96    reserved, 0
//
// The host zeroes it when it makes the descriptor. The firmware writes
// word by word, the status last; while the status is running, done, executed
// and time are samples and rise.
type Report struct {
	Status       Status
	Cause        Cause
	Done         uint64
	Executed     uint64
	ExecutedTime time.Duration
	Detail       string
}

const reportSize = DispatchSize - ReportOffset

// DecodeReport reads a firmware half. count is that of the host half; more
// done than that, an unknown status or cause, or a negative time is an error
// (*DescriptorError).
func DecodeReport(b []byte, count uint64) (Report, error) {
	bad := func(field, format string, args ...any) (Report, error) {
		return Report{}, &DescriptorError{"dispatch report", field, fmt.Sprintf(format, args...)}
	}
	if len(b) < reportSize {
		return bad("size", "%d bytes", len(b))
	}
	le := binary.LittleEndian
	r := Report{
		Status: Status(le.Uint32(b)), Cause: Cause(le.Uint32(b[4:])),
		Done: le.Uint64(b[8:]), Executed: le.Uint64(b[0x10:]), ExecutedTime: time.Duration(le.Uint64(b[0x18:])),
	}
	if r.Status > StatusFault {
		return bad("status", "%d", uint32(r.Status))
	}
	if r.Cause > CauseEngine {
		return bad("cause", "%d", uint32(r.Cause))
	}
	if r.Done > count {
		return bad("done", "%d of %d", r.Done, count)
	}
	if r.ExecutedTime < 0 {
		return bad("time", "%d", uint64(r.ExecutedTime))
	}
	text, _, _ := strings.Cut(string(b[0x20:0x20+DetailMax]), "\x00")
	r.Detail = strings.ToValidUTF8(text, "?")
	return r, nil
}

// ReadReport reads the report of the descriptor at a device address, word by
// word, the status first: when it says done or fault, the rest is final.
// Errors wrap ErrBounds or are *DescriptorError.
func ReadReport(a *Arena, addr, count uint64) (Report, error) {
	if err := checkDispatch(a, addr); err != nil {
		return Report{}, err
	}
	words, err := a.Words(addr+ReportOffset, reportSize/4)
	if err != nil {
		return Report{}, fmt.Errorf("read dispatch report: %w", err)
	}
	var b [reportSize]byte
	for i := range words.Len() {
		binary.LittleEndian.PutUint32(b[4*i:], words.Load(i))
	}
	// The three counters are 64 bits wide and may be changing: read them whole.
	for off := uint64(0x08); off <= 0x18; off += 8 {
		v, err := a.Load64(addr + ReportOffset + off)
		if err != nil {
			return Report{}, err
		}
		binary.LittleEndian.PutUint64(b[off:], v)
	}
	return DecodeReport(b[:], count)
}

// WriteReport writes the report of the descriptor at a device address, the
// status last. Only the firmware calls it. Errors wrap ErrBounds.
func WriteReport(a *Arena, addr uint64, r Report) error {
	if err := checkDispatch(a, addr); err != nil {
		return err
	}
	base := addr + ReportOffset
	var text [DetailMax]byte
	copy(text[:], cutText(r.Detail, DetailMax))
	for i := uint64(0); i < DetailMax; i += 8 {
		if err := a.Store64(base+0x20+i, binary.LittleEndian.Uint64(text[i:])); err != nil {
			return err
		}
	}
	if err := WriteProgress(a, addr, r.Done, r.Executed, r.ExecutedTime); err != nil {
		return err
	}
	if err := a.Store32(base+4, uint32(r.Cause)); err != nil {
		return err
	}
	return a.Store32(base, uint32(r.Status))
}

// WriteProgress updates the three counters of a running dispatch and leaves
// the rest alone. Only the firmware calls it. Errors wrap ErrBounds.
func WriteProgress(a *Arena, addr, done, executed uint64, executedTime time.Duration) error {
	if err := checkDispatch(a, addr); err != nil {
		return err
	}
	for i, v := range [...]uint64{done, executed, uint64(executedTime)} {
		if err := a.Store64(addr+ReportOffset+0x08+8*uint64(i), v); err != nil {
			return err
		}
	}
	return nil
}

// checkDispatch reports whether a whole, aligned descriptor lies at addr.
func checkDispatch(a *Arena, addr uint64) error {
	if _, err := a.Bytes(addr, DispatchSize); err != nil || addr%DispatchAlign != 0 {
		return fmt.Errorf("dispatch descriptor at %#x: %w", addr, ErrBounds)
	}
	return nil
}

// cutText returns at most size bytes of s without splitting a character.
func cutText(s string, size int) string {
	if len(s) <= size {
		return s
	}
	for size > 0 && !utf8.RuneStart(s[size]) {
		size--
	}
	return s[:size]
}
