package fw_test

import (
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/plugins/agx/abi"
	"github.com/gpuwm/gpuwm/plugins/agx/fw"
)

// TestMisuse does what a host must not do, strictly and leniently.
func TestMisuse(t *testing.T) {
	pipe := func(h *host, m *abi.RunWorkQueue) {
		_, _ = h.pipes[2].Send(h.abi.Bytes(m))
		h.send(abi.DoorbellMessage(0))
		h.step()
	}
	for name, do := range map[string]func(h *host, q *queue){
		"unknown queue": func(h *host, q *queue) { pipe(h, &abi.RunWorkQueue{Pipe: 2, Queue: 0x1234}) },
		"new twice": func(h *host, q *queue) {
			pipe(h, &abi.RunWorkQueue{Pipe: 2, Queue: q.info, Write: q.write, Slot: 1, New: true})
		},
		"vertex": func(h *host, q *queue) { pipe(h, &abi.RunWorkQueue{Pipe: 0, Queue: q.info, Write: q.write, Slot: 1}) },
		"slot":   func(h *host, q *queue) { pipe(h, &abi.RunWorkQueue{Pipe: 2, Queue: q.info, Write: q.write, Slot: 128}) },
		"write too far": func(h *host, q *queue) {
			pipe(h, &abi.RunWorkQueue{Pipe: 2, Queue: q.info, Write: abi.QueueItems, Slot: 1})
		},
		"write backward": func(h *host, q *queue) { pipe(h, &abi.RunWorkQueue{Pipe: 2, Queue: q.info, Write: 0, Slot: 1}) },
		"write beyond the ring's": func(h *host, q *queue) { // It is told of what the ring does not say.
			q.command(h.dispatch("workgroup=1ms", 1), nil)
			pipe(h, &abi.RunWorkQueue{Pipe: 2, Queue: q.info, Write: q.write, Slot: 1})
		},
		"destroy with other indices": func(h *host, q *queue) {
			h.advance(10 * time.Millisecond)
			m := q.end()
			m.Index0++
			h.do(m)
		},
		"destroy twice": func(h *host, q *queue) {
			h.advance(10 * time.Millisecond)
			m := q.end()
			h.do(m)
			h.do(m)
		},
		"context used again": func(h *host, q *queue) {
			h.advance(10 * time.Millisecond)
			h.do(q.end())
			q.fresh, q.value = true, h.stamp(1)
			q.kick()
		},
		"item":     func(h *host, q *queue) { q.push(0x77); q.kick() },
		"graphics": func(h *host, q *queue) { q.push(h.alloc(abi.ClassPrivate, 64)); q.kick() },
		"vm slot": func(h *host, q *queue) {
			q.command(h.dispatch("workgroup=1ms", 1), func(rc *abi.RunCompute, _ *[]abi.Operation) { rc.VMSlot = 64 })
			q.kick()
		},
		"stamp slot": func(h *host, q *queue) {
			q.command(h.dispatch("workgroup=1ms", 1), func(rc *abi.RunCompute, _ *[]abi.Operation) { rc.Meta.Slot = 5 })
			q.kick()
		},
		"stamp address": func(h *host, q *queue) {
			q.command(h.dispatch("workgroup=1ms", 1), func(rc *abi.RunCompute, _ *[]abi.Operation) { rc.Meta.Stamp = 8 })
			q.kick()
		},
		"start of another queue": func(h *host, q *queue) {
			q.command(h.dispatch("workgroup=1ms", 1), func(_ *abi.RunCompute, ops *[]abi.Operation) { (*ops)[0] = &abi.StartCompute{Queue: 7, VMSlot: 1} })
			q.kick()
		},
		"recover what runs":  func(h *host, q *queue) { h.do(&abi.RecoverChannel{Pipe: 2, Queue: q.info}) },
		"destroy what runs":  func(h *host, q *queue) { h.do(q.end()) },
		"second initialize":  func(h *host, q *queue) { h.do(&abi.Control{Type: abi.ControlInitialize}) },
		"write32 to nowhere": func(h *host, q *queue) { h.do(&abi.Write32{Address: 3}) },
		"odd init message":   func(h *host, q *queue) { h.send(abi.Message{Endpoint: abi.EndpointFirmware}); h.step() },
		"pipe entry": func(h *host, q *queue) {
			_, _ = h.pipes[0].Send([]byte{2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9})
			h.send(abi.DoorbellMessage(0))
			h.step()
		},
	} {
		for _, lenient := range []bool{false, true} {
			h := newReady(t, func(c *fw.Config) { c.Lenient = lenient })
			q, other := h.queue(2, 1, 1), h.queue(2, 2, 2)
			q.submit("workgroup=1ms", 3)
			do(h, q)
			other.submit("workgroup=1ms", 1)
			h.advance(20 * time.Millisecond)
			if h.fw.Counters().Misuses == 0 || h.crashed == lenient || h.fw.Dead() == lenient {
				t.Errorf("%s, lenient %t: %d misuses, crashed %t", name, lenient, h.fw.Counters().Misuses, h.crashed)
			}
			if lenient && h.stamp(2) != other.value {
				t.Errorf("%s, lenient %t: the other queue's stamp %#x", name, lenient, h.stamp(2))
			}
		}
	}
}

