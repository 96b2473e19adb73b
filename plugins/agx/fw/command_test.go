package fw_test

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/plugins/agx/abi"
	"github.com/gpuwm/gpuwm/plugins/agx/fw"
	testengine "github.com/gpuwm/gpuwm/plugins/engine/test"
	"github.com/gpuwm/gpuwm/plugins/hw"
)

// TestJob runs one job in every version.
func TestJob(t *testing.T) {
	for _, v := range append(abi.Versions(), abi.Version{Generation: abi.G13, Firmware: abi.V13_5, QueueInfoM1N1: true}) {
		t.Run(v.String(), func(t *testing.T) {
			h := newReady(t, func(c *fw.Config) { c.Version = v })
			q := h.queue(2, 5, 3)
			work, value := q.submit("workgroup=1ms", 10)
			h.advance(9 * time.Millisecond)
			if r := h.report(work, 10); r.Status != hw.StatusRunning || h.stamp(5) != 0 || h.fw.Idle() {
				t.Fatalf("%+v, stamp %#x", r, h.stamp(5))
			}
			h.advance(time.Millisecond)
			if r := h.report(work, 10); r.Status != hw.StatusDone || r.Done != 10 || r.Executed != 10 || r.ExecutedTime != 10*time.Millisecond {
				t.Errorf("%+v", r)
			}
			want := make([]byte, hw.Granule)
			testengine.Apply(want, 0, 10)
			if got := h.bytes(abi.Address(abi.ClassShared, buffersAt+3*hw.Granule), uint32(hw.Granule)); !bytes.Equal(got, want) {
				t.Error("wrong output")
			}
			if h.stamp(5) != value || h.fwStamp(5) != value || !slices.Equal(h.flags(), []uint32{5}) {
				t.Errorf("stamps %#x %#x, want %#x", h.stamp(5), h.fwStamp(5), value)
			}
			if q.ringState.Load(abi.RingStateDone) != 1 || q.ringState.Load(abi.RingStateRead) != 1 {
				t.Error("ring indices")
			}
			var rc abi.RunCompute
			if err := h.abi.Decode(h.bytes(q.last, h.abi.Size(&rc)), &rc); err != nil {
				t.Fatal(err)
			}
			start, stop := h.words(rc.Start, 8).Load(0), h.words(rc.Stop, 8).Load(0)
			if stop-start != abi.TickHz/100 {
				t.Errorf("timestamps %d and %d", start, stop)
			}
			if c := h.fw.Counters(); c.Started != 1 || c.Retired != 1 || c.Flags != 1 || c.Violations+c.Misuses+c.Halts != 0 || !h.fw.Idle() {
				t.Errorf("%+v", c)
			}
		})
	}
}

// TestStampBeforeEvent looks at the stamp whenever an event is in the ring.
func TestStampBeforeEvent(t *testing.T) {
	h := newReady(t, nil)
	q := h.queue(0, 1, 1)
	for range 20 {
		_, value := q.submit("workgroup=1ms", 2)
		h.advance(5 * time.Millisecond)
		if !slices.Equal(h.flags(), []uint32{1}) || h.stamp(1) != value {
			t.Fatalf("stamp %#x, want %#x", h.stamp(1), value)
		}
	}
	// In the trace: fw stamp, shared stamp, retired, event.
	order := ""
	for _, l := range h.trace.Last(400) {
		switch {
		case l.Kind == "STAMP" && bytes.Contains([]byte(l.Text), []byte("fw=")):
			order += "f"
		case l.Kind == "STAMP":
			order += "s"
		case l.Kind == "EVENT":
			order += "e"
		}
	}
	if len(order) < 9 || !bytes.Contains([]byte("fsefsefsefsefsefsefsefsefsefsefsefsefsefsefsefsefsefsefsefsefse"), []byte(order)) {
		t.Errorf("order %s", order)
	}
}

