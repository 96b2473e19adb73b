package fw_test

import (
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/plugins/agx/abi"
)

// TestQueueInfo: what the firmware keeps in a QueueInfo, which is its own: the event slot, what is fetched, what is
// pending, whether a command runs, how many errors there were.
func TestQueueInfo(t *testing.T) {
	h := newPlanned(t, "command nth=3 channel-error=1", nil)
	q, other := h.queue(2, 7, 1), h.queue(3, 8, 2)
	expect := func(when string, q *queue, slot int32, read, busy, pending, errors uint32) {
		t.Helper()
		var m abi.QueueInfo
		if err := h.abi.Decode(h.bytes(q.info, h.abi.Size(&m)), &m); err != nil {
			t.Fatal(err)
		}
		if m.EventSlot != slot || m.Read1 != read || m.Read2 != read || m.Read3 != read || m.Busy != busy || m.Pending != pending || m.ErrorCount != errors {
			t.Errorf("%s: %+v", when, m)
		}
	}
	expect("nobody was told", q, -1, 0, 0, 0, 0)
	var value uint32
	for range 3 {
		value = q.command(h.dispatch("workgroup=1ms", 2), nil)
	}
	q.expect(3)
	q.kick()
	other.submit("workgroup=1ms", 1)
	expect("the first one runs", q, 7, 1, 1, 3, 0)
	expect("it waits for the pipe", other, 8, 0, 0, 1, 0)
	h.advance(2 * time.Millisecond)
	expect("the second one runs", q, 7, 2, 1, 2, 0)
	h.advance(2 * time.Millisecond)
	expect("the third one is stopped", q, 7, 3, 0, 1, 1)
	expect("its turn", other, 8, 1, 1, 1, 0)
	h.do(&abi.RecoverChannel{Pipe: uint32(abi.PipeCompute), Queue: q.info, Value: value})
	h.advance(2 * time.Millisecond)
	expect("nothing is left", q, 7, 3, 0, 0, 1)
	q.slot, q.value = 9, h.stamp(9)
	q.submit("workgroup=1ms", 1)
	expect("another slot", q, 9, 4, 1, 1, 1)
	h.do(other.end())
	if c := h.fw.Counters(); c.Violations > 0 || c.Misuses > 0 {
		t.Errorf("%+v", c)
	}
}