// TestTolerated does what looks odd and is allowed.
func TestTolerated(t *testing.T) {
	h := newReady(t, nil)
	q := h.queue(2, 1, 1)
	q.submit("workgroup=1ms", 3)
	q.kick() // The same index again.
	h.send(abi.DoorbellMessage(0), abi.DoorbellMessage(abi.PipeDoorbell(abi.PipeVertex, 3)), abi.DoorbellMessage(99), abi.Message{Endpoint: abi.EndpointDoorbell, Payload: abi.GPUFwCtl << 48})
	h.step()
	h.do(&abi.Control{Type: abi.ControlUpdateIdleTS})
	h.do(&abi.Control{Type: abi.ControlGrowTVBAck})
	_, _ = h.control.Send([]byte{0x77})
	h.send(abi.DoorbellMessage(abi.DoorbellDeviceControl))
	h.advance(10 * time.Millisecond)
	if h.fw.Dead() || h.stamp(1) != q.value || h.fw.Counters().Misuses != 0 {
		t.Errorf("%s %q", h.fw.Phase(), h.fw.CrashText())
	}
	// An idle queue may change its slot and its level.
	q.slot, q.level = 9, 0
	h.setStamps(9, 0x4000)
	q.value = 0x4000
	q.submit("workgroup=1ms", 1)
	if h.advance(5 * time.Millisecond); h.stamp(9) != 0x4100 || h.fw.Counters().Misuses != 0 {
		t.Errorf("stamp %#x, %d misuses", h.stamp(9), h.fw.Counters().Misuses)
	}
}

// TestInitializeFirst: anything before Initialize is a crash.
func TestInitializeFirst(t *testing.T) {
	h := newHost(t, nil)
	_, _ = h.control.Send(h.abi.EncodeControl(abi.Flush()))
	if h.bringUp(); !h.crashed {
		t.Errorf("phase %s", h.fw.Phase())
	}
}

// TestWrite32: it writes and makes barriers look, or does nothing.
func TestWrite32(t *testing.T) {
	for _, ignored := range []bool{false, true} {
		h := newReady(t, func(c *fw.Config) { c.Write32Ignored = ignored })
		gate, q := h.queue(2, 1, 1), h.queue(2, 2, 2)
		q.barrier(gate, 0x100)
		q.submit("workgroup=1ms", 1)
		if !h.do(&abi.Write32{Address: h.fwStamps + 4, Value: 0x100}) {
			t.Error("not consumed")
		}
		if h.advance(5 * time.Millisecond); (h.stamp(2) == q.value) == ignored {
			t.Errorf("ignored %t: stamp %#x", ignored, h.stamp(2))
		}
	}
}