// TestPriorities: strict levels, FIFO inside one, no preemption; or promotion.
func TestPriorities(t *testing.T) {
	for name, c := range map[string]struct {
		promote time.Duration
		want    []uint32
	}{
		"strict":   {0, []uint32{1, 4, 2, 3}},
		"promoted": {1500 * time.Microsecond, []uint32{1, 3, 2, 4}},
	} {
		t.Run(name, func(t *testing.T) {
			h := newReady(t, func(cfg *fw.Config) { cfg.Promote = c.promote })
			var queues []*queue
			for i, level := range []uint32{3, 2, 3, 1} {
				queues = append(queues, h.queue(level, uint32(i+1), uint32(i+1)))
			}
			queues[0].submit("workgroup=2ms", 1)
			queues[2].submit("workgroup=2ms", 1)
			h.advance(time.Millisecond)
			queues[1].submit("workgroup=2ms", 1)
			queues[3].submit("workgroup=2ms", 1)
			h.advance(20 * time.Millisecond)
			if got := h.flags(); !slices.Equal(got, c.want) {
				t.Errorf("order %v, want %v", got, c.want)
			}
		})
	}
}

// TestWidth runs two commands at once.
func TestWidth(t *testing.T) {
	for width, want := range map[int]time.Duration{1: 8 * time.Millisecond, 2: 4 * time.Millisecond} {
		h := newReady(t, func(c *fw.Config) { c.Width = width })
		a, b := h.queue(2, 1, 1), h.queue(2, 2, 2)
		a.submit("workgroup=4ms", 1)
		b.submit("workgroup=4ms", 1)
		h.advance(want - 1)
		if h.stamp(2) != 0 {
			t.Errorf("width %d: too early", width)
		}
		if h.advance(1); h.stamp(2) == 0 || h.stamp(1) == 0 {
			t.Errorf("width %d: not done", width)
		}
	}
}

// TestThreshold: events are held back until the threshold, then all slots come at once.
func TestThreshold(t *testing.T) {
	for _, bypass := range []bool{false, true} {
		h := newReady(t, func(c *fw.Config) { c.FlushBypasses = bypass })
		q := h.queue(2, 7, 1)
		flush := func(rc *abi.RunCompute, _ *[]abi.Operation) { rc.Meta.FlushStamps = 1 }
		q.expect(2) // The two-submit trap: one command too many is expected.
		first := q.command(h.dispatch("workgroup=1ms", 1), flush)
		q.kick()
		h.advance(5 * time.Millisecond)
		if got := len(h.flags()); h.stamp(7) != first || got != 0 != bypass {
			t.Fatalf("bypass %t: stamp %#x, %d flags", bypass, h.stamp(7), got)
		}
		second := q.command(h.dispatch("workgroup=1ms", 1), nil)
		q.kick()
		h.advance(5 * time.Millisecond)
		if h.stamp(7) != second || !slices.Equal(h.flags(), []uint32{7}) {
			t.Errorf("bypass %t: stamp %#x", bypass, h.stamp(7))
		}
	}
}

// TestWrap: stamps pass 0 (row 16).
func TestWrap(t *testing.T) {
	h := newReady(t, nil)
	h.setStamps(3, 0xfffffe00)
	q, other := h.queue(2, 3, 1), h.queue(1, 4, 2)
	var last uint32
	for range 4 {
		_, last = q.submit("workgroup=1ms", 1)
	}
	other.barrier(q, last)
	other.submit("workgroup=1ms", 1)
	h.advance(10 * time.Millisecond)
	if last != 0x200 || h.stamp(3) != last || h.stamp(4) != abi.StampStep {
		t.Errorf("stamps %#x and %#x", h.stamp(3), h.stamp(4))
	}
}

