package wire

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"github.com/gpuwm/gpuwm/core"
)

// causes on the wire; the index is the code.
var causes = [...]core.Cause{
	core.CauseNone, core.CauseTrap, core.CauseMemory, core.CauseHang, core.CauseTimeout,
	core.CauseKernel, core.CauseRefused, core.CauseUser, core.CauseEarlier,
	core.CauseDependency, core.CauseBanned, core.CauseDevice, core.CauseImage, core.CauseOutput,
	core.CauseQueueTimeout,
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

// EventBatch packs events into one message body. The zero value is an empty
// batch; one goroutine uses it at a time.
type EventBatch struct {
	body   []byte
	count  int
	entity core.EntityID
	epoch  core.Epoch
	job    core.JobID
}

// NewEventBatch returns an empty batch that is packed into room as far as its
// capacity goes.
func NewEventBatch(room []byte) EventBatch { return EventBatch{body: room[:0]} }

// Full reports whether no more fits; Append must not be called then.
func (b *EventBatch) Full() bool { return b.count >= BatchCount || len(b.body) >= BatchBytes }

// Count returns how many events are in the batch.
func (b *EventBatch) Count() int { return b.count }

// Body returns the message body. Nothing may be appended after it.
func (b *EventBatch) Body() []byte { return putBatchCount(b.body, b.count) }

// Rest returns the memory behind the body, for the batch that comes next.
func (b *EventBatch) Rest() []byte { return b.body[len(b.body):] }

// Append packs e, whose number follows that of the event before it, or is 0 for
// progress. A cause outside the closed set becomes core.CauseRefused, a sentence
// beyond ErrorMax is cut, a reply beyond PayloadMax is dropped: a backend's slip
// must not break the stream.
func (b *EventBatch) Append(e *core.BackendEvent) {
	out := b.body
	if b.count == 0 {
		out = append(out, 0, 0)
		out = binary.AppendUvarint(out, uint64(e.Seq))
	}
	present := presence(e)
	head := byte(e.Kind) & kindMask
	if b.count > 0 && e.Entity == b.entity && e.Epoch == b.epoch {
		head |= isNext
	}
	if e.Job != 0 && b.job != 0 {
		switch e.Job {
		case b.job:
			head |= isSame
		case b.job + 1:
			head |= isSuccessor
		}
	}
	out = append(out, head)
	out = binary.AppendUvarint(out, present)
	if head&isNext == 0 {
		out = binary.AppendUvarint(out, uint64(e.Entity))
		out = binary.AppendUvarint(out, uint64(e.Epoch))
	}
	if present&hasCommand != 0 {
		out = binary.AppendUvarint(out, uint64(e.Command))
	}
	if present&hasJob != 0 && head&(isSame|isSuccessor) == 0 {
		out = binary.AppendUvarint(out, uint64(e.Job))
	}
	b.entity, b.epoch, b.job = e.Entity, e.Epoch, e.Job
	if present&hasDone != 0 {
		out = binary.AppendUvarint(out, e.Done)
	}
	if present&hasExecuted != 0 {
		out = binary.AppendUvarint(out, e.Executed)
	}
	if present&hasExecutedTime != 0 {
		out = binary.AppendUvarint(out, uint64(e.ExecutedTime))
	}
	if present&hasCost != 0 {
		out = binary.AppendUvarint(out, uint64(e.Cost))
	}
	if present&hasCause != 0 {
		code := slices.Index(causes[:], e.Cause)
		if code < 0 {
			code = slices.Index(causes[:], core.CauseRefused)
		}
		out = append(out, byte(code))
	}
	if present&hasError != 0 {
		out = appendStr(out, Cut(e.Error))
	}
	if present&hasReply != 0 {
		out = appendBlob(out, e.Reply)
	}
	b.body = out
	b.count++
}

// presence says which fields of e have something to say.
func presence(e *core.BackendEvent) (present uint64) {
	if e.Command != 0 {
		present |= hasCommand
	}
	if e.Job != 0 {
		present |= hasJob
	}
	if e.Done != 0 {
		present |= hasDone
	}
	if e.Executed != 0 {
		present |= hasExecuted
	}
	if e.ExecutedTime > 0 {
		present |= hasExecutedTime
	}
	if e.Cost > 0 {
		present |= hasCost
	}
	if e.Guilty {
		present |= isGuilty
	}
	if e.Cause != core.CauseNone {
		present |= hasCause
	}
	if e.Error != "" {
		present |= hasError
	}
	if len(e.Reply) > 0 && len(e.Reply) <= PayloadMax {
		present |= hasReply
	}
	return present
}

// DecodeEvents unpacks a batch of numbered events behind out; with progress set,
// a batch of progress samples. The events keep nothing of b.
func DecodeEvents(b []byte, progress bool, out []core.BackendEvent) ([]core.BackendEvent, error) {
	r := reader{b: b}
	n := r.items("count of events")
	first := core.EventSeq(r.uvarint("number of the first event"))
	if (first == 0) != progress || first > math.MaxUint64-BatchCount {
		r.fail("number of the first event")
	}
	begin := len(out)
	out = extend(out, n)
	var before *core.BackendEvent
	for i := 0; i < n && r.err == nil; i++ {
		e := &out[begin+i]
		if !progress {
			e.Seq = first + core.EventSeq(i)
		}
		decodeEvent(&r, e, before)
		if r.err == nil {
			r.err = checkEvent(e, progress)
		}
		before = e
	}
	if err := r.end("batch of events"); err != nil {
		return nil, err
	}
	return out, nil
}

// decodeEvent unpacks one event; before is the one before it in the batch, nil
// when there is none.
func decodeEvent(r *reader, e, before *core.BackendEvent) {
	head := r.byte("event kind")
	e.Kind = core.BackendEventKind(head & kindMask)
	mask := r.within("event mask", presenceMax)
	if head&isNext == 0 {
		e.Entity = core.EntityID(r.uvarint("event entity"))
		e.Epoch = core.Epoch(r.uvarint("event epoch"))
	} else if before != nil {
		e.Entity, e.Epoch = before.Entity, before.Epoch
	} else {
		r.fail("event flags")
	}
	if mask&hasCommand != 0 {
		e.Command = core.CommandSeq(r.uvarint("event command"))
	}
	e.Job = decodeJob(r, head, mask, before)
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

func decodeJob(r *reader, head byte, mask uint64, before *core.BackendEvent) core.JobID {
	refer := head &^ (kindMask | isNext)
	if refer == 0 {
		if mask&hasJob == 0 {
			return 0
		}
		return core.JobID(r.id("event job"))
	}
	if mask&hasJob != 0 && before != nil && before.Job != 0 {
		switch {
		case refer == isSame:
			return before.Job
		case refer == isSuccessor && before.Job+1 != 0:
			return before.Job + 1
		}
	}
	r.fail("event flags")
	return 0
}

// checkEvent says whether the fields fit the kind.
func checkEvent(e *core.BackendEvent, progress bool) error {
	ok := e.Kind >= core.EventApplied && e.Kind <= core.EventProgress &&
		(e.Kind == core.EventProgress) == progress
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

// putBatchCount writes the count, at most BatchCount, into the two bytes that
// begin a batch: a uvarint padded to two bytes, so that it can be written last.
func putBatchCount(b []byte, n int) []byte {
	if n == 0 {
		return nil
	}
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