// TestPrivateMemory is row 24: an object that changes after the firmware has it.
func TestPrivateMemory(t *testing.T) {
	for _, crash := range []bool{false, true} {
		h := newReady(t, func(c *fw.Config) { c.CheckerCrash = crash })
		q := h.queue(2, 1, 1)
		q.submit("workgroup=1ms", 1)
		h.advance(5 * time.Millisecond)
		old := q.last
		q.submit("workgroup=1ms", 1)
		h.advance(5 * time.Millisecond)
		if h.fw.Counters().Violations != 0 {
			t.Fatal("a violation of nothing")
		}
		// The first command's memory is used again without a flush.
		var rc abi.RunCompute
		if err := h.abi.Decode(h.bytes(q.last, h.abi.Size(&rc)), &rc); err != nil {
			t.Fatal(err)
		}
		rc.Meta.Value += abi.StampStep
		h.write(old, &rc)
		q.push(old)
		q.expect(1)
		q.kick()
		h.advance(5 * time.Millisecond)
		if h.fw.Counters().Violations == 0 || h.crashed != crash {
			t.Errorf("crash %t: %d violations, crashed %t", crash, h.fw.Counters().Violations, h.crashed)
		}
		if !crash && h.stamp(1) != abi.StampStep {
			t.Errorf("what was cached did not run: stamp %#x", h.stamp(1))
		}
	}
}

// TestFlush: after DestroyContext the memory can be used again.
func TestFlush(t *testing.T) {
	h := newReady(t, nil)
	first := h.next
	q := h.queue(2, 1, 1)
	q.submit("workgroup=1ms", 1)
	h.advance(5 * time.Millisecond)
	if !h.do(q.end()) || len(h.fw.Queues()) != 0 {
		t.Fatal("not destroyed")
	}
	clear(h.bytes(abi.Address(abi.ClassShared, first), uint32(h.next-first)))
	h.next = first // Everything anew, in the same places.
	again := h.queue(1, 3, 2)
	again.submit("workgroup=1ms", 1)
	if h.advance(5 * time.Millisecond); h.stamp(3) != again.value || h.fw.Counters().Violations != 0 || h.fw.Dead() {
		t.Errorf("stamp %#x, %d violations", h.stamp(3), h.fw.Counters().Violations)
	}
}

// TestLastCommand is row 25: it must stay until the next one is retired.
func TestLastCommand(t *testing.T) {
	for name, c := range map[string]struct {
		plan  string
		free  func(h *host, q *queue)
		bad   bool
		after time.Duration
	}{
		"at its flag":  {"", func(h *host, q *queue) { clear(h.bytes(q.last, 0x100)) }, true, 0},
		"its sequence": {"", func(h *host, q *queue) { clear(h.bytes(q.lastSequence, 16)) }, true, 0},
		"a late look":  {"retired touch=50ms", func(h *host, q *queue) { clear(h.bytes(q.last, 0x100)) }, true, 20 * time.Millisecond},
		"after the next": {"", func(h *host, q *queue) {
			old := q.last
			q.submit("workgroup=1ms", 1)
			h.advance(3 * time.Millisecond)
			clear(h.bytes(old, 0x100))
		}, false, 0},
		"after its queue":  {"", func(h *host, q *queue) { h.do(q.end()); clear(h.bytes(q.last, 0x100)) }, false, 0},
		"when next starts": {"retired touch=1h", func(h *host, q *queue) { old := q.last; q.submit("workgroup=1ms", 1); clear(h.bytes(old, 0x100)) }, true, 0},
	} {
		h := newPlanned(t, c.plan, nil)
		q := h.queue(2, 1, 1)
		q.submit("workgroup=1ms", 1)
		h.advance(time.Millisecond + c.after)
		if len(h.flags()) != 1 {
			t.Fatalf("%s: no flag", name)
		}
		c.free(h, q)
		h.advance(100 * time.Millisecond)
		if found := h.fw.Counters().Violations > 0; found != c.bad {
			t.Errorf("%s: found %t", name, found)
		}
	}
}