// TestBarriers: a queue waits for another one, of any level, and others go on.
func TestBarriers(t *testing.T) {
	for _, bySlot := range []bool{false, true} {
		h := newReady(t, func(c *fw.Config) { c.RecheckBySlot = bySlot })
		a, b, c := h.queue(3, 1, 1), h.queue(0, 2, 2), h.queue(2, 3, 3)
		b.barrier(a, a.value+2*abi.StampStep)
		b.submit("workgroup=1ms", 1)
		if got := h.fw.Queues()[0]; got.State != "blocked" || got.Read != 1 || got.Done != 0 {
			t.Fatalf("%+v", got)
		}
		c.submit("workgroup=1ms", 1)
		a.submit("workgroup=1ms", 1)
		a.submit("workgroup=1ms", 1)
		h.advance(10 * time.Millisecond)
		if got := h.flags(); !slices.Equal(got, []uint32{3, 1, 2}) {
			t.Errorf("by slot %t: order %v", bySlot, got)
		}
	}
	// A stamp of another slot than the barrier names is looked at only in one setting.
	for _, bySlot := range []bool{false, true} {
		h := newReady(t, func(c *fw.Config) { c.RecheckBySlot = bySlot })
		a, b := h.queue(2, 1, 1), h.queue(2, 2, 2)
		b.push(h.place(abi.ClassPrivate, &abi.Barrier{WaitStamp: h.fwStamps + 4, WaitValue: abi.StampStep, WaitSlot: 99, UUID: abi.BarrierUUID}))
		b.submit("workgroup=1ms", 1)
		a.submit("workgroup=1ms", 1)
		h.advance(10 * time.Millisecond)
		if passed := h.stamp(2) != 0; passed == bySlot {
			t.Errorf("by slot %t: passed %t", bySlot, passed)
		}
		h.send(abi.DoorbellMessage(abi.DoorbellKick)) // Any kick looks again.
		if h.advance(10 * time.Millisecond); h.stamp(2) == 0 {
			t.Errorf("by slot %t: still blocked", bySlot)
		}
	}
}

// TestOperations executes memory operations and both other ends of a sequence.
func TestOperations(t *testing.T) {
	h := newReady(t, nil)
	q := h.queue(2, 1, 1)
	cell := h.alloc(abi.ClassShared, 32)
	q.command(h.dispatch("workgroup=1ms", 1), func(rc *abi.RunCompute, ops *[]abi.Operation) {
		alu := func(kind abi.ALUKind, v uint32) abi.Operation { return &abi.ALU{Kind: kind, Address: cell, Operand: v} }
		*ops = []abi.Operation{
			&abi.Store{Address: cell, Value: 0xF0}, alu(abi.ALUOr, 0xF), alu(abi.ALUAnd, 0x3C), alu(abi.ALUXor, 0xFF), alu(abi.ALULsl, 4), alu(abi.ALULsr, 1), alu(abi.ALUAdd, 3),
			&abi.Store{Wide: true, Address: cell + 8, Value: 1 << 40}, &abi.Read{Address: cell}, (*ops)[0], &abi.WaitForIdle{},
			&abi.EndStamp{FwStamp: rc.Meta.FwStamp, Value: rc.Meta.Value},
		}
	})
	q.expect(1)
	q.kick()
	h.advance(10 * time.Millisecond)
	if got, want := h.words(cell, 4).Load(0), uint32(0xC3<<4>>1+3); got != want {
		t.Errorf("word %#x, want %#x", got, want)
	}
	if h.words(cell, 16).Load(3) != 1<<8 || h.stamp(1) != q.value || h.fwStamp(1) != q.value {
		t.Error("wide store or Complete")
	}
	q.command(h.dispatch("workgroup=1ms", 1), func(_ *abi.RunCompute, ops *[]abi.Operation) { *ops = []abi.Operation{&abi.EndStamp{Abort: true}} })
	q.expect(1)
	h.flags()
	q.kick()
	e, ok := h.seen[0].(*abi.ChannelError)
	if !ok || abi.ChannelErrorType(e.Error) != abi.ChannelAborted || e.Value != q.value || e.Slot != 1 {
		t.Fatalf("events %v", h.seen)
	}
	if !h.do(&abi.RecoverChannel{Pipe: uint32(abi.PipeCompute), Queue: q.info, Value: q.value}) || h.stamp(1) != q.value {
		t.Errorf("not recovered: stamp %#x", h.stamp(1))
	}
}

// TestUnknownOperation: a channel error, or a crash.
func TestUnknownOperation(t *testing.T) {
	for _, crash := range []bool{false, true} {
		h := newReady(t, func(c *fw.Config) { c.UnknownOpCrash = crash })
		q := h.queue(2, 1, 1)
		q.command(h.dispatch("workgroup=1ms", 1), func(_ *abi.RunCompute, ops *[]abi.Operation) { *ops = (*ops)[:0] })
		q.kick()
		if h.crashed != crash || len(h.seen) == 1 == crash {
			t.Errorf("crash %t: crashed %t, events %v", crash, h.crashed, h.seen)
		}
	}
}
