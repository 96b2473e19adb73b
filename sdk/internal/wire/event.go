package wire

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/gpuwm/gpuwm/core"
)

// causes on the wire; the index is the code.
var causes = [...]core.Cause{
	core.CauseNone, core.CauseTrap, core.CauseMemory, core.CauseHang, core.CauseTimeout,
	core.CauseKernel, core.CauseRefused, core.CauseUser, core.CauseEarlier,
	core.CauseDependency, core.CauseBanned, core.CauseDevice, core.CauseImage, core.CauseOutput,
}

// The bits of an event's presence mask, in the order of the fields.
const (
	hasCommand = 1 << iota
	hasJob
	hasDone
	hasExecuted
	hasExecutedTime
	hasCost
	isGuilty
	hasCause
	hasError
	hasReply
	presenceMax = 1<<iota - 1
)

// AppendEvent packs e behind b. A cause outside the closed set becomes
// core.CauseRefused, a sentence beyond ErrorMax is cut, a reply beyond
// PayloadMax is dropped: a backend's slip must not break the stream.
func AppendEvent(b []byte, e *core.BackendEvent) []byte {
	var mask uint64
	set := func(bit uint64, present bool) {
		if present {
			mask |= bit
		}
	}
	set(hasCommand, e.Command != 0)
	set(hasJob, e.Job != 0)
	set(hasDone, e.Done != 0)
	set(hasExecuted, e.Executed != 0)
	set(hasExecutedTime, e.ExecutedTime > 0)
	set(hasCost, e.Cost > 0)
	set(isGuilty, e.Guilty)
	set(hasCause, e.Cause != core.CauseNone)
	set(hasError, e.Error != "")
	set(hasReply, len(e.Reply) > 0 && len(e.Reply) <= PayloadMax)
	b = append(b, byte(e.Kind))
	b = binary.AppendUvarint(b, mask)
	b = binary.AppendUvarint(b, uint64(e.Seq))
	b = binary.AppendUvarint(b, uint64(e.Entity))
	b = binary.AppendUvarint(b, uint64(e.Epoch))
	for _, f := range [...]struct{ bit, v uint64 }{
		{hasCommand, uint64(e.Command)}, {hasJob, uint64(e.Job)}, {hasDone, e.Done},
		{hasExecuted, e.Executed}, {hasExecutedTime, uint64(e.ExecutedTime)}, {hasCost, uint64(e.Cost)},
	} {
		if mask&f.bit != 0 {
			b = binary.AppendUvarint(b, f.v)
		}
	}
	if mask&hasCause != 0 {
		code := slices.Index(causes[:], e.Cause)
		if code < 0 {
			code = slices.Index(causes[:], core.CauseRefused)
		}
		b = append(b, byte(code))
	}
	if mask&hasError != 0 {
		b = appendStr(b, Cut(e.Error))
	}
	if mask&hasReply != 0 {
		b = appendBlob(b, e.Reply)
	}
	return b
}

// DecodeEvents unpacks a batch of numbered events behind out; with progress set,
// a batch of progress samples. The events keep nothing of b.
func DecodeEvents(b []byte, progress bool, out []core.BackendEvent) ([]core.BackendEvent, error) {
	r := reader{b: b}
	n := r.count("count of events", BatchCount)
	out = slices.Grow(out, n)
	for i := 0; i < n && r.err == nil; i++ {
		out = append(out, core.BackendEvent{})
		e := &out[len(out)-1]
		decodeEvent(&r, e)
		if r.err == nil {
			r.err = checkEvent(e, progress)
		}
	}
	if err := r.end("batch of events"); err != nil {
		return nil, err
	}
	return out, nil
}

func decodeEvent(r *reader, e *core.BackendEvent) {
	e.Kind = core.BackendEventKind(r.byte("event kind"))
	mask := r.within("event mask", presenceMax)
	e.Seq = core.EventSeq(r.uvarint("event sequence"))
	e.Entity = core.EntityID(r.uvarint("event entity"))
	e.Epoch = core.Epoch(r.uvarint("event epoch"))
	if mask&hasCommand != 0 {
		e.Command = core.CommandSeq(r.uvarint("event command"))
	}
	if mask&hasJob != 0 {
		e.Job = core.JobID(r.uvarint("event job"))
	}
	if mask&hasDone != 0 {
		e.Done = r.uvarint("event done")
	}
	if mask&hasExecuted != 0 {
		e.Executed = r.uvarint("event executed")
	}
	if mask&hasExecutedTime != 0 {
		e.ExecutedTime = r.duration("event executed time")
	}
	if mask&hasCost != 0 {
		e.Cost = r.duration("event cost")
	}
	e.Guilty = mask&isGuilty != 0
	if mask&hasCause != 0 {
		code := r.byte("event cause")
		if int(code) >= len(causes) {
			r.fail("event cause")
			return
		}
		e.Cause = causes[code]
	}
	if mask&hasError != 0 {
		e.Error = r.str("event error", ErrorMax)
	}
	if mask&hasReply != 0 {
		e.Reply = bytes.Clone(r.blob("event reply", PayloadMax))
	}
}

// checkEvent says whether the fields fit the kind.
func checkEvent(e *core.BackendEvent, progress bool) error {
	ok := e.Kind >= core.EventApplied && e.Kind <= core.EventProgress &&
		(e.Kind == core.EventProgress) == progress && (e.Seq == 0) == progress
	switch e.Kind {
	case core.EventDeviceHealth:
		ok = ok && e.Entity == 0
	case core.EventStarted, core.EventCompleted, core.EventCancelled, core.EventProgress:
		ok = ok && e.Entity != 0 && e.Epoch != 0 && e.Job != 0
	case core.EventApplied, core.EventRefused, core.EventMessageDone, core.EventDestroyed:
		ok = ok && e.Entity != 0 && e.Epoch != 0 && e.Command != 0
	case core.EventEntityLost:
		ok = ok && e.Entity != 0 && e.Epoch != 0
	}
	if !ok {
		return fmt.Errorf("decode event kind %d: fields do not fit: %w", e.Kind, core.ErrCorrupt)
	}
	return nil
}

// Begin empties b and leaves room for the count of a batch, at most BatchCount:
// a uvarint padded to two bytes, so that it can be written last.
func Begin(b []byte) []byte { return append(b[:0], 0, 0) }

// Finish writes the count in front of the items that follow Begin's room, and
// returns the message body. It is valid until the next Begin on the same memory.
func Finish(b []byte, n int) []byte {
	b[0], b[1] = byte(n)|0x80, byte(n>>7)
	return b
}

// PutCount returns one message body: the count of a batch, then its packed items.
func PutCount(items []byte, n int) []byte {
	var head [binary.MaxVarintLen64]byte
	size := binary.PutUvarint(head[:], uint64(n))
	b := make([]byte, 0, size+len(items))
	b = append(b, head[:size]...)
	return append(b, items...)
}
